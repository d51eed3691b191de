//! `multifd send`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use multifd::core::PageSize;
use multifd::core::ram::{Ram, RamBlock};
use multifd::core::wire::{BlockName, Uuid};
use multifd::{CancelToken, PageSet, Source, SourceBuilder, Uri, Vm, ZeroPages};
use serde::Serialize;

use crate::cancel::Interrupt;
use crate::cpu::cpu_time;
use crate::failure::Failure;
use crate::file;
use crate::mapping::{self, Access};
use crate::options::codec::{self, Agreed};
use crate::options::cpu::Cpu;
use crate::options::device_state::DeviceStateLimit;
use crate::options::limits::{Bandwidth, Limits};
use crate::options::tls::ToTls;
use crate::options::token::TokenFile;
use crate::options::zstd::Zstd;
use crate::output::{self, Output};
use crate::place::{FORMS, Place, Reading, Saved};
use crate::qpl::Qpl;
use crate::size::Bytes;
use crate::summary::Summary;

/// Send a VM image, a VM's file or a bare RAM file.
///
/// The other side is `multifd recv`, or a QEMU with `-incoming defer`, the capability multifd and
/// the same number of channels and compression.
#[derive(Debug, clap::Args)]
#[command(after_help = format!("\
{FORMS}

Examples:
  multifd send --from vm --to tcp:host:4444 --compression zstd --channels 4
  multifd send --from qemu-file:vm.mapped --to tcp:host:4444
  multifd send --ram guest.ram --to unix:/tmp/vm.sock
  multifd send --from vm --to tcp:host:4444 --tls-creds tls"))]
#[command(group = clap::ArgGroup::new("source").args(["from", "ram"]).required(true))]
pub(crate) struct Args {
    /// Where the VM is: the folder of a VM image, qemu-file:PATH, libvirt:PATH or cloud-hypervisor:SOCKET
    #[arg(short, long, value_name = "PLACE", value_parser = Place::parser())]
    from: Option<Place>,
    /// A file of whole 4 KiB pages, sent as the RAM block pc.ram
    #[arg(short, long, value_name = "FILE")]
    ram: Option<PathBuf>,
    /// Where the destination listens: tcp:HOST:PORT, unix:PATH or vsock:CID:PORT
    #[arg(short, long, value_name = "URI")]
    to: Uri,
    #[command(flatten)]
    agreed: Agreed,
    /// The level to compress with
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    level: Option<i32>,
    /// Where zero pages are detected
    #[arg(long, value_name = "WHERE", default_value = "multifd")]
    zero_page_detection: ZeroPageDetection,
    /// Do not wait for the destination's confirmation: a late failure there goes unnoticed
    #[arg(long)]
    no_return_path: bool,
    /// The VM's UUID, in place of the image's
    #[arg(long)]
    uuid: Option<Uuid>,
    /// Check the image's RAM against its SHA-256 first
    #[arg(long, conflicts_with = "ram")]
    verify: bool,
    /// Take pages that a stream in a file does not have as zero: guests with free-page-hint or virtio-mem have some
    #[arg(long, conflicts_with = "ram")]
    allow_missing_pages: bool,
    /// Do not tell the destination what the RAM holds, and do not compare it with the image's digests
    #[arg(long)]
    no_digests: bool,
    /// Have the kernel send guest memory from where it is, without a copy and so with --no-digests: for method
    /// none over TCP without TLS, on a fast network device; over loopback the kernel copies all the same
    #[arg(long, requires = "no_digests")]
    zero_copy_send: bool,
    #[command(flatten)]
    device_state_limit: DeviceStateLimit,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    bandwidth: Bandwidth,
    #[command(flatten)]
    limits: Limits,
    #[command(flatten)]
    tls: ToTls,
    #[command(flatten)]
    token: TokenFile,
    #[command(flatten)]
    qpl: Qpl,
    #[command(flatten)]
    zstd: Zstd,
    #[command(flatten)]
    cpu: Cpu,
}

/// QEMU's names.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum ZeroPageDetection {
    /// In the channels
    Multifd,
    /// In the main channel, which every QEMU understands
    Legacy,
    /// Nowhere: zero pages are sent like others
    None,
}

impl From<ZeroPageDetection> for ZeroPages {
    fn from(detection: ZeroPageDetection) -> Self {
        match detection {
            ZeroPageDetection::Multifd => Self::Channels,
            ZeroPageDetection::Legacy => Self::Main,
            ZeroPageDetection::None => Self::Off,
        }
    }
}

#[derive(Serialize)]
struct Sent<'a> {
    to: String,
    codec: &'a str,
    channels: u8,
    #[serde(flatten)]
    summary: Summary,
    /// CPU time of this process in the time that the summary counts.
    cpu_seconds: f64,
}

