//! `multifd decode`.

pub(crate) mod recording;
pub(crate) mod watched;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use multifd::core::Registry;
use multifd::core::ram::Ram;
use multifd::{Arrived, Destination};

use crate::arrival;
use crate::cancel::Interrupt;
use crate::failure::Failure;
use crate::options::codec;
use crate::options::device_state::DeviceStateLimit;
use crate::options::store::{NewVm, Store};
use crate::options::zstd::Zstd;
use crate::output::{self, Output};
use crate::place::{PATIENCE, Target};
use recording::Recording;
use watched::Watched;

/// Turn a recorded migration into a VM image or a file.
///
/// A recording is a folder with the bytes of the main channel in main.bin and those of each multifd
/// channel in channel0.bin, channel1.bin and so on. The codec is found from the bytes.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  multifd decode recording --to vm")]
pub(crate) struct Args {
    /// The folder of the recording
    recording: PathBuf,
    #[command(flatten)]
    store: Store,
    #[command(flatten)]
    zstd: Zstd,
}

pub(crate) fn run(args: &Args, output: &Output) -> Result<(), Failure> {
    let interrupt = Interrupt::listen()?;
    let NewVm { to, force, writing } = &args.store.new;
    let target = Target::create(to, *force, false, writing, &interrupt)?;
    let started = Instant::now();
    let limits = (args.store.ram_limit, args.store.device_state_limit.in_memory());
    let registry = args.zstd.in_registry(multifd::registry()?)?;
    let arrived = replay(&args.recording, &registry, limits, &interrupt, output)?;
    let patience = Some(PATIENCE);
    let stored =
        arrival::store(arrived, target, &args.store, patience, started, &interrupt, output)?;
    output::stored(arrival::report(&stored, &args.store, output));
    Ok(())
}

/// The RAM of the VM that was recorded in `folder`, which has at most so much device state.
pub(crate) fn ram(
    folder: &Path,
    registry: &Registry,
    device_state_limit: &DeviceStateLimit,
    output: &Output,
) -> Result<Arc<Ram>, Failure> {
    // Nothing is stored: a signal may simply end the program.
    let interrupt = Interrupt::default();
    let limits = (None, device_state_limit.in_memory());
    let arrived = replay(folder, registry, limits, &interrupt, output)?;
    Ok(arrived.ram)
}

/// Receives what was recorded. The limits of RAM (if `None`, this machine's memory) and device
/// state are in bytes.
fn replay(
    folder: &Path,
    registry: &Registry,
    (ram_limit, device_state_limit): (Option<u64>, usize),
    interrupt: &Interrupt,
    output: &Output,
) -> Result<Arrived, Failure> {
    let recording = Recording::open(folder)?;
    let compression = recording.compression()?;
    tracing::debug!(%compression, channels = recording.channels(), "the recording's own");
    let codec = codec::find(registry, &compression.to_string(), None)?;
    let bar = output.bar("decoding", recording.bytes()?);
    let watch = |file| Watched::new(file, interrupt.clone(), bar.clone());
    let (main, channels) = recording.into_files();
    let channels = channels.into_iter().map(watch).collect();
    let arrived = Destination::builder(registry)
        .compression(codec)
        .device_state_limit(device_state_limit)
        .decode(watch(main), channels, |incoming| arrival::provide(incoming, ram_limit));
    arrived.map_err(|error| interrupt.or(error))
}
