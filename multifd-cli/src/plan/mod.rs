//! `multifd plan`: arguments, the memory that they name, and the report. Crate `multifd-plan` has the
//! model; `docs/planning.md` describes it.

mod args;
mod choose;
mod report;

use std::path::Path;

use multifd::core::PageSize;
use multifd::core::ram::{Ram, RamBlock};
use multifd::core::wire::BlockName;
use multifd_conformance::made_up;
use multifd_plan::{MAX_BYTES, Sample, simulate};

use crate::decode;
use crate::failure::Failure;
use crate::file;
use crate::image::Image;
use crate::mapping::{self, Access};
use crate::output::Output;
use crate::page::PAGE;
use crate::size::Bytes;
pub(crate) use args::Args;
use choose::Chosen;
use report::{Memory, Report, Row};

/// How much memory is made up if no size is given.
const MADE_UP: u64 = 1 << 30;

pub(crate) fn run(args: &Args, output: &Output) -> Result<(), Failure> {
    let parameters = args.parameters();
    let (memory, codecs) = look(args, output)?;
    mapping::check_files()?;
    let plans = codecs.len() * args.channels.len();
    let bar = output.bar("simulating", memory.bytes * plans as u64);
    let mut rows = Vec::new();
    for Chosen { codec, .. } in &codecs {
        for &channels in &args.channels {
            let mut placed = |pages: u64| bar.add(pages * PAGE as u64);
            let outcome = simulate(&parameters, codec, channels, args.live(), &mut placed);
            rows.push(Row::new(codec, channels, &outcome));
        }
    }
    drop(bar);
    Report { memory, parameters, rows }.print(args.json)
}

/// The memory to plan for, and what each codec makes of it.
fn look(args: &Args, output: &Output) -> Result<(Memory, Vec<Chosen>), Failure> {
    if let Some(preset) = args.preset.map(args::PresetName::preset) {
        let bytes = planned_bytes(args, preset.bytes)?;
        let codecs = choose::published(args, preset, bytes / PAGE as u64)?;
        let memory = Memory::new("the preset's".to_owned(), bytes, None, &codecs);
        return Ok((memory, codecs));
    }
    let (origin, sample) = sample(args, output)?;
    let bytes = planned_bytes(args, sample.memory_bytes())?;
    let codecs = choose::measured(args, &sample, bytes / PAGE as u64, output)?;
    Ok((Memory::new(origin, bytes, Some(&sample), &codecs), codecs))
}

fn planned_bytes(args: &Args, own: u64) -> Result<u64, Failure> {
    let bytes = args.size.unwrap_or(own);
    mapping::check_pages(Path::new("--size"), bytes)?;
    if bytes > MAX_BYTES {
        let (bytes, most) = (Bytes(bytes), Bytes(MAX_BYTES));
        return Err(Failure::usage(format!(
            "cannot plan for {bytes}: the most is {most}; use a smaller --size"
        )));
    }
    Ok(bytes)
}

/// Packets of the memory that the command line names, and where they come from, for people.
fn sample(args: &Args, output: &Output) -> Result<(String, Sample), Failure> {
    let of = |origin: &Path, ram: &Ram| {
        Ok((origin.display().to_string(), Sample::of_ram(ram, args.sample, args.seed)?))
    };
    if let Some(path) = &args.ram {
        let (file, bytes) = file::open(path)?;
        mapping::check_pages(path, bytes)?;
        let memory = mapping::of_file(path, file, 0, bytes, Access::Read)?;
        let block = RamBlock::new(BlockName::new("pc.ram")?, memory);
        return of(path, &Ram::new(PageSize::Kib4, [block])?);
    }
    if let Some(folder) = &args.from {
        return of(folder, &Image::open(folder, &args.device_state_limit)?.ram);
    }
    if let Some(folder) = &args.recording {
        let registry = args.zstd.in_registry(multifd::registry()?)?;
        let ram = decode::ram(folder, &registry, &args.device_state_limit, output)?;
        return of(folder, ram.as_ref());
    }
    let bytes = args.size.unwrap_or(MADE_UP);
    mapping::check_pages(Path::new("--size"), bytes)?;
    let origin = format!("made up from seed {}", args.seed);
    let fill = |offset, pages: &mut [u8]| {
        for (page, number) in pages.chunks_mut(PAGE).zip(offset / PAGE as u64..) {
            made_up::fill(page, args.seed, number);
        }
    };
    Ok((origin, Sample::of_pages(bytes, args.sample, args.seed, fill)?))
}
