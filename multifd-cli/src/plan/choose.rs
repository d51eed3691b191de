//! The codecs of a plan, and what each makes of the memory.

use std::sync::Arc;

use multifd::core::{MultiFdMethods, Registry};
use multifd::qpl::{Options, Path, Qpl};
use multifd_plan::{Codec, CodecSpeed, Measured, Preset, Sample, Speed, Work, Workload, measure};

use super::args::{Args, QPL_HARDWARE, QPL_PORTABLE, QPL_SOFTWARE};
use crate::failure::Failure;
use crate::options::codec;
use crate::output::Output;

const NONE: &str = "none";

/// The speed of a codec that has nothing to do, because no page has data.
const ANY_SPEED: CodecSpeed = CodecSpeed::new(Speed::MAX, Speed::MAX);

/// A codec to plan for.
#[derive(Debug)]
pub(super) struct Chosen {
    pub(super) codec: Codec,
    /// Where its figures come from, for people.
    pub(super) origin: String,
}

/// The codecs that the command line names, measured on a sample of memory with `pages` pages.
pub(super) fn measured(
    args: &Args,
    sample: &Sample,
    pages: u64,
    output: &Output,
) -> Result<Vec<Chosen>, Failure> {
    let names = names(args, ["none", "zstd", QPL_HARDWARE].into_iter());
    check_overrides(args, &names)?;
    let registry = multifd::registry()?;
    let bar = output.steps("measuring", names.len() as u64);
    let codecs = names.into_iter().map(|name| {
        let (codec, origin) = find(&registry, &name, args.level)?;
        let level = args.level.filter(|_| codec.descriptor().levels.is_some());
        let measured = measure(&*codec, level, sample)?;
        let workload = measured.workload(pages);
        bar.add(1);
        Ok(match measured {
            Measured { speed: Some(speed), .. } => chosen(args, &name, workload, speed, origin),
            _ => {
                let origin = "not measured: no sampled page has data".to_owned();
                chosen(args, &name, workload, ANY_SPEED, origin)
            }
        })
    });
    codecs.collect()
}

/// The codecs of a published test, with its figures.
pub(super) fn published(args: &Args, preset: &Preset, pages: u64) -> Result<Vec<Chosen>, Failure> {
    let names = names(args, preset.codecs());
    check_overrides(args, &names)?;
    let codecs = names.into_iter().map(|name| {
        let (ratio, speed) = preset.codec(&name).ok_or_else(|| {
            let known: Vec<_> = preset.codecs().collect();
            let known = known.join(", ");
            Failure::usage(format!("the preset has no figures of {name}, only of {known}"))
        })?;
        let workload = Workload::even(pages, preset.zero_share, ratio);
        Ok(chosen(args, &name, workload, speed, "the preset".to_owned()))
    });
    codecs.collect()
}

/// The codecs that the command line names, each once.
fn names(args: &Args, default: impl Iterator<Item = &'static str>) -> Vec<String> {
    if args.compression.is_empty() {
        return default.map(str::to_owned).collect();
    }
    let asked = &args.compression;
    let first = asked.iter().enumerate().filter(|(at, name)| !asked[..*at].contains(name));
    first.map(|(_, name)| name.clone()).collect()
}

/// Fails if an option has a figure of a codec that is not planned for.
fn check_overrides(args: &Args, names: &[String]) -> Result<(), Failure> {
    let ratios = args.ratio.iter().map(|(name, _)| ("--ratio", name));
    let compress = args.compress_speed.iter().map(|(name, _)| ("--compress-speed", name));
    let decompress = args.decompress_speed.iter().map(|(name, _)| ("--decompress-speed", name));
    let mut all = ratios.chain(compress).chain(decompress);
    if let Some((option, name)) = all.find(|(_, name)| !names.contains(name)) {
        let names = names.join(", ");
        return Err(Failure::usage(format!(
            "{option} names '{name}', but the plan is for {names}; add it to --compression"
        )));
    }
    if asked(&args.ratio, NONE).is_some() {
        return Err(Failure::usage("--ratio names none, which leaves pages as they are"));
    }
    Ok(())
}

/// The codec that is measured for `name`, and where its figures come from, for people.
fn find(
    registry: &Registry,
    name: &str,
    level: Option<i32>,
) -> Result<(Arc<dyn MultiFdMethods>, String), Failure> {
    let qpl = |path| -> Arc<dyn MultiFdMethods> { Arc::new(Qpl::new(Options::new(path))) };
    let software = || {
        let codec = qpl(Path::Software);
        codec.require().map(|()| codec)
    };
    match name {
        QPL_HARDWARE => match software() {
            Ok(codec) => Ok((codec, "ratio of libqpl in software".to_owned())),
            Err(_) => {
                // libqpl's fixed Huffman codes take 1.21 times as much (benches/README.md).
                let what = "ratio of the built-in encoder, about 1.2 times a device's; set the \
                            device's with --ratio";
                Ok((qpl(Path::Portable), what.to_owned()))
            }
        },
        QPL_SOFTWARE => {
            let codec = software().map_err(|error| {
                let failure = Failure::from(error);
                Failure::new(format!("{failure}; plan for {QPL_PORTABLE}, or install libqpl"))
            })?;
            Ok((codec, "libqpl, measured here".to_owned()))
        }
        NONE => Ok((Arc::clone(registry.by_name(name)?), "pages as they are".to_owned())),
        QPL_PORTABLE => Ok((qpl(Path::Portable), "measured here".to_owned())),
        name => {
            let known = registry.by_name(name).ok();
            let level = known.and_then(|codec| codec.descriptor().levels).and(level);
            Ok((codec::find(registry, name, level)?, "measured here".to_owned()))
        }
    }
}

/// The codec called `name`, with the command line's figures in place of those given.
fn chosen(
    args: &Args,
    name: &str,
    workload: Workload,
    speed: CodecSpeed,
    origin: String,
) -> Chosen {
    let speed = CodecSpeed::new(
        asked(&args.compress_speed, name).unwrap_or(speed.compress),
        asked(&args.decompress_speed, name).unwrap_or(speed.decompress),
    );
    let work = match name {
        NONE => Work::Nothing,
        QPL_HARDWARE => Work::Devices(speed),
        _ => Work::Cpu(speed),
    };
    let workload = workload.with(args.zero_share, asked(&args.ratio, name));
    Chosen { codec: Codec::new(name, work, workload), origin }
}

/// What an option says of a codec. The last value counts, as with other options.
fn asked<T: Copy>(list: &[(String, T)], name: &str) -> Option<T> {
    list.iter().rev().find(|(other, _)| other == name).map(|(_, figure)| *figure)
}
