//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{PossibleValue, PossibleValuesParser};
use clap::{Parser, Subcommand, ValueEnum};
use multifd::core::wire::Uuid;
use multifd::{Uri, ZeroPages};

use crate::qpl::Qpl;
use crate::{doctor, inspect, size};

/// Moves a VM's memory over many channels, in the wire format of QEMU's multifd migration.
#[derive(Debug, Parser)]
#[command(name = "multifd", version, max_term_width = 100, after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) verbosity: Verbosity,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXAMPLES: &str = "\
Examples:
  multifd demo                                      try every codec on made-up memory
  multifd demo --ram guest.ram --compression zstd   one codec on a real guest's memory
  multifd recv --listen tcp::4444 --to vm           wait for a VM, store it in the folder vm
  multifd send --from vm --to tcp:host:4444         send it on to another host";

/// How much the program says.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Verbosity {
    /// Log what happens, to stderr; twice for more
    #[arg(short, long, action = clap::ArgAction::Count, global = true, display_order = 100)]
    pub(crate) verbose: u8,
    /// Say nothing but results and errors
    #[arg(short, long, global = true, conflicts_with = "verbose", display_order = 100)]
    pub(crate) quiet: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Demo(Demo),
    Send(Send),
    Recv(Recv),
    Decode(Decode),
    Inspect(inspect::Args),
    Show(crate::show::Show),
    Codecs(Codecs),
    Conformance(Conformance),
    Doctor(doctor::Args),
    /// Print a shell's completion script
    #[command(after_help = "Example:\n  multifd completions bash > \
                            ~/.local/share/bash-completion/completions/multifd")]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// Migrate memory with each codec over loopback, and compare every page.
///
/// Source and destination run in this process, over TCP. Three rounds are sent, with pages dirtied
/// between them; then every page of both sides is compared. The exit status is 1 if any differs.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  multifd demo
  multifd demo --size 2G --channels 8 --compression zstd,zlib --level 3
  multifd demo --ram guest.ram --json")]
pub(crate) struct Demo {
    /// A guest's memory, a file of whole 4 KiB pages; it is not changed. Made up if not given
    #[arg(long, value_name = "FILE", conflicts_with_all = ["size", "seed"])]
    pub(crate) ram: Option<PathBuf>,
    /// How much memory to make up
    #[arg(long, default_value = "512M", value_parser = size::parse)]
    pub(crate) size: u64,
    /// What made-up memory is made from
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// The codecs, separated by commas
    #[arg(long, value_name = "LIST", default_value = ALL, value_delimiter = ',',
          value_parser = codec_names(true))]
    pub(crate) compression: Vec<String>,
    /// The level of those codecs that have levels
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(crate) level: Option<i32>,
    /// How many channels
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = channel_count())]
    pub(crate) channels: u8,
    /// Print the result as JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) qpl: Qpl,
}

/// In place of a list of codecs.
pub(crate) const ALL: &str = "all";

/// Send a VM image or a bare RAM file.
///
/// The other side is `multifd recv`, or a QEMU with `-incoming defer`, the capability multifd and
/// the same number of channels and compression.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  multifd send --from vm --to tcp:host:4444 --compression zstd --channels 4
  multifd send --ram guest.ram --to unix:/tmp/vm.sock")]
#[command(group = clap::ArgGroup::new("source").args(["from", "ram"]).required(true))]
pub(crate) struct Send {
    /// The folder of a VM image
    #[arg(long, value_name = "IMAGE")]
    pub(crate) from: Option<PathBuf>,
    /// A file of whole 4 KiB pages, sent as the RAM block pc.ram
    #[arg(long, value_name = "FILE")]
    pub(crate) ram: Option<PathBuf>,
    /// Where the destination listens: tcp:HOST:PORT or unix:PATH
    #[arg(long, value_name = "URI")]
    pub(crate) to: Uri,
    #[command(flatten)]
    pub(crate) agreed: Agreed,
    /// The level to compress with
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(crate) level: Option<i32>,
    /// Who looks for zero pages
    #[arg(long, value_name = "WHO", default_value = "multifd")]
    pub(crate) zero_page_detection: ZeroPageDetection,
    /// Do not wait for the destination to confirm: its late failure goes unnoticed then
    #[arg(long)]
    pub(crate) no_return_path: bool,
    /// The VM's UUID, in place of the image's
    #[arg(long)]
    pub(crate) uuid: Option<Uuid>,
    /// Check the image's RAM against its SHA-256 first
    #[arg(long, conflicts_with = "ram")]
    pub(crate) verify: bool,
    /// Print the result as JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) qpl: Qpl,
}

/// What both sides must be told alike.
#[derive(Debug, clap::Args)]
pub(crate) struct Agreed {
    /// The codec, the same on both sides
    #[arg(long, value_name = "CODEC", default_value = "none", value_parser = codec_names(false))]
    pub(crate) compression: String,
    /// How many channels, the same on both sides
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = channel_count())]
    pub(crate) channels: u8,
}

