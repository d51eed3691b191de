//! The machines over bytes in memory: for tests, fuzzers, and whoever has all bytes at once.

use std::sync::Arc;

use super::{Received, RecvMachine, RecvNext, SendMachine, SendNext, Target};
use crate::error::Error;
use crate::ram::Ram;

/// Appends to `out` what `channel` has to send, until it is idle.
///
/// # Errors
/// Where the codec fails.
pub async fn send(channel: &mut SendMachine, out: &mut Vec<u8>) -> Result<(), Error> {
    loop {
        match channel.next()? {
            SendNext::Idle => return Ok(()),
            SendNext::Encode => channel.encode().await?,
            SendNext::Write(parts) => {
                let before = out.len();
                for part in parts {
                    let start = out.len();
                    out.resize(start + part.bytes(), 0);
                    part.copy_to(&mut out[start..]);
                }
                let count = out.len() - before;
                channel.sent(count);
            }
        }
    }
}

/// Takes the next packet off the front of `bytes`, behind which the stream ends, and puts its pages
/// into `ram`.
///
/// # Errors
/// As [`RecvMachine`]'s.
pub async fn receive(
    channel: &mut RecvMachine,
    bytes: &mut &[u8],
    ram: &Arc<Ram>,
) -> Result<Received, Error> {
    loop {
        match channel.next()? {
            RecvNext::Read(room) => {
                let count = room.len().min(bytes.len());
                room[..count].copy_from_slice(&bytes[..count]);
                *bytes = &bytes[count..];
                channel.filled(count)?;
            }
            RecvNext::ReadGuest(room) => {
                let count = room.copy_from(bytes);
                *bytes = &bytes[count..];
                channel.filled(count)?;
            }
            RecvNext::Admit(_) => channel.place(Target::Ram(Arc::clone(ram)))?,
            RecvNext::Decode => channel.decode().await?,
            RecvNext::Received(received) => return Ok(received),
        }
    }
}
