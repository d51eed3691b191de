//! `multifd inspect`.

pub(crate) mod chart;
mod image;
pub(crate) mod json;
mod packets;
mod recording;
pub(crate) mod text;

use std::path::PathBuf;
use std::process::ExitCode;

use crate::failure::Failure;
use crate::folder::{self, Wanted};
use crate::options::device_state::DeviceStateLimit;
use crate::output::Output;
use crate::place::Place;

/// Show what a recorded migration or a stored VM is made of, and what is wrong with it.
///
/// Shows of a recording (see multifd decode) its machine, codec, channels, rounds, RAM blocks and
/// device state, and every violation of the format with its place. Nothing is decompressed: multifd
/// decode does that. Shows of a VM image or a file its RAM blocks with their zero pages and its devices, and
/// checks an image's against their SHA-256; --device-state-limit is for those. The exit status is 1 if anything is wrong; what is
/// only unusual is noted.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  multifd inspect recording
  multifd inspect recording --packets | less
  multifd inspect recording --json-lines > recording.jsonl
  multifd inspect recording --chart recording.svg
  multifd inspect vm
  multifd inspect qemu-file:vm.mapped")]
pub(crate) struct Args {
    /// The folder of a recording or of a VM image, or qemu-file:PATH or libvirt:PATH
    #[arg(value_name = "RECORDING|PLACE", value_parser = Place::parser())]
    place: Place,
    /// Also list all packets
    #[arg(long, conflicts_with_all = ["json", "json_lines"])]
    packets: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    /// Print one JSON object per line: each packet of a recording, then the result
    #[arg(long, conflicts_with = "json")]
    json_lines: bool,
    /// Draw packets by channel and pages by round of a recording, as SVG
    #[arg(long, value_name = "FILE")]
    chart: Option<PathBuf>,
    #[command(flatten)]
    device_state_limit: DeviceStateLimit,
}

pub(crate) fn run(args: &Args, output: &Output) -> Result<ExitCode, Failure> {
    let recording = match &args.place {
        // What a file may be, a recording's reader says.
        Place::Image(folder) if folder.is_file() => Some(folder),
        Place::Image(folder) => {
            folder::expect(folder, Wanted::Either)?;
            Some(folder).filter(|folder| !folder::is_image(folder))
        }
        _ => None,
    };
    let is_good = match recording {
        Some(folder) => recording::run(folder, args, output)?,
        None if args.packets || args.chart.is_some() => {
            return Err(Failure::usage(format!(
                "{} is a stored VM, which has no packets; --packets and --chart are for recordings",
                args.place
            )));
        }
        None => image::run(&args.place, args, output)?,
    };
    Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
