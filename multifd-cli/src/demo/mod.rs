//! `multifd demo`.

mod compare;
mod guest;
mod migration;
mod report;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::builder::{PossibleValue, PossibleValuesParser};
use multifd::core::{MultiFdMethods, Registry};

use crate::cancel::Interrupt;
use crate::failure::Failure;
use crate::mapping;
use crate::options::codec::{self, channel_count};
use crate::output::Output;
use crate::qpl::Qpl;
use crate::size;
use guest::Guest;
use migration::Migration;
use report::{CodecReport, Report};

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
pub(crate) struct Args {
    /// A guest's memory, a file of whole 4 KiB pages; it is not changed. Made up if not given
    #[arg(short, long, value_name = "FILE", conflicts_with_all = ["size", "seed"])]
    ram: Option<PathBuf>,
    /// How much memory to make up
    #[arg(long, default_value = "512M", value_parser = size::parse)]
    size: u64,
    /// The seed of made-up memory
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The codecs, separated by commas
    #[arg(short, long, value_name = "LIST", default_value = ALL, value_delimiter = ',',
          value_parser = codecs())]
    compression: Vec<String>,
    /// The level of those codecs that have levels
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    level: Option<i32>,
    /// How many channels
    #[arg(short = 'n', long, value_name = "N", default_value_t = 4, value_parser = channel_count())]
    channels: u8,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    qpl: Qpl,
}

/// Stands for all codecs.
const ALL: &str = "all";

fn codecs() -> PossibleValuesParser {
    codec::names_or(PossibleValue::new(ALL).help("each that is available"))
}

pub(crate) fn run(args: &Args, output: &Output) -> Result<ExitCode, Failure> {
    let registry = args.qpl.registry()?;
    let chosen = choose(&registry, args)?;
    let interrupt = Interrupt::listen()?;
    let mut guest = match &args.ram {
        Some(path) => Guest::of_file(path)?,
        None => Guest::made_up(args.size, args.seed)?,
    };
    let mut report = Report::new(&guest, args.channels, output, args.json)?;
    for Chosen { codec, level } in chosen {
        interrupt.check()?;
        let codec_report = match codec.require() {
            Ok(()) => {
                let channels = args.channels;
                let migration =
                    Migration { registry: &registry, codec: &codec, level, channels, output };
                let result = migration.run(&mut guest, &interrupt);
                interrupt.check()?;
                mapping::check_files()?;
                CodecReport::of(&migration, guest.pages(), result)
            }
            Err(error) => CodecReport::not_available(&*codec, &error),
        };
        report.add(codec_report);
    }
    report.print()
}

/// A codec to run.
struct Chosen {
    codec: Arc<dyn MultiFdMethods>,
    /// `None` for the default.
    level: Option<i32>,
}

/// The codecs to run, each with its level. A codec that is named must be available; with `all`, an
/// unavailable one is only listed.
fn choose(registry: &Registry, args: &Args) -> Result<Vec<Chosen>, Failure> {
    let codecs: Vec<_> = if args.compression.iter().any(|name| name == ALL) {
        registry.iter().cloned().collect()
    } else {
        let names = args.compression.iter();
        names.map(|name| codec::find(registry, name, None)).collect::<Result<_, _>>()?
    };
    if let Some(level) =
        args.level.filter(|_| codecs.iter().all(|codec| codec.descriptor().levels.is_none()))
    {
        return Err(Failure::usage(format!(
            "level {level} is asked for, but none of the codecs has levels; leave --level out"
        )));
    }
    let with_level = |codec: Arc<dyn MultiFdMethods>| {
        let level = args.level.filter(|_| codec.descriptor().levels.is_some());
        codec.descriptor().level(level).map_err(|error| Failure::from(error).into_usage())?;
        Ok(Chosen { codec, level })
    };
    codecs.into_iter().map(with_level).collect()
}
