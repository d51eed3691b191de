//! `multifd show`.

mod destination;

use multifd::core::ram::Ram;
use multifd::core::wire::Uuid;
use multifd::{Uri, Vm};
use serde::Serialize;

use crate::failure::Failure;
use crate::options::codec::Agreed;
use crate::options::device_state::DeviceStateLimit;
use crate::output::{self, Output};
use crate::place::{Place, Reading, Saved};
use crate::size::Bytes;
use destination::{Destination, ShownBlock, command_line, older_than_9};

/// Show a stored VM and how to give it to a QEMU.
///
/// Prints the content of the image, the command line of a QEMU that can receive it, the commands that
/// set that QEMU up, and the command that sends the image there. Add the options for the source's
/// processor, devices and firmware: an image has their state, but not their options.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  multifd show vm
  multifd show vm --compression zstd --channels 4 --listen tcp:0.0.0.0:4444
  multifd show vm --json")]
pub(crate) struct Args {
    /// The folder of the VM image, or qemu-file:PATH or libvirt:PATH
    #[arg(value_name = "PLACE", value_parser = Place::parser())]
    image: Place,
    #[command(flatten)]
    agreed: Agreed,
    /// Where the QEMU is to listen: tcp:HOST:PORT, unix:PATH or vsock:CID:PORT
    #[arg(short, long, value_name = "URI", default_value = "tcp:127.0.0.1:4444")]
    listen: Uri,
    #[command(flatten)]
    device_state_limit: DeviceStateLimit,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// The content of an image, and how to send it.
#[derive(Debug, Serialize)]
struct Shown {
    image: String,
    machine: Option<String>,
    uuid: Option<String>,
    #[serde(skip)]
    is_file: bool,
    page_size: u64,
    blocks: Vec<ShownBlock>,
    device_state_bytes: Option<usize>,
    /// Of devices that send some of their state before the RAM.
    early_state_bytes: usize,
    /// `None` for RAM alone, which QEMU does not accept.
    destination: Option<Destination>,
    /// The program and its arguments.
    send: Vec<String>,
}

pub(crate) fn run(args: &Args, output: &Output) -> Result<(), Failure> {
    args.image.expect_stored()?;
    let device_state_limit = &args.device_state_limit;
    let reading = Reading { device_state_limit, allow_missing_pages: true, patience: None };
    let saved = Saved::open(&args.image, reading, output)?;
    let shown = Shown::new(saved.vm(), saved.ram(), args);
    if args.json {
        return output::print_json(&shown);
    }
    shown.lines().iter().try_for_each(|line| output.say(line))
}

impl Shown {
    fn new(vm: &Vm, ram: &Ram, args: &Args) -> Self {
        let blocks = ram.blocks().iter();
        let blocks: Vec<_> = blocks
            .map(|block| ShownBlock { name: block.name().to_string(), bytes: block.bytes() })
            .collect();
        let uuid = (vm.uuid != Uuid::default()).then(|| vm.uuid.to_string());
        let machine = vm.configuration.machine.clone();
        let has_devices = !vm.device_state.is_empty();
        let destination = machine.as_deref().filter(|_| has_devices).map(|machine| {
            let advise = vm.postcopy_advise;
            Destination::new(machine, &blocks, uuid.as_deref(), advise, &args.agreed, &args.listen)
        });
        Self {
            image: args.image.to_string(),
            is_file: !matches!(args.image, Place::Image(_)),
            page_size: ram.page_size().bytes() as u64,
            device_state_bytes: has_devices.then_some(vm.device_state.len()),
            early_state_bytes: vm.early_state.bytes(),
            send: send(args, machine.as_deref()),
            machine,
            uuid,
            blocks,
            destination,
        }
    }

    fn lines(&self) -> Vec<String> {
        let fact = |name: &str, what: &str| format!("{name:<14}{what}");
        let mut lines = vec![fact("machine", self.machine.as_deref().unwrap_or("none"))];
        match &self.uuid {
            Some(uuid) => lines.push(fact("UUID", uuid)),
            None if self.is_file => {
                lines.push(fact(
                    "UUID",
                    "not in the file; send --uuid gives it to a QEMU that has one",
                ));
            }
            None => {}
        }
        lines.push(fact("page size", &Bytes(self.page_size).to_string()));
        lines.extend(self.blocks.iter().map(|ShownBlock { name, bytes }| {
            fact("RAM block", &format!("{name}, {}", Bytes(*bytes)))
        }));
        let bytes = self.device_state_bytes.map(|bytes| Bytes(bytes as u64).to_string());
        lines.push(fact("device state", bytes.as_deref().unwrap_or("none")));
        if self.early_state_bytes > 0 {
            lines.push(fact("early state", &Bytes(self.early_state_bytes as u64).to_string()));
        }
        if let Some(destination) = &self.destination {
            let title = |line: &str| [String::new(), line.to_owned()];
            lines.extend(title("A QEMU for it (add the source's processor, devices, firmware):"));
            lines.push(destination.command_line());
            lines.extend(title("In that QEMU's monitor:"));
            lines.extend(destination.monitor_commands());
            lines.extend(title("Then:"));
            lines.push(command_line(&self.send));
        }
        lines
    }
}

/// The command that sends the image.
fn send(args: &Args, machine: Option<&str>) -> Vec<String> {
    let image = args.image.to_string();
    let (to, channels) = (args.listen.to_string(), args.agreed.channels.to_string());
    let compression = args.agreed.compression.as_str();
    let send = ["multifd", "send", "--from", &image, "--to", &to, "--compression", compression];
    let mut send: Vec<_> = send.into_iter().chain(["--channels", &channels]).collect();
    // With an older machine type, the QEMU may be as old. Every QEMU understands this.
    if machine.is_some_and(older_than_9) {
        send.extend(["--zero-page-detection", "legacy"]);
    }
    send.into_iter().map(str::to_owned).collect()
}
