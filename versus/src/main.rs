#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod args;
mod chart;
mod codec;
mod compare;
mod cpu;
mod destination;
mod error;
mod guest;
mod image;
mod machine;
mod measure;
mod network;
mod page;
#[path = "../../multifd-cli/src/palette.rs"]
mod palette;
mod peer;
mod report;
mod route;
mod setting;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;

use args::{Args, Command, Measure};
use error::Error;
use image::Image;
use machine::Machine;
use measure::Bench;
use multifd_interop::qemu::Version;
use report::Report;

fn main() -> ExitCode {
    let args = Args::parse();
    let done = match &args.command {
        Some(Command::Destination(args)) => destination::run(args),
        None => measure(&args.measure),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            _ = writeln!(io::stderr(), "versus-qemu: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(args: &Measure) -> Result<(), Error> {
    let qemu = Version::Newest.program().map_err(|error| Error::Other(error.to_string()))?;
    let machine = match &args.docs {
        Some(_) => Machine::when_idle(&qemu)?,
        None => Machine::here(&qemu)?,
    };
    machine.must_have_memory(args.guest_size)?;
    let image = Image::of(&args.ram, args.guest_size, &qemu, &args.multifd)?;
    let bench = Bench::new(&qemu, image, args)?;
    let report = Report::new(bench.measure_all()?, machine, bench.image.guest, args);
    let text = if args.json {
        let json = serde_json::to_string_pretty(&report);
        json.map_err(|error| Error::Other(error.to_string()))? + "\n"
    } else {
        report.to_string()
    };
    io::stdout().write_all(text.as_bytes()).map_err(Error::io("write to stdout"))?;
    let Some(page) = &args.docs else { return Ok(()) };
    let report = report.steady()?;
    page::update(page, &report)
}
