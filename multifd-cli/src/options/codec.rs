//! The codec and the number of channels.

use std::sync::Arc;

use clap::builder::{PossibleValue, PossibleValuesParser, RangedI64ValueParser};
use multifd::core::{Availability, MethodDescriptor, MultiFdMethods, Registry};

use crate::failure::Failure;

/// What both sides of a migration must be given alike.
#[derive(Debug, clap::Args)]
pub(crate) struct Agreed {
    /// The codec, the same on both sides
    #[arg(short, long, value_name = "CODEC", default_value = "none", value_parser = names())]
    pub(crate) compression: String,
    /// How many channels, the same on both sides
    #[arg(short = 'n', long, value_name = "N", default_value_t = 2, value_parser = channel_count())]
    pub(crate) channels: u8,
}

/// Takes the names of the registered codecs.
pub(crate) fn names() -> PossibleValuesParser {
    PossibleValuesParser::new(registered())
}

/// As [`names`], or the word `other` in place of a name.
pub(crate) fn names_or(other: PossibleValue) -> PossibleValuesParser {
    PossibleValuesParser::new(registered().chain([other]))
}

fn registered() -> impl Iterator<Item = PossibleValue> {
    let registry = multifd::registry().ok();
    let codecs: Vec<_> = registry.iter().flat_map(Registry::iter).cloned().collect();
    codecs.into_iter().map(|codec| {
        let MethodDescriptor { name, summary, .. } = codec.descriptor();
        PossibleValue::new(name).help(summary)
    })
}

/// Takes a number of channels.
pub(crate) fn channel_count() -> RangedI64ValueParser<u8> {
    clap::value_parser!(u8).range(1..)
}

/// The codec called `name`. It must be available here and have the level.
pub(crate) fn find(
    registry: &Registry,
    name: &str,
    level: Option<i32>,
) -> Result<Arc<dyn MultiFdMethods>, Failure> {
    let codec = registry.by_name(name).map_err(|_| {
        let names: Vec<_> = registry.iter().map(|codec| codec.name()).collect();
        let names = names.join(", ");
        Failure::new(format!(
            "this program has no codec '{name}', only {names}; use a program that has it"
        ))
    })?;
    codec.descriptor().level(level).map_err(|error| Failure::from(error).into_usage())?;
    codec.require().map_err(|error| {
        let failure = Failure::from(error);
        Failure::new(format!("{failure}; see multifd codecs"))
    })?;
    Ok(Arc::clone(codec))
}

/// The library or device that the codec uses here, or why it cannot work here.
pub(crate) fn probe(codec: &dyn MultiFdMethods) -> Result<String, String> {
    match codec.probe() {
        Availability::Available(by) => Ok(by),
        Availability::Unavailable(reason) => Err(reason),
        other => Err(format!("{other:?}")),
    }
}
