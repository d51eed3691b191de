//! `multifd decode`.

pub(crate) mod recording;
pub(crate) mod watched;

use std::time::Instant;

use multifd::Destination;
use multifd::core::io::Blocking;

use crate::args;
use crate::cancel::Interrupt;
use crate::codecs;
use crate::failure::Failure;
use crate::image::Place;
use crate::output::Output;
use crate::recv;
use recording::Recording;
use watched::Watched;

pub(crate) fn run(args: &args::Decode, output: &Output) -> Result<(), Failure> {
    let registry = multifd::registry()?;
    let interrupt = Interrupt::listen()?;
    let place = Place::new(&args.store.to, args.store.force)?;
    let recording = Recording::open(&args.recording)?;
    let compression = recording.compression()?;
    tracing::debug!(%compression, channels = recording.channels(), "the recording's own");
    let codec = codecs::find(&registry, &compression.to_string(), None)?;
    let bar = output.bar("decoding", recording.bytes()?);
    let started = Instant::now();
    let watch = |file| Watched::new(file, interrupt.clone(), bar.clone());
    let (main, channels) = recording.into_files();
    let channels = channels.into_iter().map(|file| Blocking::new(watch(file))).collect();
    let arrived = Destination::builder(&registry)
        .compression(codec.compression())
        .device_state_limit(args.store.device_state_limit())
        .decode(watch(main), channels, |incoming| recv::provide(incoming, args.store.ram_limit));
    drop(bar);
    let arrived = arrived.map_err(|error| interrupt.or(error))?;
    recv::store(arrived, place, &args.store, started, &interrupt, output)
}
