//! Packets as they lie in a stream.

use multifd_core::PageSize;
use multifd_core::wire::RamPacket;

/// One packet that a channel sent.
#[derive(Clone, Debug)]
pub(crate) struct Packet {
    pub(crate) header: Vec<u8>,
    pub(crate) payload: Vec<u8>,
}

/// Where the fields lie that cases change.
impl Packet {
    pub(crate) const PAGES_ALLOC: usize = 12;
    pub(crate) const NORMAL_PAGES: usize = 16;
    pub(crate) const PAYLOAD_BYTES: usize = 20;
    pub(crate) const ZERO_PAGES: usize = 32;
    pub(crate) const BLOCK: usize = 64;
    pub(crate) const OFFSETS: usize = 320;

    /// The packet in `bytes`, which hold nothing else.
    pub(crate) fn of(bytes: &[u8], page_size: PageSize) -> Self {
        let (header, payload) = bytes.split_at(RamPacket::bytes(page_size.page_count()));
        Self { header: header.to_vec(), payload: payload.to_vec() }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        [&self.header[..], &self.payload[..]].concat()
    }

    pub(crate) fn word(&self, at: usize) -> u32 {
        self.header[at..at + 4].iter().fold(0, |word, &byte| word << 8 | u32::from(byte))
    }

    /// The same packet with another word in its header.
    pub(crate) fn with_word(&self, at: usize, word: u32) -> Self {
        let mut changed = self.clone();
        changed.header[at..at + 4].copy_from_slice(&word.to_be_bytes());
        changed
    }

    /// The same packet with another payload, whose size its header tells.
    pub(crate) fn with_payload(&self, payload: &[u8]) -> Self {
        let header = self.with_word(Self::PAYLOAD_BYTES, payload.len() as u32).header;
        Self { header, payload: payload.to_vec() }
    }
}

/// What the packet's header says, if a receiver may read it at all.
pub(crate) fn parse(bytes: &[u8], page_size: PageSize) -> Option<RamPacket<'_>> {
    let header = bytes.get(..RamPacket::bytes(page_size.page_count()))?;
    RamPacket::parse(header, page_size).ok()
}

/// `bytes` in pieces whose lengths `lengths` gives, over and over.
pub(crate) fn in_pieces<'a>(
    bytes: &'a [u8],
    lengths: &'a [usize],
) -> impl Iterator<Item = &'a [u8]> {
    let mut left = bytes;
    lengths.iter().cycle().map_while(move |&length| {
        let (piece, rest) = left.split_at(length.min(left.len()));
        left = rest;
        (!piece.is_empty()).then_some(piece)
    })
}
