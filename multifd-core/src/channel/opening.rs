//! The first bytes of a connection.

use crate::error::PeerError;
use crate::wire::{InitialPacket, MAGIC};

/// What every main channel starts with: QEMU's `QEVM`.
pub const MAIN_MAGIC: [u8; 4] = *b"QEVM";

/// Finds out by the first bytes of a connection what it is. The first four are the magic of a main
/// channel or of a multifd channel; with the next 60 they are a multifd channel's initial packet.
#[derive(Debug)]
pub struct Opening {
    bytes: [u8; InitialPacket::BYTES],
    filled: usize,
}

/// What a connection has turned out to be.
#[allow(clippy::exhaustive_enums, reason = "the format has these, and a caller deals with each")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opened {
    /// The main channel. Its first four bytes, [`MAIN_MAGIC`], have been taken.
    Main,
    /// The multifd channel of this initial packet.
    Channel(InitialPacket),
    /// Nothing: it ended before it said what it is, as a port scanner's or a health check's does.
    Nothing,
}

impl Default for Opening {
    fn default() -> Self {
        Self { bytes: [0; InitialPacket::BYTES], filled: 0 }
    }
}

impl Opening {
    /// A connection that has said nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Where the connection's next bytes go: no more than are certain to be of its opening.
    pub fn want(&mut self) -> &mut [u8] {
        let end = if self.filled < MAIN_MAGIC.len() { MAIN_MAGIC.len() } else { self.bytes.len() };
        &mut self.bytes[self.filled..end]
    }

    /// Takes note that `count` bytes of those wanted have come, 0 at the connection's end. Returns
    /// what the connection is, once that is known.
    ///
    /// # Errors
    /// A connection that is neither, a malformed initial packet, and one that ends within it.
    ///
    /// # Panics
    /// With more bytes than were wanted.
    pub fn filled(&mut self, count: usize) -> Result<Option<Opened>, PeerError> {
        assert!(count <= self.want().len(), "more bytes than were wanted");
        let known = self.filled >= MAIN_MAGIC.len();
        if count == 0 {
            return if known { Err(PeerError::Truncated) } else { Ok(Some(Opened::Nothing)) };
        }
        self.filled += count;
        if !known && self.filled == MAIN_MAGIC.len() {
            let magic = [self.bytes[0], self.bytes[1], self.bytes[2], self.bytes[3]];
            if magic == MAIN_MAGIC {
                return Ok(Some(Opened::Main));
            }
            // What is neither is said before waiting for more of it.
            if magic != MAGIC.to_be_bytes() {
                return Err(PeerError::NotAMigration { first: magic });
            }
        }
        if self.filled < self.bytes.len() {
            return Ok(None);
        }
        Ok(Some(Opened::Channel(InitialPacket::parse(&self.bytes)?)))
    }

    /// Whether the first four bytes have come.
    pub fn is_known(&self) -> bool {
        self.filled >= MAIN_MAGIC.len()
    }

    /// The bytes so far, as they came.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.filled]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Uuid;

    /// Feeds `bytes`, at most `step` at a time, then the end.
    fn open(mut bytes: &[u8], step: usize) -> (Result<Opened, PeerError>, usize) {
        let mut opening = Opening::new();
        let all = bytes.len();
        loop {
            let room = opening.want();
            let count = room.len().min(step).min(bytes.len());
            room[..count].copy_from_slice(&bytes[..count]);
            bytes = &bytes[count..];
            match opening.filled(count) {
                Ok(None) => {}
                Ok(Some(opened)) => return (Ok(opened), all - bytes.len()),
                Err(error) => return (Err(error), all - bytes.len()),
            }
        }
    }

    #[test]
    fn a_connection_is_known_by_its_first_bytes_however_they_come() {
        let packet = InitialPacket::new(Uuid([7; 16]), 3);
        let channel = [&packet.to_bytes()[..], b"more"].concat();
        for step in [1, 3, 4, 64, 100] {
            let (opened, taken) = open(&channel, step);
            assert_eq!((opened.unwrap(), taken), (Opened::Channel(packet), 64));
            let (opened, taken) = open(b"QEVM\0\0\0\x03", step);
            assert_eq!((opened.unwrap(), taken), (Opened::Main, 4));
            let (error, taken) = open(b"GET / HTTP/1.1\r\n", step);
            assert_eq!(taken, 4);
            let expected = PeerError::NotAMigration { first: *b"GET " };
            assert_eq!(error.unwrap_err(), expected);
        }
    }

    #[test]
    fn a_connection_that_ends_early_is_nothing_or_cut_off() {
        let bytes = InitialPacket::new(Uuid([7; 16]), 3).to_bytes();
        for end in 0..bytes.len() {
            match open(&bytes[..end], 64).0 {
                Ok(opened) => assert!(opened == Opened::Nothing && end < 4, "{end}"),
                Err(error) => assert!(error == PeerError::Truncated && end >= 4, "{end}: {error}"),
            }
        }
    }
}
