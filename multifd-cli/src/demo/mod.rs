//! `multifd demo`.

mod compare;
mod guest;
mod migration;
mod report;

use std::process::ExitCode;

use multifd::core::{MethodDescriptor, Registry};

use crate::args::{self, ALL};
use crate::cancel::Interrupt;
use crate::codecs;
use crate::failure::Failure;
use crate::output::Output;
use guest::Guest;
use migration::Migration;
use report::{CodecReport, Report};

pub(crate) fn run(args: &args::Demo, output: &Output) -> Result<ExitCode, Failure> {
    let registry = args.qpl.registry()?;
    let chosen = choose(&registry, args)?;
    let interrupt = Interrupt::listen()?;
    let mut guest = match &args.ram {
        Some(path) => Guest::of_file(path)?,
        None => Guest::made_up(args.size, args.seed)?,
    };
    let mut report = Report::new(&guest, args.channels, output, args.json)?;
    for (codec, level) in chosen {
        interrupt.check()?;
        let codec_report = match codec.require() {
            Ok(()) => {
                let migration = Migration { registry: &registry, codec, level, args, output };
                let result = migration.run(&mut guest, &interrupt);
                interrupt.check()?;
                CodecReport::of(&migration, guest.pages(), result)
            }
            Err(error) => CodecReport::not_available(codec, &error),
        };
        report.add(codec_report);
    }
    report.print()
}

/// The codecs to run, each with its level. One that was named must be available; with `all`, one
/// that is not is only listed.
fn choose<'a>(
    registry: &'a Registry,
    args: &args::Demo,
) -> Result<Vec<(&'a MethodDescriptor, Option<i32>)>, Failure> {
    let codecs: Vec<_> = if args.compression.iter().any(|name| name == ALL) {
        registry.iter().collect()
    } else {
        let names = args.compression.iter();
        names.map(|name| codecs::find(registry, name, None)).collect::<Result<_, _>>()?
    };
    if let Some(level) = args.level.filter(|_| codecs.iter().all(|codec| codec.levels.is_none())) {
        return Err(Failure::usage(format!("level {level} is asked for, but no codec has levels")));
    }
    let with_level = |codec: &'a MethodDescriptor| {
        let level = args.level.filter(|_| codec.levels.is_some());
        codec.level(level).map_err(|error| Failure::usage(error.to_string()))?;
        Ok((codec, level))
    };
    codecs.into_iter().map(with_level).collect()
}
