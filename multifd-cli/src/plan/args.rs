//! The command line of `multifd plan`.

use std::num::NonZeroU8;
use std::path::PathBuf;

use clap::builder::{PossibleValue, PossibleValuesParser, RangedU64ValueParser};
use clap::{ArgGroup, ValueEnum};
use multifd_plan::{Live, Parameters, Preset, Speed, XEON_4TH_GEN_64G};

use crate::options::device_state::DeviceStateLimit;
use crate::options::zstd::Zstd;
use crate::{size, units};

/// Simulate a migration: its time, its CPU and its bottleneck.
///
/// Codecs are run on packets from all over the memory, for their ratio and their speed on this
/// machine. Accelerators, the link and the other CPU costs are simulated, with the figures of a 4th
/// generation Xeon unless options say otherwise. If no memory is given, it is made up.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Speeds are written as 100Gbit/s, 25Gbps, 12.5GB/s or 20000pages/s (of 4 KiB), times as 75ns or 300ms.

Examples:
  multifd plan --ram guest.ram --size 64G --link-bandwidth 25Gbit/s
  multifd plan --from vm --compression zstd,qpl-hardware --devices 1 --channels 4
  multifd plan --ram guest.ram --size 64G --dirty-rate 500MB/s --downtime-limit 300ms
  multifd plan --preset xeon-4th-gen-64g")]
#[command(group = ArgGroup::new("memory").args(["ram", "from", "recording", "preset"]))]
pub(crate) struct Args {
    /// A guest's memory, a file of whole 4 KiB pages
    #[arg(short, long, value_name = "FILE")]
    pub(super) ram: Option<PathBuf>,
    /// The folder of a VM image
    #[arg(short, long, value_name = "IMAGE")]
    pub(super) from: Option<PathBuf>,
    /// The folder of a recorded migration
    #[arg(long, value_name = "FOLDER")]
    pub(super) recording: Option<PathBuf>,
    /// A published test, with its own memory and figures
    #[arg(long, value_name = "NAME")]
    pub(super) preset: Option<PresetName>,
    /// How much memory of the same kind to plan for; if not given, its own size, or 1G if made up
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    pub(super) size: Option<u64>,
    /// The share of zero pages, 0 to 1, in place of the memory's own
    #[arg(long, value_name = "SHARE", value_parser = units::share)]
    pub(super) zero_share: Option<f64>,
    /// Ratios of codecs, in place of measured ones: zstd=2.5,qpl-hardware=1.9
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = units::ratio_of)]
    pub(super) ratio: Vec<(String, f64)>,
    /// How many packets of 128 pages to sample
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = sample_count())]
    pub(super) sample: u64,
    /// The seed for selecting packets and making up memory
    #[arg(long, default_value_t = 1)]
    pub(super) seed: u64,
    /// The codecs, separated by commas [default: none,zstd,qpl-hardware, or the preset's]
    #[arg(short, long, value_name = "LIST", value_delimiter = ',', value_parser = names())]
    pub(super) compression: Vec<String>,
    /// The level of those codecs that have levels
    #[arg(long, value_name = "N", allow_negative_numbers = true, conflicts_with = "preset")]
    pub(super) level: Option<i32>,
    /// How many channels; several numbers, separated by commas, are compared
    #[arg(short = 'n', long, value_name = "LIST", default_value = "2,4,8", value_delimiter = ',',
          value_parser = clap::value_parser!(u8).range(1..))]
    pub(super) channels: Vec<u8>,
    /// Speeds of codecs on one core, in place of measured ones: zstd=400MB/s
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = units::speed_of)]
    pub(super) compress_speed: Vec<(String, Speed)>,
    /// As --compress-speed, for decompression
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = units::speed_of)]
    pub(super) decompress_speed: Vec<(String, Speed)>,
    /// How much the running guest writes, in bytes or pages a second; it stands still if not given
    #[arg(long, value_name = "SPEED", value_parser = units::dirty_rate)]
    dirty_rate: Option<f64>,
    /// The longest that the guest may stand still at the end
    #[arg(long, value_name = "TIME", default_value = "300ms", value_parser = units::time,
          requires = "dirty_rate")]
    downtime_limit: u64,
    #[command(flatten)]
    pub(super) device_state_limit: DeviceStateLimit,
    #[command(flatten)]
    pub(super) zstd: Zstd,
    #[command(flatten)]
    machines: Machines,
    /// Print the result as JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// Published tests that the program knows.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum PresetName {
    /// Intel's of QEMU: 64 GB, 4 IAA a side, 100 Gbit/s
    #[value(name = "xeon-4th-gen-64g")]
    Xeon4thGen64g,
}

impl PresetName {
    pub(super) fn preset(self) -> &'static Preset {
        match self {
            Self::Xeon4thGen64g => &XEON_4TH_GEN_64G,
        }
    }
}

