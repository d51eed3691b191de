//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::codec::Codec;
use crate::route::Route;

/// Migrates a guest's RAM between QEMU and multifd, in all four ways in turn, and measures the time,
/// the CPU time of both processes and the bytes on the wire.
#[derive(Debug, Parser)]
#[command(name = "versus-qemu", version, args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) measure: Measure,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Take a migration in, as a process that is measured
    #[command(hide = true)]
    Destination(Destination),
}

/// What is measured.
#[derive(Debug, clap::Args)]
pub(crate) struct Measure {
    /// The guest's RAM, a file of whole MiB
    #[arg(long, value_name = "FILE", default_value = "target/guest-ram/guest.ram")]
    pub(crate) ram: PathBuf,
    /// The program multifd
    #[arg(long, value_name = "PROGRAM", default_value = "target/release/multifd")]
    pub(crate) multifd: PathBuf,
    /// The codecs, separated by commas
    #[arg(long, value_name = "LIST", value_delimiter = ',',
          default_values_t = [Codec::None, Codec::Zlib, Codec::Zstd, Codec::QplPortable])]
    pub(crate) compression: Vec<Codec>,
    /// From whom to whom, separated by commas
    #[arg(
        long,
        value_name = "LIST",
        value_delimiter = ',',
        default_value = "qemu-to-qemu,qemu-to-multifd,multifd-to-qemu,multifd-to-multifd,stored"
    )]
    pub(crate) routes: Vec<Route>,
    /// The level of those codecs that have levels
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) level: i32,
    /// How many channels
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..))]
    pub(crate) channels: u8,
    /// How many times each way, after one that does not count
    #[arg(long, value_name = "N", default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) repetitions: u32,
    /// A command that runs multifd for codec qpl-software, such as a loader with libqpl's C library
    #[arg(long, value_name = "COMMAND", default_value = "")]
    pub(crate) runner: String,
    /// Print every run as JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Write the result into this page, and a chart beside it: where the load was 0.3 at most, and the middle half of each
    /// row's times is within 15 % of the median
    #[arg(long, value_name = "PAGE")]
    pub(crate) docs: Option<PathBuf>,
}

/// What a destination is told.
#[derive(Debug, clap::Args)]
pub(crate) struct Destination {
    #[arg(long)]
    pub(crate) compression: Codec,
    #[arg(long)]
    pub(crate) channels: u8,
    /// What the RAM must be in the end
    #[arg(long)]
    pub(crate) expect: PathBuf,
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
