//! Inspecting a recording.

use std::path::Path;

use multifd::inspect::{self, PacketRecord, Report};

use super::{Args, chart, json, packets, text};
use crate::cancel::Interrupt;
use crate::decode::recording::Recording;
use crate::decode::watched::Watched;
use crate::failure::Failure;
use crate::output::{self, Output};

/// Inspects the recording; whether nothing is wrong with it.
pub(super) fn run(folder: &Path, args: &Args, output: &Output) -> Result<bool, Failure> {
    let interrupt = Interrupt::listen()?;
    let report = if args.json {
        let report = pass(folder, output, &interrupt, |_| {})?;
        output::print_json(&json::summary(&report))?;
        report
    } else if args.json_lines {
        let mut lines = output::Lines::default();
        let report = pass(folder, output, &interrupt, |packet| lines.add(&json::packet(packet)))?;
        lines.add(&json::line(&json::summary(&report)));
        lines.finish()?;
        report
    } else {
        let report = pass(folder, output, &interrupt, |_| {})?;
        output::print(&text::summary(&report))?;
        if args.packets {
            list(folder, output, &interrupt)?;
        }
        output::print(&text::findings(&report.findings))?;
        report
    };
    if let Some(path) = &args.chart {
        chart::write(&report, path)?;
    }
    Ok(report.findings.errors() == 0)
}

/// Prints all packets. They are read a second time, because there may be too many to keep.
fn list(folder: &Path, output: &Output, interrupt: &Interrupt) -> Result<(), Failure> {
    let mut lines = output::Lines::default();
    lines.add(&packets::header());
    pass(folder, output, interrupt, |packet| lines.add(&packets::row(packet)))?;
    lines.add("");
    lines.finish()
}

fn pass(
    folder: &Path,
    output: &Output,
    interrupt: &Interrupt,
    each: impl FnMut(&PacketRecord),
) -> Result<Report, Failure> {
    let recording = Recording::open(folder)?;
    let bar = output.bar("inspecting", recording.bytes()?);
    let watch = |file| Watched::new(file, interrupt.clone(), bar.clone());
    let (main, channels) = recording.into_files();
    let report = inspect::recording(watch(main), channels.into_iter().map(watch), each);
    report.map_err(|error| {
        let doing = format!("cannot read {}", folder.display());
        interrupt.or(Failure::io(doing, &error))
    })
}
