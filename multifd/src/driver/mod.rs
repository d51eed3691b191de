//! Channels over connections: what moves the bytes of core's machines.
//!
//! ```text
//! SendMachine ── parts ──→ SendChannel ── Transmit ──→ connection ── Receive ──→ RecvChannel ──→ RecvMachine
//! ```
//!
//! The library brings no runtime. The loops are async, since a codec may await an accelerator; a
//! blocking stream, [`Socket`] or [`Blocking`], is always ready, so that any executor drives a
//! channel on a thread of its own. With the feature `tokio`, `Tokio` adapts that runtime's streams.
//!
//! Everything here is cancel-safe: a future may be dropped at any of its awaits, and the same call
//! made again goes on where it was.

mod blocking;
mod main_channel;
#[allow(unsafe_code, reason = "the kernel reads and writes guest memory, which is never a slice")]
mod socket;
#[cfg(feature = "tokio")]
mod tokio;
#[allow(unsafe_code, reason = "the kernel reads guest memory, and fills what it says of it")]
mod zero_copy;

use std::io;

use multifd_core::Error;
use multifd_core::channel::{
    Opened, Opening, Parts, Received, RecvMachine, RecvNext, SendMachine, SendNext, Target,
};
use multifd_core::ram::GuestSlices;
use multifd_core::wire::RamPacket;

pub use self::blocking::Blocking;
pub(crate) use self::blocking::ended;
pub use self::main_channel::{MainChannelError, MainReader, MainWriter, ReturnReader};
pub use self::socket::Socket;
#[cfg(feature = "tokio")]
pub use self::tokio::Tokio;
pub(crate) use self::zero_copy::{ZeroCopy, ZeroCopyCounters};

/// The writing end of a connection.
///
/// A future that is dropped before it is ready must not have written anything.
pub trait Transmit: Send {
    /// Writes the first bytes of `parts`, at least one, and returns how many.
    fn write(&mut self, parts: Parts<'_>) -> impl Future<Output = io::Result<usize>> + Send;

    /// Holds nothing back of what has been written.
    fn flush(&mut self) -> impl Future<Output = io::Result<()>> + Send {
        std::future::ready(Ok(()))
    }

    /// Waits until nothing that has been written is read from guest memory any more. At once where it is
    /// copied.
    fn settle(&mut self) -> impl Future<Output = io::Result<()>> + Send {
        std::future::ready(Ok(()))
    }
}

/// The reading end of a connection.
///
/// A future that is dropped before it is ready must not have taken anything from the connection.
pub trait Receive: Send {
    /// Reads bytes into `room`, at least one, and returns how many; 0 at the end.
    fn read(&mut self, room: &mut [u8]) -> impl Future<Output = io::Result<usize>> + Send;

    /// As [`read`](Self::read), into guest memory.
    fn read_guest(
        &mut self,
        room: GuestSlices<'_>,
    ) -> impl Future<Output = io::Result<usize>> + Send;
}

/// A sending channel over a connection.
#[allow(missing_debug_implementations, reason = "a method need not be Debug")]
pub struct SendChannel<W> {
    machine: SendMachine,
    stream: W,
    unflushed: bool,
}

impl<W: Transmit> SendChannel<W> {
    /// The channel of `machine` over `stream`.
    pub fn new(machine: SendMachine, stream: W) -> Self {
        Self { machine, stream, unflushed: false }
    }

    /// The machine, to be given work.
    pub fn machine(&mut self) -> &mut SendMachine {
        &mut self.machine
    }

    /// Sends what the machine has to send. It is idle then.
    ///
    /// # Errors
    /// Where the codec or the connection fails, with the channel and the packet.
    pub async fn send(&mut self) -> Result<(), Error> {
        let Self { machine, stream, unflushed } = self;
        loop {
            match machine.next()? {
                SendNext::Encode => machine.encode().await?,
                SendNext::Write(parts) => {
                    let written = stream.write(parts).await;
                    let count = written.map_err(|error| machine.locate(Error::writing(error)))?;
                    machine.sent(count);
                    *unflushed = true;
                }
                SendNext::Idle => break,
            }
        }
        if *unflushed {
            let flushed = stream.flush().await;
            flushed.map_err(|error| machine.locate(Error::writing(error)))?;
            *unflushed = false;
        }
        Ok(())
    }

    /// Waits until guest memory is not read any more of what has been sent.
    ///
    /// # Errors
    /// Where the connection fails, with the channel and the packet.
    pub async fn settle(&mut self) -> Result<(), Error> {
        let settled = self.stream.settle().await;
        settled.map_err(|error| self.machine.locate(Error::writing(error)))
    }

    /// Ends the channel. The stream is handed back, to be closed.
    ///
    /// # Errors
    /// Where the codec fails.
    pub async fn finish(self) -> Result<W, Error> {
        self.machine.finish().await?;
        Ok(self.stream)
    }
}

/// A receiving channel over a connection, from behind its initial packet.
#[allow(missing_debug_implementations, reason = "a method need not be Debug")]
pub struct RecvChannel<R> {
    machine: RecvMachine,
    stream: R,
}

impl<R: Receive> RecvChannel<R> {
    /// The channel of `machine` over `stream`.
    pub fn new(machine: RecvMachine, stream: R) -> Self {
        Self { machine, stream }
    }

    /// The machine, to take a buffer back from.
    pub fn machine(&mut self) -> &mut RecvMachine {
        &mut self.machine
    }

    /// Receives the next packet. `admit` is asked for each before memory is written, and says where
    /// its pages go.
    ///
    /// # Errors
    /// What the peer must not send, and where the codec or the connection fails, with the channel
    /// and the packet; and what `admit` says. The channel can only be dropped then.
    pub async fn next<E: From<Error>>(
        &mut self,
        mut admit: impl FnMut(&RamPacket<'_>) -> Result<Target, E>,
    ) -> Result<Received, E> {
        let Self { machine, stream } = self;
        loop {
            match machine.next()? {
                RecvNext::Read(room) => {
                    let read = stream.read(room).await;
                    let count = read.map_err(|error| machine.locate(Error::reading(error)))?;
                    machine.filled(count)?;
                }
                RecvNext::ReadGuest(room) => {
                    let read = stream.read_guest(room).await;
                    let count = read.map_err(|error| machine.locate(Error::reading(error)))?;
                    machine.filled(count)?;
                }
                RecvNext::Admit(packet) => {
                    let target = admit(&packet)?;
                    machine.place(target)?;
                }
                RecvNext::Decode => machine.decode().await?,
                RecvNext::Received(received) => return Ok(received),
            }
        }
    }

    /// Ends the channel. The stream is handed back.
    ///
    /// # Errors
    /// Where the codec fails.
    pub async fn finish(self) -> Result<R, Error> {
        self.machine.finish().await?;
        Ok(self.stream)
    }
}

/// Reads what a new connection says first. `opening` keeps what has come of it.
///
/// # Errors
/// A connection that is none of a migration's, and one that fails.
pub async fn open<R: Receive>(stream: &mut R, opening: &mut Opening) -> Result<Opened, Error> {
    loop {
        let count = stream.read(opening.want()).await.map_err(Error::reading)?;
        if let Some(opened) = opening.filled(count)? {
            return Ok(opened);
        }
    }
}
