//! The options of codec qpl.

use std::sync::Arc;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use multifd::core::Registry;
use multifd::qpl::{Level, Numa, Options, Path, Qpl as Codec};

use crate::failure::Failure;
use crate::units;

/// The options of codec qpl.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Options of qpl")]
pub(crate) struct Qpl {
    /// What compresses: auto uses the first of the others that works here
    #[arg(long, value_name = "PATH", default_value = "auto", value_parser = paths())]
    qpl_path: Path,
    /// Which IAAs to use: of the processor's socket or NUMA node, any, or of a node's number
    #[arg(long, value_name = "NUMA", default_value = "socket")]
    qpl_numa: Numa,
    /// How often a page is submitted again while the IAAs are busy, before the CPU takes it
    #[arg(long, value_name = "N", default_value_t = Options::default().submit_retries)]
    qpl_retries: u8,
    /// How long an IAA may take for a page, before the CPU takes all remaining pages
    #[arg(
        long,
        value_name = "TIME",
        default_value = "5s",
        value_parser = units::wait,
        allow_negative_numbers = true
    )]
    qpl_timeout: Duration,
    /// What the path portable does for shorter pages: strong makes them an eighth shorter than fast, in 1.7 times
    /// the time, and balanced is between them
    #[arg(long, value_name = "LEVEL", default_value = "strong", value_parser = levels())]
    qpl_level: Level,
}

impl Qpl {
    /// Every codec of this program, qpl with these options.
    pub(crate) fn registry(&self) -> Result<Registry, Failure> {
        let options = Options::new(self.qpl_path)
            .with_numa(self.qpl_numa)
            .with_submit_retries(self.qpl_retries)
            .with_timeout(self.qpl_timeout)
            .with_level(self.qpl_level);
        Ok(multifd::registry()?.replacing(Arc::new(Codec::new(options)))?)
    }
}

fn levels() -> impl TypedValueParser<Value = Level> {
    let names = PossibleValuesParser::new(Level::ALL.map(Level::name));
    names.try_map(|name| name.parse::<Level>())
}

fn paths() -> impl TypedValueParser<Value = Path> {
    let names = PossibleValuesParser::new(Path::ALL.map(Path::name));
    names.try_map(|name| name.parse::<Path>())
}
