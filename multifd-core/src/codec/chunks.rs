//! QPL's payload format (section 6): n lengths, then n chunks.

use std::ops::Range;

use super::Payload;
use crate::error::Error;
use crate::page_size::PageSize;
use crate::ram::{NormalPages, PageMemory};
use crate::wire::MAX_PAYLOAD;

const LENGTH_BYTES: usize = size_of::<u32>();

/// One page in a payload of chunks.
#[allow(clippy::exhaustive_enums, reason = "the format has these two")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chunk<'a> {
    /// The page itself, as it is.
    Raw(&'a [u8]),
    /// What gives the page: at least one byte, and less than a page.
    Compressed(&'a [u8]),
}

/// The chunks of a payload, one a page, in the order of the pages. Each has 1 to a page's bytes,
/// and together with their lengths (u32, big-endian) they are the whole payload.
#[derive(Clone, Debug)]
pub struct Chunks<'a> {
    lengths: &'a [u8],
    data: &'a [u8],
    page_bytes: usize,
}

impl<'a> Chunks<'a> {
    /// Finds the chunks of `pages` pages.
    ///
    /// # Errors
    /// A payload that is too short for the lengths, or that the lengths do not add up to; a length
    /// of 0 or above a page's bytes.
    pub fn parse(payload: &'a [u8], pages: usize, page_size: PageSize) -> Result<Self, Error> {
        let (lengths, data) = payload
            .split_at_checked(pages * LENGTH_BYTES)
            .ok_or_else(|| Error::payload("it is shorter than the lengths of its chunks"))?;
        let sum: u64 = be_u32s(lengths).map(u64::from).sum();
        if sum != data.len() as u64 {
            let have = data.len();
            let what = format!("its chunk lengths add up to {sum} bytes, it has {have}");
            return Err(Error::payload(what));
        }
        let page_bytes = page_size.bytes();
        let good = |length: u32| (1..=page_bytes).contains(&(length as usize));
        if let Some((page, length)) = be_u32s(lengths).enumerate().find(|&(_, it)| !good(it)) {
            let what = format!("a chunk has {length} bytes, not 1 to {page_bytes}");
            return Err(Error::payload(what).at_page(page));
        }
        Ok(Self { lengths, data, page_bytes })
    }
}

impl<'a> Iterator for Chunks<'a> {
    type Item = Chunk<'a>;

    fn next(&mut self) -> Option<Chunk<'a>> {
        let (length, lengths) = self.lengths.split_first_chunk()?;
        self.lengths = lengths;
        // Cannot fail: the lengths add up to the data.
        let (chunk, data) = self.data.split_at(u32::from_be_bytes(*length) as usize);
        self.data = data;
        let whole = chunk.len() == self.page_bytes;
        Some(if whole { Chunk::Raw(chunk) } else { Chunk::Compressed(chunk) })
    }
}

fn be_u32s(bytes: &[u8]) -> impl Iterator<Item = u32> {
    let words = bytes.chunks_exact(LENGTH_BYTES);
    words.map(|word| u32::from_be_bytes(word.try_into().expect("four bytes")))
}

/// Writes the payload of a packet, a chunk for each of its pages, in their order.
#[derive(Debug)]
pub struct ChunkWriter<'a> {
    payload: &'a mut Payload,
    pages: &'a NormalPages<'a>,
    /// The page whose chunk comes next.
    page: usize,
}

// What is written always fits: a payload has room for a packet of raw pages and their lengths.
const _: () = assert!(MAX_PAYLOAD >= 2 * crate::page_size::PACKET_BYTES);

impl<'a> ChunkWriter<'a> {
    /// Begins the payload, which is empty, of a packet with `pages`.
    pub fn new(payload: &'a mut Payload, pages: &'a NormalPages<'a>) -> Self {
        debug_assert!(payload.is_empty(), "a payload comes empty");
        payload.advance(pages.len() * LENGTH_BYTES);
        Self { payload, pages, page: 0 }
    }

    /// Room for the next page's chunk: one byte less than a page. Write there, then
    /// [`advance`](Self::advance).
    pub fn spare(&mut self) -> &mut [u8] {
        let most = self.pages.page_size().bytes() - 1;
        &mut self.payload.spare()[..most]
    }

    /// Takes the first `count` bytes of [`spare`](Self::spare) as the next page's chunk.
    ///
    /// # Panics
    /// Without a byte, with more than there was room for, and after the last page.
    pub fn advance(&mut self, count: usize) {
        let most = self.pages.page_size().bytes() - 1;
        assert!((1..=most).contains(&count), "a chunk has 1 to {most} bytes");
        self.payload.advance(count);
        self.set_length(count);
    }

    /// Takes `chunk` as the next page's.
    ///
    /// # Panics
    /// Without a byte, with a page's bytes or more, and after the last page.
    pub fn push(&mut self, chunk: &[u8]) {
        self.spare()[..chunk.len()].copy_from_slice(chunk);
        self.advance(chunk.len());
    }

    /// Takes the bytes in `range` of `memory` as the next page's chunk, without a copy: see
    /// [`Payload::push_part`].
    ///
    /// # Panics
    /// Without a byte, with a page's bytes or more, and after the last page.
    pub fn push_part(&mut self, memory: &PageMemory, range: Range<usize>) {
        let (count, most) = (range.len(), self.pages.page_size().bytes() - 1);
        assert!((1..=most).contains(&count), "a chunk has 1 to {most} bytes");
        self.payload.push_part(memory, range);
        self.set_length(count);
    }

    /// Takes the next page as it is.
    ///
    /// # Panics
    /// After the last page.
    pub fn push_raw(&mut self) {
        self.payload.push_page(self.page, self.pages);
        self.set_length(self.pages.page_size().bytes());
    }

    fn set_length(&mut self, bytes: usize) {
        assert!(self.page < self.pages.len(), "a chunk more than pages");
        let at = self.page * LENGTH_BYTES;
        // The cast cannot truncate: a page has at most 64 KiB.
        let length = (bytes as u32).to_be_bytes();
        self.payload.bytes_mut(at..at + LENGTH_BYTES).copy_from_slice(&length);
        self.page += 1;
    }
}
