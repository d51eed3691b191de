//! Where a relay's bytes can be looked at.

use std::fmt::Debug;
use std::io;
use std::sync::Arc;

use multifd_core::async_trait;
use multifd_core::io::{ChannelReader, ChannelWriter, Part, Socket};
use multifd_core::ram::GuestPages;

use crate::error::Side;

/// A byte stream of a relay: one direction of one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Wire {
    /// The main channel, from source to destination: the same bytes on both sides.
    Main,
    /// The return path, from destination to source: the same bytes on both sides.
    Answers,
    /// The multifd channel with this number.
    Channel(u8),
}

/// Sees every byte that a relay has read or written, in the order of each wire: to record it, to
/// look into it.
///
/// It is called in the thread that moves the bytes, so what takes it long holds up the migration.
/// It cannot fail the migration.
pub trait Tap: Debug + Send + Sync {
    /// `bytes` have come from the side [`Side::From`], or gone to [`Side::To`]; answers the
    /// other way round.
    fn pass(&self, side: Side, wire: Wire, bytes: &[u8]);
}

/// The taps of one wire.
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
        if let Some(tap) = &self.tap {
            tap.pass(self.side, self.wire, bytes);
        }
    }
}

/// A channel's socket with its tap.
#[derive(Debug)]
pub(super) struct Tapped<S> {
    socket: Socket<S>,
    taps: Taps,
    page: Vec<u8>,
}

impl<S> Tapped<S> {
    pub(super) fn new(socket: Socket<S>, taps: Taps) -> Self {
        Self { socket, taps, page: Vec::new() }
    }

    pub(super) fn into_inner(self) -> Socket<S> {
        self.socket
    }
}

#[async_trait]
impl<S: Send> ChannelReader for Tapped<S>
where
    Socket<S>: ChannelReader,
{
    async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.socket.read(buffer).await?;
        self.taps.pass(&buffer[..count]);
        Ok(count)
    }

    async fn read_exact(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        if self.taps.tap.is_none() {
            return self.socket.read_exact(buffer).await;
        }
        // Piece by piece, so that the tap also sees what comes before a stream breaks off.
        let mut filled = 0;
        while filled < buffer.len() {
            match self.read(&mut buffer[filled..]).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => filled += count,
            }
        }
        Ok(())
    }

    async fn read_pages(&mut self, pages: GuestPages<'_>) -> io::Result<()> {
        if self.taps.tap.is_none() {
            return self.socket.read_pages(pages).await;
        }
        let mut page = std::mem::take(&mut self.page);
        page.resize(pages.page_size().bytes(), 0);
        for index in 0..pages.len() {
            self.read_exact(&mut page).await?;
            pages.write(index, &page);
        }
        self.page = page;
        Ok(())
    }
}

#[async_trait]
impl<S: Send> ChannelWriter for Tapped<S>
where
    Socket<S>: ChannelWriter,
{
    async fn write_parts(&mut self, parts: &[Part<'_>]) -> io::Result<()> {
        self.socket.write_parts(parts).await?;
        if self.taps.tap.is_none() {
            return Ok(());
        }
        for part in parts {
            match part {
                Part::Bytes(bytes) => self.taps.pass(bytes),
                // A relay's pages are its own: they are still what was written.
                Part::Guest(pages) => {
                    self.page.resize(pages.page_size().bytes(), 0);
                    for slice in pages.slices() {
                        slice.copy_to(&mut self.page[..]);
                        self.taps.pass(&self.page);
                    }
                }
            }
        }
        Ok(())
    }
}
