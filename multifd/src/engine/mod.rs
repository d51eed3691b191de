//! What source, destination and relay have in common: rooms that each hold one thing.
//!
//! ```text
//! session      the one end of a migration: first error, waits, threads, connections
//! watch        time limits: what moves, who is cut off                 (decision pure)
//! cancel       tokens that cancel migrations
//! threads      what the program wants of threads
//! accept       connections come, and are found out to be the main channel or a multifd channel
//! connections  who is there                                                    (pure)
//! barrier      how far the channels and the main channel are                   (pure)
//! queue        what the sending channels have to do                            (pure)
//! return_path  what the destination has said                                   (pure)
//! hearing      listening to it
//! outgoing     where a migration goes: an address, or connections
//! pace         how fast bytes may go out                                       (pure)
//! channels     a thread each: one loop that sends, one that receives
//! ```

pub(crate) mod accept;
pub(crate) mod barrier;
pub(crate) mod cancel;
pub(crate) mod channels;
pub(crate) mod connections;
pub(crate) mod hearing;
pub(crate) mod outgoing;
pub(crate) mod pace;
pub(crate) mod queue;
pub(crate) mod return_path;
pub(crate) mod session;
pub(crate) mod threads;
pub(crate) mod watch;

use multifd_core::wire::Uuid;

use crate::transport::Connection;
use barrier::Barrier;
use connections::Connections;

/// What the threads of a receiving side know of each other, and `M` that is that side's own.
#[derive(Debug)]
pub(crate) struct Receiving<M> {
    pub(crate) connections: Connections<Connection>,
    pub(crate) barrier: Barrier,
    pub(crate) more: M,
}

impl<M> Receiving<M> {
    pub(crate) fn new(channels: u8, uuid: Option<Uuid>, more: M) -> Self {
        Self {
            connections: Connections::new(channels, uuid),
            barrier: Barrier::new(channels),
            more,
        }
    }
}
