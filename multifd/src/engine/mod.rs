//! What source, destination and relay have in common: rooms that each hold one thing.
//!
//! ```text
//! session      the one end of a migration: first error, waits, threads, connections
//! watch        time limits: what moves, who is cut off                 (decision pure)
//! cancel       tokens that cancel migrations
//! threads      what the program wants of threads
//! cpu_time     what they take
//! accept       connections come, and are found out to be the main channel or a multifd channel
//! admission    what is asked of them before
//! greeting     what a main channel says before it counts as one                (pure)
//! connections  who is there                                                    (pure)
//! introduced   which migration a main channel has proven to be of              (pure)
//! refusal      why a connection is not taken in
//! busy         what a second source is told
//! barrier      how far the channels and the main channel are                   (pure)
//! numbers      whether every packet has come                                   (pure)
//! queue        what the sending channels have to do                            (pure)
//! return_path  what the destination has said                                   (pure)
//! hearing      listening to it
//! outgoing     where a migration goes: an address, or connections
//! pace         how fast bytes may go out                                       (pure)
//! channels     a thread each: one loop that sends, one that receives
//! jitter       delays between threads, for tests
//! ```

pub(crate) mod accept;
pub(crate) mod admission;
pub(crate) mod barrier;
pub(crate) mod busy;
pub(crate) mod cancel;
pub(crate) mod channels;
pub(crate) mod connections;
pub(crate) mod cpu_time;
mod greeting;
pub(crate) mod hearing;
mod introduced;
#[cfg(debug_assertions)]
mod jitter;
mod numbers;
pub(crate) mod outgoing;
pub(crate) mod pace;
pub(crate) mod queue;
pub(crate) mod refusal;
pub(crate) mod return_path;
pub(crate) mod session;
pub(crate) mod threads;
pub(crate) mod watch;

use multifd_core::wire::{RamPacket, Uuid};

use crate::error::{Error, Refused};
use crate::transport::Connection;
use barrier::{Barrier, Content};
use connections::Connections;
use introduced::Introduced;
use numbers::{Fault, Numbers};

/// What the threads of a receiving side know of each other, and `M` that is that side's own.
#[derive(Debug)]
pub(crate) struct Receiving<M> {
    pub(crate) connections: Connections<Connection>,
    introduced: Introduced,
    /// Connections that were refused.
    pub(crate) refused: Refused,
    pub(crate) barrier: Barrier,
    numbers: Numbers,
    pub(crate) more: M,
}

impl<M> Receiving<M> {
    pub(crate) fn new(channels: u8, uuid: Option<Uuid>, most_waiting: usize, more: M) -> Self {
        Self {
            connections: Connections::new(channels, uuid, most_waiting),
            introduced: Introduced::default(),
            refused: Refused::default(),
            barrier: Barrier::new(channels),
            numbers: Numbers::new(channels),
            more,
        }
    }

    /// A packet has come on a channel: see [`Barrier::admit`].
    pub(crate) fn admit(&mut self, channel: u8, packet: &RamPacket<'_>) -> Result<(), Error> {
        let content = packet.into();
        self.barrier.admit(channel, content)?;
        if content == Content::Something {
            self.numbers.add(channel, packet.into());
        }
        Ok(())
    }

    /// The main channel is at a sync: see [`Barrier::pass`]. Every packet from before has come.
    pub(crate) fn pass(&mut self) -> Option<Result<(), Error>> {
        let Self { barrier, numbers, refused, .. } = self;
        barrier.pass(|| numbers.at_sync().map_err(|fault| wrong(fault, refused)))
    }

    /// The main channel has said that all pages have been sent: see [`Barrier::complete`]. Every packet
    /// has come.
    pub(crate) fn complete(&mut self) -> Result<(), Error> {
        self.barrier.complete()?;
        self.numbers.complete().map_err(|fault| wrong(fault, &self.refused))?;
        self.connections.begun_announce_digests().map(|_| ()).ok_or(Error::MixedDigests)
    }
}

fn wrong(fault: Fault, refused: &Refused) -> Error {
    match fault {
        Fault::Lost { packets, first } => {
            Error::LostPackets { packets, first, refused: refused.clone() }
        }
        Fault::OutOfTurn(number) => Error::OutOfTurn { number },
    }
}
