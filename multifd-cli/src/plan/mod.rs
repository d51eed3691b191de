//! `multifd plan`. `docs/planning.md` says what is simulated and how far off it is.

mod args;
mod bottleneck;
mod choose;
mod codec;
mod measure;
mod migration;
mod parameters;
mod report;
mod sample;
mod simulation;
mod units;
mod workload;

use std::path::Path;

use multifd::core::PageSize;
use multifd::core::ram::{Ram, RamBlock};
use multifd::core::wire::BlockName;

use crate::decode;
use crate::failure::Failure;
use crate::image::Image;
use crate::mapping::{self, Access};
use crate::output::Output;
use crate::size::Bytes;
pub(crate) use args::Plan;
use codec::Codec;
use migration::Live;
use report::{Memory, Report, Row};
use sample::Sample;

/// How much memory is made up where nothing else is asked for.
const MADE_UP: u64 = 1 << 30;

/// The most memory to plan for. At the slowest speeds, its times still fit into nanoseconds.
const MOST: u64 = 16 << 40;

pub(crate) fn run(args: &Plan, output: &Output) -> Result<(), Failure> {
    let parameters = args.parameters();
    let (memory, codecs) = look(args, output)?;
    let live = args
        .dirty_rate
        .map(|dirty_rate| Live { dirty_rate, downtime_limit_ns: args.downtime_limit });
    let plans = codecs.len() * args.channels.len();
    let bar = output.bar("simulating", memory.bytes * plans as u64);
    let mut rows = Vec::new();
    for codec in &codecs {
        for &channels in &args.channels {
            let mut placed = |pages: u64| bar.add(pages * PageSize::Kib4.bytes() as u64);
            let outcome = migration::migrate(&parameters, codec, channels, live, &mut placed);
            rows.push(Row::new(&parameters, codec, channels, &outcome));
        }
    }
    drop(bar);
    Report { memory, parameters, rows }.print(args.json, &codecs)
}

/// What there is to be moved, and what each codec makes of it.
fn look(args: &Plan, output: &Output) -> Result<(Memory, Vec<Codec>), Failure> {
    if let Some(preset) = args.preset.map(args::PresetName::preset) {
        let bytes = planned_bytes(args, preset.bytes)?;
        let codecs = choose::published(args, preset, choose::pages(bytes))?;
        let memory = Memory::new("the preset's".to_owned(), bytes, None, &codecs);
        return Ok((memory, codecs));
    }
    let (origin, sample) = sample(args, output)?;
    let bytes = planned_bytes(args, sample.bytes)?;
    let codecs = choose::measured(args, &sample, choose::pages(bytes), output)?;
    Ok((Memory::new(origin, bytes, Some(&sample), &codecs), codecs))
}

fn planned_bytes(args: &Plan, own: u64) -> Result<u64, Failure> {
    let bytes = args.size.unwrap_or(own);
    mapping::check_pages(Path::new("--size"), bytes)?;
    if bytes > MOST {
        let (bytes, most) = (Bytes(bytes), Bytes(MOST));
        return Err(Failure::usage(format!("cannot plan for {bytes}: {most} is the most")));
    }
    Ok(bytes)
}

/// Packets of the memory that the command line names, and what that is, for people.
fn sample(args: &Plan, output: &Output) -> Result<(String, Sample), Failure> {
    let of = |origin: &Path, ram: &Ram| {
        Ok((origin.display().to_string(), Sample::of_ram(ram, args.sample, args.seed)?))
    };
    if let Some(file) = &args.ram {
        let (opened, bytes) = mapping::open(file)?;
        mapping::check_pages(file, bytes)?;
        let memory = mapping::of_file(file, opened, bytes, Access::Read)?;
        let block = RamBlock::new(BlockName::new("pc.ram")?, memory);
        return of(file, &Ram::new(PageSize::Kib4, [block])?);
    }
    if let Some(folder) = &args.from {
        return of(folder, &Image::open(folder)?.ram);
    }
    if let Some(folder) = &args.recording {
        return of(folder, decode::ram(folder, output)?.as_ref());
    }
    let origin = format!("made up from seed {}", args.seed);
    Ok((origin, Sample::made_up(args.size.unwrap_or(MADE_UP), args.sample, args.seed)?))
}