/// QEMU's names.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum ZeroPageDetection {
    /// The channels
    Multifd,
    /// The main channel, as every QEMU understands
    Legacy,
    /// Nobody: zero pages are sent like others
    None,
}

impl From<ZeroPageDetection> for ZeroPages {
    fn from(who: ZeroPageDetection) -> Self {
        match who {
            ZeroPageDetection::Multifd => Self::Channels,
            ZeroPageDetection::Legacy => Self::Main,
            ZeroPageDetection::None => Self::Off,
        }
    }
}

/// Receive a VM into an image folder.
///
/// The source is `multifd send`, or a QEMU that migrates with the capability multifd. It is told
/// that the VM has arrived when everything is on the disk; whatever fails before leaves no folder
/// behind, and the guest goes on at the source. Turn the capability return-path on at a QEMU: a
/// source without it cannot be told that something failed.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  multifd recv --listen tcp::4444 --to vm --compression zstd --channels 4
  multifd recv --listen unix:/tmp/vm.sock --to vm --force")]
pub(crate) struct Recv {
    /// Where to listen: tcp:HOST:PORT (port 0: any free one) or unix:PATH
    #[arg(long, value_name = "URI")]
    pub(crate) listen: Uri,
    #[command(flatten)]
    pub(crate) store: Store,
    #[command(flatten)]
    pub(crate) agreed: Agreed,
    /// The only VM to take; any if not given
    #[arg(long)]
    pub(crate) uuid: Option<Uuid>,
    /// How many seconds to wait for all channels to connect once the source has begun
    #[arg(
        long,
        value_name = "SECONDS",
        default_value = "10",
        value_parser = seconds,
        allow_negative_numbers = true
    )]
    pub(crate) channel_timeout: Duration,
    #[command(flatten)]
    pub(crate) qpl: Qpl,
}

/// What is stored, and where.
#[derive(Debug, clap::Args)]
pub(crate) struct Store {
    /// The folder to make; it is there when it is complete
    #[arg(long, value_name = "IMAGE")]
    pub(crate) to: PathBuf,
    /// Replace the image that is there, once the new one is complete
    #[arg(long)]
    pub(crate) force: bool,
    /// The largest RAM to take; this machine's memory and swap if not given
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    pub(crate) ram_limit: Option<u64>,
    /// The most device state to take
    #[arg(long, value_name = "SIZE", default_value = "256M", value_parser = size::parse)]
    device_state_limit: u64,
    /// Take pages that never arrive as zero: sources with free-page-hint or virtio-mem skip some
    #[arg(long)]
    pub(crate) allow_missing_pages: bool,
    /// Print the result as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

impl Store {
    /// The most device state to take, in bytes.
    pub(crate) fn device_state_limit(&self) -> usize {
        usize::try_from(self.device_state_limit).unwrap_or(usize::MAX)
    }
}

/// Turn a recorded migration into a VM image.
///
/// A recording is a folder with the bytes of the main channel in main.bin and those of each multifd
/// channel in channel0.bin, channel1.bin and so on. The codec is found from the bytes.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  multifd decode recording --to vm")]
pub(crate) struct Decode {
    /// The folder of the recording
    pub(crate) recording: PathBuf,
    #[command(flatten)]
    pub(crate) store: Store,
}

/// List the codecs of this program.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  multifd codecs\n  multifd codecs --json")]
pub(crate) struct Codecs {
    /// Print the list as JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) qpl: Qpl,
}

/// Run the conformance suite on codecs.
///
/// The exit status is 1 if a case fails.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  multifd conformance\n  multifd conformance zlib zstd --json")]
pub(crate) struct Conformance {
    /// The codecs; those that are available if not given
    #[arg(value_name = "CODEC", value_parser = codec_names(false))]
    pub(crate) codecs: Vec<String>,
    /// Print the result as JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) qpl: Qpl,
}

/// Takes the names of the registered codecs.
fn codec_names(with_all: bool) -> PossibleValuesParser {
    let registry = multifd::registry();
    let codecs = registry.iter().flat_map(multifd::core::Registry::iter);
    let names = codecs.map(|codec| PossibleValue::new(codec.name).help(codec.summary));
    let all = with_all.then(|| PossibleValue::new(ALL).help("each that is available"));
    PossibleValuesParser::new(names.chain(all))
}

fn channel_count() -> clap::builder::RangedI64ValueParser<u8> {
    clap::value_parser!(u8).range(1..)
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().ok().and_then(|s| Duration::try_from_secs_f64(s).ok());
    let seconds = seconds.filter(|seconds| !seconds.is_zero());
    seconds.ok_or_else(|| format!("'{text}' is no number of seconds above 0"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Args::command().debug_assert();
    }
}