/// Figures of the machines and the link, in place of the defaults.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Machines and link")]
struct Machines {
    /// The link's speed on the line [default: 100Gbit/s]
    #[arg(long, value_name = "SPEED", value_parser = units::speed)]
    link_bandwidth: Option<Speed>,
    /// The share of the bandwidth that is TCP payload [default: 0.94, frames of 1500 bytes]
    #[arg(long, value_name = "SHARE", value_parser = units::share_above_0)]
    link_efficiency: Option<f64>,
    /// The most bytes of one channel that are on their way [default: 4M]
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    socket_buffer: Option<u64>,
    /// Accelerators on each side [default: 4]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..))]
    devices: Option<u8>,
    /// Engines of a device that work at the same time [default: 2]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..))]
    engines: Option<u8>,
    /// The speed at which one engine compresses pages [default: 1.74GB/s]
    #[arg(long, value_name = "SPEED", value_parser = units::speed)]
    engine_compress: Option<Speed>,
    /// The speed at which one engine decompresses pages [default: 1.9GB/s]
    #[arg(long, value_name = "SPEED", value_parser = units::speed)]
    engine_decompress: Option<Speed>,
    /// The time to a device and back, besides the engine's work [default: 1us]
    #[arg(long, value_name = "TIME", value_parser = units::cost)]
    device_latency: Option<u64>,
    /// Pages that can wait for the engines of one device [default: 128]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    queue_depth: Option<u16>,
    /// CPU time to submit a page to a device [default: 60ns]
    #[arg(long, value_name = "TIME", value_parser = units::cost)]
    submit_cost: Option<u64>,
    /// CPU time to collect a finished page from a device [default: 60ns]
    #[arg(long, value_name = "TIME", value_parser = units::cost)]
    collect_cost: Option<u64>,
    /// The speed of zero scan and private copy on one core [default: 20GB/s]
    #[arg(long, value_name = "SPEED", value_parser = units::speed)]
    scan_speed: Option<Speed>,
    /// The speed of copying decompressed pages to memory on one core [default: 20GB/s]
    #[arg(long, value_name = "SPEED", value_parser = units::speed)]
    copy_speed: Option<Speed>,
    /// The speed at which one core sends [default: 5.94GB/s]
    #[arg(long, value_name = "SPEED", value_parser = units::speed)]
    send_speed: Option<Speed>,
    /// The speed at which one core receives [default: 5.94GB/s]
    #[arg(long, value_name = "SPEED", value_parser = units::speed)]
    receive_speed: Option<Speed>,
    /// CPU time of a packet on either side, besides its pages [default: 1us]
    #[arg(long, value_name = "TIME", value_parser = units::cost)]
    packet_cost: Option<u64>,
    /// CPU time of a page in the thread that hands out pages [default: 75ns]
    #[arg(long, value_name = "TIME", value_parser = units::cost)]
    feed_cost: Option<u64>,
    /// The time before the first page [default: 0s, or the preset's]
    #[arg(long, value_name = "TIME", value_parser = units::time)]
    setup_time: Option<u64>,
    /// The time after the last page, while the guest stands still [default: 0s]
    #[arg(long, value_name = "TIME", value_parser = units::time)]
    switchover_time: Option<u64>,
}

impl Args {
    /// The figures to plan with.
    pub(super) fn parameters(&self) -> Parameters {
        let mut parameters = Parameters::default();
        if let Some(name) = self.preset {
            parameters.setup_ns = name.preset().setup_ns;
        }
        let asked = &self.machines;
        let Parameters { link, cpu, devices, setup_ns, switchover_ns, .. } = &mut parameters;
        put(&mut link.bytes_per_second, asked.link_bandwidth);
        put(&mut link.efficiency, asked.link_efficiency);
        put(&mut link.socket_buffer, asked.socket_buffer);
        put(&mut devices.count, asked.devices);
        put(&mut devices.engines, asked.engines.and_then(NonZeroU8::new));
        put(&mut devices.compress, asked.engine_compress);
        put(&mut devices.decompress, asked.engine_decompress);
        put(&mut devices.latency_ns, asked.device_latency);
        put(&mut devices.queue_depth, asked.queue_depth);
        put(&mut devices.submit_ns, asked.submit_cost);
        put(&mut devices.collect_ns, asked.collect_cost);
        put(&mut cpu.scan, asked.scan_speed);
        put(&mut cpu.copy, asked.copy_speed);
        put(&mut cpu.send, asked.send_speed);
        put(&mut cpu.receive, asked.receive_speed);
        put(&mut cpu.packet_ns, asked.packet_cost);
        put(&mut cpu.feed_ns, asked.feed_cost);
        put(setup_ns, asked.setup_time);
        put(switchover_ns, asked.switchover_time);
        parameters
    }

    /// The guest, if it runs meanwhile.
    pub(super) fn live(&self) -> Option<Live> {
        self.dirty_rate.map(|dirty_rate| Live::new(dirty_rate, self.downtime_limit))
    }
}

fn put<T>(figure: &mut T, asked: Option<T>) {
    if let Some(asked) = asked {
        *figure = asked;
    }
}

/// The three paths of codec qpl, which stand beside the other registered codecs.
pub(super) const QPL_HARDWARE: &str = "qpl-hardware";
pub(super) const QPL_SOFTWARE: &str = "qpl-software";
pub(super) const QPL_PORTABLE: &str = "qpl-portable";

fn names() -> PossibleValuesParser {
    let registry = multifd::registry();
    let codecs = registry.iter().flat_map(multifd::core::Registry::iter);
    let codecs = codecs.map(|codec| codec.descriptor());
    let codecs = codecs.filter(|codec| codec.name != "qpl");
    let names = codecs.map(|codec| PossibleValue::new(codec.name).help(codec.summary));
    let paths = [
        PossibleValue::new(QPL_HARDWARE).help("QPL on simulated accelerators (IAA)"),
        PossibleValue::new(QPL_SOFTWARE).help("QPL by libqpl on the CPU"),
        PossibleValue::new(QPL_PORTABLE).help("QPL by the built-in encoder"),
    ];
    PossibleValuesParser::new(names.chain(paths))
}

fn sample_count() -> RangedU64ValueParser {
    clap::value_parser!(u64).range(1..=1 << 20)
}
