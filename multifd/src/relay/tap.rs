//! Where a relay's bytes can be looked at.

use std::fmt::Debug;
use std::io;
use std::sync::Arc;

use multifd_core::channel::Parts;
use multifd_core::ram::GuestSlices;

use crate::driver::{Receive, Transmit};
use crate::error::Side;

/// A byte stream of a relay: one direction of one connection.
#[allow(clippy::exhaustive_enums, reason = "a migration has these")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Wire {
    /// The main channel, from source to destination: the same bytes on both sides.
    Main,
    /// The return path, from destination to source: the same bytes on both sides.
    ReturnPath,
    /// The multifd channel with this number.
    Channel(u8),
}

/// Sees every byte that a relay has read or written, in the order of each wire: to record it, to
/// look into it.
///
/// It is called in the thread that moves the bytes, so what takes it long holds up the migration.
/// It cannot report an error, but a panic in it fails the migration.
pub trait Tap: Debug + Send + Sync {
    /// Called with the bytes, at least one, that the relay has just read from or written to `side`.
    ///
    /// The return path's are read from [`Side::To`] and written to [`Side::From`]; all others are
    /// read from [`Side::From`] and written to [`Side::To`].
    fn pass(&self, side: Side, wire: Wire, bytes: &[u8]);
}

/// The taps of one wire on one side.
#[derive(Clone, Debug)]
pub(super) struct Taps {
    tap: Option<Arc<dyn Tap>>,
    side: Side,
    wire: Wire,
}

impl Taps {
    pub(super) fn new(tap: Option<&Arc<dyn Tap>>, side: Side, wire: Wire) -> Self {
        Self { tap: tap.cloned(), side, wire }
    }

    pub(super) fn pass(&self, bytes: &[u8]) {
        match &self.tap {
            Some(tap) if !bytes.is_empty() => tap.pass(self.side, self.wire, bytes),
            _ => {}
        }
    }
}

/// A channel's connection with its tap.
#[derive(Debug)]
pub(super) struct Tapped<S> {
    stream: S,
    taps: Taps,
    copy: Vec<u8>,
}

impl<S> Tapped<S> {
    pub(super) fn new(stream: S, taps: Taps) -> Self {
        Self { stream, taps, copy: Vec::new() }
    }
}

impl<S: Receive> Receive for Tapped<S> {
    async fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let count = self.stream.read(room).await?;
        self.taps.pass(&room[..count]);
        Ok(count)
    }

    async fn read_guest(&mut self, room: GuestSlices<'_>) -> io::Result<usize> {
        let count = self.stream.read_guest(room).await?;
        if self.taps.tap.is_some() {
            // A relay's pages are its own: they are still what was read.
            self.copy.resize(count, 0);
            room.copy_to(&mut self.copy);
            self.taps.pass(&self.copy);
        }
        Ok(count)
    }
}

impl<S: Transmit> Transmit for Tapped<S> {
    async fn write(&mut self, parts: Parts<'_>) -> io::Result<usize> {
        let count = self.stream.write(parts.clone()).await?;
        if self.taps.tap.is_some() {
            self.copy.resize(count, 0);
            let mut copied = 0;
            for part in parts {
                copied += part.copy_to(&mut self.copy[copied..]);
                if copied == count {
                    break;
                }
            }
            self.taps.pass(&self.copy);
        }
        Ok(count)
    }

    async fn flush(&mut self) -> io::Result<()> {
        self.stream.flush().await
    }

    async fn settle(&mut self) -> io::Result<()> {
        self.stream.settle().await
    }
}
