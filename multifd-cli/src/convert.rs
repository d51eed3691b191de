//! `multifd convert`.

use multifd::core::wire::Uuid;
use serde::Serialize;

use crate::cancel::Interrupt;
use crate::failure::Failure;
use crate::options::device_state::DeviceStateLimit;
use crate::options::store::NewVm;
use crate::output::{self, Output};
use crate::place::{FORMS, How, PATIENCE, Place, Reading, Saved, StoredVm, Target};

/// Copy a VM from one place to another.
///
/// What is copied is the VM as it stands: its RAM, its devices' state and what a QEMU has to know of it. Files and folders are
/// left as they are. A Cloud Hypervisor gives the VM up when the copy is safe, unless it was told to preserve its own.
#[derive(Debug, clap::Args)]
#[command(after_help = format!("\
{FORMS}

Examples:
  multifd convert --from qemu-file:vm.mapped --to vm
  multifd convert --from vm --to qemu-file:vm.mapped --direct-io
  multifd convert --from libvirt:vm.save --to vm
  multifd convert --from vm --to libvirt:vm.save,xml=vm.xml
  multifd convert --from cloud-hypervisor:/tmp/vm.sock --to vm"))]
pub(crate) struct Args {
    /// Where the VM is
    #[arg(short, long, value_name = "PLACE", value_parser = Place::parser())]
    from: Place,
    #[command(flatten)]
    new: NewVm,
    /// The VM's UUID, in place of the one where it is; files of QEMU's have none, and a QEMU may want it
    #[arg(long)]
    uuid: Option<Uuid>,
    /// Take pages that a stream in a file does not have as zero: guests with free-page-hint or virtio-mem have some
    #[arg(long)]
    allow_missing_pages: bool,
    /// Check an image's RAM against its SHA-256 first
    #[arg(long)]
    verify: bool,
    #[command(flatten)]
    device_state_limit: DeviceStateLimit,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// What was copied.
#[derive(Debug, Serialize)]
struct Converted {
    from: String,
    to: String,
    vm: StoredVm,
}

pub(crate) fn run(args: &Args, output: &Output) -> Result<(), Failure> {
    let (from, NewVm { to, force, writing }) = (&args.from, &args.new);
    if args.uuid.is_some() && matches!(to, Place::Libvirt { .. }) {
        return Err(Failure::usage(format!(
            "{to} has its UUID in the domain's XML; leave --uuid off"
        )));
    }
    let patience = Some(PATIENCE);
    let reading = Reading {
        device_state_limit: &args.device_state_limit,
        allow_missing_pages: args.allow_missing_pages,
        patience,
    };
    // Until there is a VM, a signal may simply end the program.
    let mut saved = Saved::open(from, reading, output)?;
    let interrupt = Interrupt::listen()?;
    if let Some(uuid) = args.uuid {
        saved.set_uuid(uuid)?;
    }
    let target = Target::create(to, *force, saved.domain().is_some(), writing, &interrupt)?;
    if args.verify {
        saved.verify(&interrupt, &output.bar("checking", saved.ram().bytes()))?;
    }
    let how = How { domain: saved.domain(), writing, limit: patience };
    let vm = (saved.vm(), saved.ram());
    let there = target.store(vm, how, &|| saved.check(), &interrupt, output);
    let stored = there.map_err(|failure| saved.hold(failure, &interrupt))?.keep();
    saved.give_up()?;
    let converted = Converted { from: from.to_string(), to: to.to_string(), vm: stored };
    output::stored(match args.json {
        true => output::print_json(&converted),
        false => {
            let Converted { from, to, vm } = &converted;
            output.say(&format!("copied {} from {from} to {to}", vm.shown()))
        }
    });
    Ok(())
}
