//! Packets as they lie in a stream.

use std::ops::Range;

use multifd_core::PageSize;
use multifd_core::codec::{Chunk, Chunks};
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

    /// The whole payload, and, of a payload of chunks, one of them: what checks their lengths refuses
    /// most of what is done to the payload, and the codec never sees it.
    pub(crate) fn parts(&self, page_size: PageSize) -> Vec<Part> {
        [self.whole()].into_iter().chain(self.chunk(page_size)).collect()
    }

    /// The whole payload.
    pub(crate) fn whole(&self) -> Part {
        Part { name: "the payload", range: 0..self.payload.len(), length_at: None }
    }

    /// Of a payload of chunks, the longest that is compressed and has room for [`Part::TAIL`].
    pub(crate) fn chunk(&self, page_size: PageSize) -> Option<Part> {
        let count = self.word(Self::NORMAL_PAGES) as usize;
        let chunks = Chunks::parse(&self.payload, count, page_size).ok()?;
        let mut start = count * size_of::<u32>();
        let parts = chunks.enumerate().filter_map(|(index, chunk)| {
            let (Chunk::Raw(bytes) | Chunk::Compressed(bytes)) = chunk;
            let range = start..start + bytes.len();
            start = range.end;
            let fits = bytes.len() + Part::TAIL < page_size.bytes();
            let length_at = Some(index * size_of::<u32>());
            fits.then_some(Part { name: "a chunk", range, length_at })
        });
        parts.max_by_key(|part| part.range.len())
    }

    /// The same packet with other bytes for that part, and with the lengths that fit them.
    pub(crate) fn with_part(&self, part: &Part, bytes: &[u8]) -> Self {
        let (before, behind) = (&self.payload[..part.range.start], &self.payload[part.range.end..]);
        let mut payload = [before, bytes, behind].concat();
        if let Some(at) = part.length_at {
            payload[at..at + 4].copy_from_slice(&(bytes.len() as u32).to_be_bytes());
        }
        self.with_payload(&payload)
    }
}

/// What a case changes of a payload.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub(crate) name: &'static str,
    /// Where it lies in the payload.
    pub(crate) range: Range<usize>,
    /// Where the payload has its length, if it does.
    length_at: Option<usize>,
}

impl Part {
    /// The most bytes by which a chunk may be made longer: it stays shorter than a page.
    pub(crate) const TAIL: usize = 128;
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