pub(crate) fn run(args: &Args, output: &Output) -> Result<(), Failure> {
    // Before the threads, which inherit it.
    args.cpu.apply()?;
    let registry = args.zstd.in_registry(args.qpl.registry()?)?;
    let codec = codec::find(&registry, &args.agreed.compression, args.level)?;
    let (tls, token) = (args.tls.client()?, args.token.token()?);
    let (saved, ram) = match (&args.from, &args.ram) {
        (Some(place), _) => {
            // Nobody would say that the VM is safe.
            if args.no_return_path && matches!(place, Place::CloudHypervisor(_)) {
                return Err(Failure::usage(format!(
                    "{place} gives its VM up when the destination has confirmed it; leave --no-return-path off"
                )));
            }
            let reading = Reading {
                device_state_limit: &args.device_state_limit,
                allow_missing_pages: args.allow_missing_pages,
                patience: args.limits.progress_timeout(),
            };
            let saved = Saved::open(place, reading, output)?;
            let ram = Arc::clone(saved.ram());
            (Some(saved), ram)
        }
        (None, Some(file)) => (None, Arc::new(bare_ram(file)?)),
        (None, None) => {
            return Err(Failure::usage("neither --from nor --ram is given; give one of them"));
        }
    };
    if let Some(saved) = saved.as_ref().filter(|_| args.verify) {
        saved.verify(&Interrupt::default(), &output.bar("checking", ram.bytes()))?;
    }
    let mut setup = Source::builder(&registry, Arc::clone(&ram))
        .compression(Arc::clone(&codec))
        .level(args.level)
        .channels(args.agreed.channels)
        .zero_pages(args.zero_page_detection.into())
        .return_path(!args.no_return_path)
        .digests(!args.no_digests)
        .zero_copy(args.zero_copy_send)
        .progress_timeout(args.limits.progress_timeout())
        .time_limit(args.limits.time_limit)
        .max_bandwidth(args.bandwidth.max_bandwidth);
    if let Some(tls) = tls {
        setup = setup.tls(tls);
    }
    if let Some(token) = token {
        setup = setup.token(token);
    }
    let vm = saved.as_ref().map(Saved::vm);
    if let Some(vm) = vm {
        setup = as_it_came(setup, vm);
        if let Some(digests) = vm.digests.clone().filter(|_| !args.no_digests) {
            setup = setup.expected_digests(digests);
        }
    }
    if let Some(uuid) = args.uuid {
        setup = setup.uuid(uuid);
    }
    let state = vm.map(|vm| &vm.device_state[..]).filter(|state| !state.is_empty());
    let interrupt = Interrupt::listen()?;
    let check = || saved.as_ref().map_or(Ok(()), Saved::check);
    let sent = send(setup, args, &ram, state, (&interrupt, &check), output);
    let (summary, cpu) = match (sent, saved) {
        (Ok(sent), Some(saved)) => {
            saved.give_up()?;
            sent
        }
        (Err(failure), Some(saved)) => return Err(saved.hold(failure, &interrupt)),
        (sent, None) => sent?,
    };
    output::went_through(if args.json {
        let to = args.to.to_string();
        let channels = args.agreed.channels;
        let cpu_seconds = cpu.as_secs_f64();
        let sent = Sent { to, codec: codec.name(), channels, summary, cpu_seconds };
        output::print_json(&sent)
    } else {
        output.say(&format!("sent to {}: {}", args.to, summary.sentence()))
    });
    Ok(())
}

/// A RAM file as the only block of a VM.
fn bare_ram(path: &Path) -> Result<Ram, Failure> {
    let (file, bytes) = file::open(path)?;
    mapping::check_pages(path, bytes)?;
    let memory = mapping::of_file(path, file, 0, bytes, Access::Read)?;
    Ok(Ram::new(PageSize::Kib4, [RamBlock::new(BlockName::new("pc.ram")?, memory)])?)
}

/// Sends the same main channel as the one that the VM came with.
fn as_it_came<'a>(setup: SourceBuilder<'a>, vm: &Vm) -> SourceBuilder<'a> {
    setup
        .uuid(vm.uuid)
        .configuration(vm.configuration.clone())
        .section_id(vm.section_id)
        .early_state(vm.early_state.clone())
        .postcopy_advise(vm.postcopy_advise)
        .block_page_bytes(vm.blocks.iter().map(|block| block.page_bytes))
        .sync_form(vm.sync_form)
        .footers(vm.footers)
}

/// Returns the CPU time from connecting on, too. `check` says whether the VM is still to be sent when all of its RAM was.
fn send(
    setup: SourceBuilder<'_>,
    args: &Args,
    ram: &Ram,
    device_state: Option<&[u8]>,
    (interrupt, check): (&Interrupt, &dyn Fn() -> Result<(), Failure>),
    output: &Output,
) -> Result<(Summary, Duration), Failure> {
    let (started, cpu_before) = (Instant::now(), cpu_time());
    let bar = output.line("sending", &format!("connecting to {}", args.to));
    let token = CancelToken::new();
    let _watch = interrupt.watch(token.clone());
    let connected = setup.cancelled_by(&token).connect(&args.to);
    let mut source = connected.map_err(|error| interrupt.or(error))?;
    tracing::debug!(to = %args.to, ram = %Bytes(ram.bytes()), "connected");
    let page_bytes = ram.page_size().bytes();
    let follow = bar.follow(source.progress(), ram.bytes());
    // A file that cannot be read fails the migration while the VM is still here alone.
    let failed = |failure: Failure| match mapping::check_files() {
        Err(file) if !failure.is_unclear() => interrupt.or(file),
        _ => interrupt.or(failure),
    };
    source.round(&PageSet::all(ram)).map_err(|error| failed(error.into()))?;
    mapping::check_files()?;
    check()?;
    drop(follow);
    bar.say(&format!("everything is sent; waiting for {} to confirm", args.to));
    let stats = source.finish(&PageSet::none(ram), device_state);
    let stats = stats.map_err(|unfinished| failed(unfinished.into()))?;
    let summary = Summary::new(&stats, page_bytes, started.elapsed());
    Ok((summary, cpu_time().saturating_sub(cpu_before)))
}
