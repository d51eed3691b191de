//! `multifd decode`.

pub(crate) mod recording;
pub(crate) mod watched;

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use multifd::core::io::Blocking;
use multifd::core::ram::Ram;
use multifd::{Arrived, Destination};

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
    let interrupt = Interrupt::listen()?;
    let place = Place::new(&args.store.to, args.store.force)?;
    let started = Instant::now();
    let limits = (args.store.ram_limit, args.store.device_state_limit());
    let arrived = replay(&args.recording, limits, &interrupt, output)?;
    recv::store(arrived, place, &args.store, started, &interrupt, output)
}

/// The RAM that the recording in `folder` sends.
pub(crate) fn ram(folder: &Path, output: &Output) -> Result<Arc<Ram>, Failure> {
    /// As much as `multifd decode` takes if nothing is said.
    const DEVICE_STATE_LIMIT: usize = 256 << 20;
    // Nothing is stored: a signal may end the program as it is.
    let interrupt = Interrupt::default();
    let arrived = replay(folder, (None, DEVICE_STATE_LIMIT), &interrupt, output)?;
    Ok(arrived.ram)
}

/// Receives what was recorded: at most so much RAM (as much as fits if `None`) and device state, in
/// bytes.
fn replay(
    folder: &Path,
    (ram_limit, device_state_limit): (Option<u64>, usize),
    interrupt: &Interrupt,
    output: &Output,
) -> Result<Arrived, Failure> {
    let registry = multifd::registry()?;
    let recording = Recording::open(folder)?;
    let compression = recording.compression()?;
    tracing::debug!(%compression, channels = recording.channels(), "the recording's own");
    let codec = codecs::find(&registry, &compression.to_string(), None)?;
    let bar = output.bar("decoding", recording.bytes()?);
    let watch = |file| Watched::new(file, interrupt.clone(), bar.clone());
    let (main, channels) = recording.into_files();
    let channels = channels.into_iter().map(|file| Blocking::new(watch(file))).collect();
    let arrived = Destination::builder(&registry)
        .compression(codec.compression())
        .device_state_limit(device_state_limit)
        .decode(watch(main), channels, |incoming| recv::provide(incoming, ram_limit));
    arrived.map_err(|error| interrupt.or(error))
}
