//! The codecs of a plan, with what they make of the memory.

use multifd::core::{MethodDescriptor, Registry};
use multifd::qpl::Path as QplPath;

use super::args::{Plan, QPL_HARDWARE, QPL_PORTABLE, QPL_SOFTWARE};
use super::codec::{Codec, Work};
use super::measure::{Measured, measure};
use super::parameters::{CodecSpeed, Preset};
use super::sample::Sample;
use super::workload::{PAGE, Workload};
use crate::codecs;
use crate::failure::Failure;
use crate::output::Output;

const NONE: &str = "none";

/// Where there is no page with data, no codec has anything to do.
const ANY_SPEED: CodecSpeed = CodecSpeed { compress: 1e9, decompress: 1e9 };

/// The codecs that the command line asks for, on a sample of `pages` pages in all.
pub(super) fn measured(
    args: &Plan,
    sample: &Sample,
    pages: u64,
    output: &Output,
) -> Result<Vec<Codec>, Failure> {
    let names = names(args, ["none", "zstd", QPL_HARDWARE].into_iter());
    check_overrides(args, &names)?;
    let registry = multifd::registry()?;
    let bar = output.steps("measuring", names.len() as u64);
    let codecs = names.into_iter().map(|name| {
        let (codec, origin) = find(&registry, &name, args.level)?;
        let level = args.level.filter(|_| codec.levels.is_some());
        let Measured { shapes, speed } = measure(&codec, level, sample)?;
        let mut workload = Workload::new(pages, shapes);
        let (zero_share, ratio) = (args.zero_share, asked(&args.ratio, &name));
        if zero_share.is_some() || ratio.is_some() {
            let zero_share = zero_share.unwrap_or_else(|| sample.zero_share());
            let ratio = ratio.or(workload.ratio()).unwrap_or(1.0);
            workload = Workload::even(pages, zero_share, ratio);
        }
        bar.add(1);
        Ok(match speed {
            Some(speed) => with_work(args, name, workload, speed, origin),
            None => {
                let origin = "not measured: no page with data was seen".to_owned();
                with_work(args, name, workload, ANY_SPEED, origin)
            }
        })
    });
    codecs.collect()
}

/// The codecs of a published test, with its figures.
pub(super) fn published(args: &Plan, preset: &Preset, pages: u64) -> Result<Vec<Codec>, Failure> {
    let names = names(args, preset.codecs());
    check_overrides(args, &names)?;
    let zero_share = args.zero_share.unwrap_or(preset.zero_share);
    let codecs = names.into_iter().map(|name| {
        let (ratio, speed) = preset.codec(&name).ok_or_else(|| {
            let known: Vec<_> = preset.codecs().collect();
            let known = known.join(", ");
            Failure::usage(format!("the preset has no figures of {name}, only of {known}"))
        })?;
        let ratio = asked(&args.ratio, &name).unwrap_or(ratio);
        let workload = Workload::even(pages, zero_share, ratio);
        Ok(with_work(args, name, workload, speed, "the preset".to_owned()))
    });
    codecs.collect()
}

/// The codecs asked for, each once.
fn names(args: &Plan, default: impl Iterator<Item = &'static str>) -> Vec<String> {
    if args.compression.is_empty() {
        return default.map(str::to_owned).collect();
    }
    let asked = &args.compression;
    let first = asked.iter().enumerate().filter(|(at, name)| !asked[..*at].contains(name));
    first.map(|(_, name)| name.clone()).collect()
}

/// What is said of a codec must be about one that is planned for.
fn check_overrides(args: &Plan, names: &[String]) -> Result<(), Failure> {
    let lists = [
        ("--ratio", &args.ratio),
        ("--compress-speed", &args.compress_speed),
        ("--decompress-speed", &args.decompress_speed),
    ];
    for (option, list) in lists {
        if let Some((name, _)) = list.iter().find(|(name, _)| !names.contains(name)) {
            let names = names.join(", ");
            return Err(Failure::usage(format!(
                "{option} names '{name}', but the plan is for {names}; add it to --compression"
            )));
        }
    }
    if asked(&args.ratio, NONE).is_some() {
        return Err(Failure::usage("--ratio names none, which leaves pages as they are"));
    }
    Ok(())
}

/// The codec that is run in place of the one called `name`, and what it is, for people.
fn find(
    registry: &Registry,
    name: &str,
    level: Option<i32>,
) -> Result<(MethodDescriptor, String), Failure> {
    let qpl = |path: QplPath| {
        let codec = path.descriptor();
        codec.require().map(|()| codec)
    };
    match name {
        QPL_HARDWARE => match qpl(QplPath::Software) {
            Ok(codec) => Ok((codec, "ratio of libqpl in software".to_owned())),
            Err(_) => {
                // libqpl's fixed Huffman codes take 1.21 times as much (benches/README.md).
                let what =
                    "ratio of what is built in, about 1.2 times a device's; --ratio sets another";
                Ok((QplPath::Portable.descriptor(), what.to_owned()))
            }
        },
        QPL_SOFTWARE => {
            let codec = qpl(QplPath::Software).map_err(|error| {
                Failure::new(format!("{error}; plan for {QPL_PORTABLE}, or install libqpl"))
            })?;
            Ok((codec, "libqpl, measured here".to_owned()))
        }
        NONE => Ok((*registry.by_name(name)?, "pages as they are".to_owned())),
        QPL_PORTABLE => Ok((QplPath::Portable.descriptor(), "measured here".to_owned())),
        name => {
            let level = registry.by_name(name).ok().and_then(|codec| codec.levels).and(level);
            Ok((*codecs::find(registry, name, level)?, "measured here".to_owned()))
        }
    }
}

fn with_work(
    args: &Plan,
    name: String,
    workload: Workload,
    speed: CodecSpeed,
    origin: String,
) -> Codec {
    let speed = CodecSpeed {
        compress: asked(&args.compress_speed, &name).unwrap_or(speed.compress),
        decompress: asked(&args.decompress_speed, &name).unwrap_or(speed.decompress),
    };
    let work = match &name[..] {
        NONE => Work::Nothing,
        QPL_HARDWARE => Work::Devices { fallback: speed },
        _ => Work::Cpu(speed),
    };
    Codec { name, work, workload, origin }
}

fn asked(list: &[(String, f64)], name: &str) -> Option<f64> {
    // The last one counts, as with other options.
    list.iter().rev().find(|(other, _)| other == name).map(|(_, figure)| *figure)
}

/// Pages in `bytes` bytes.
pub(super) fn pages(bytes: u64) -> u64 {
    bytes / PAGE as u64
}
