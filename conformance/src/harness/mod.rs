//! What the cases are built from: memory with known content, channels over bytes in memory, verdicts.

mod channel;
mod content;
mod memory;
mod packet;
mod subject;
mod verdict;

pub(crate) use channel::Receiver;
pub(crate) use content::{Content, Random, mixed};
pub(crate) use memory::{
    BLOCK, STALE, first_difference, fresh_ram, offsets, page_of, ram, ram_on, read, zeros,
};
pub(crate) use packet::{Packet, Part, in_pieces, parse};
pub(crate) use subject::{Pair, Setup, Subject};
pub(crate) use verdict::{Context, Stop, Verdict, ensure, panicked};
