//! The pages of a packet to gzip members.

use multifd_core::Payload;
use page_deflate::LARGEST_WINDOW;

use crate::member::{self, HEADER, Sizes, TRAILER};

/// The most bytes of pages in a member: what the accelerator works on at a time.
pub(crate) const MEMBER: usize = 64 << 10;

/// The most bytes of a stored block (RFC 1951, section 3.2.4), and what comes before them.
const STORED: usize = 0xffff;
const STORED_HEADER: usize = 5;

/// The compressing side of a channel.
#[derive(Debug)]
pub struct Encoder(page_deflate::Encoder);

impl Encoder {
    pub(crate) fn new() -> Self {
        Self(page_deflate::Encoder::new(MEMBER, LARGEST_WINDOW))
    }

    /// Appends the members of `pages` to `payload`. They fit, whatever the pages hold: even where all
    /// are stored, a packet's members have a few hundred bytes more than its pages.
    pub(crate) fn encode(&mut self, pages: &[u8], payload: &mut Payload) {
        for bytes in pages.chunks(MEMBER) {
            let count = self.member(bytes, payload.spare());
            payload.advance(count);
        }
    }

    /// Writes the member of `bytes`. Returns how many bytes it has.
    fn member(&mut self, bytes: &[u8], out: &mut [u8]) -> usize {
        let (header, rest) = out.split_at_mut(HEADER);
        // What does not get shorter than stored is stored.
        let most = stored_bytes(bytes.len()) - 1;
        let deflate = match self.0.encode(bytes, &mut rest[..most]) {
            Some(count) => count,
            None => store(bytes, rest),
        };
        rest[deflate..deflate + TRAILER].copy_from_slice(&member::trailer(bytes));
        // The casts cannot truncate: a member has 64 KiB of pages at most.
        let sizes = Sizes { source: bytes.len() as u32, deflate: deflate as u32 };
        header.copy_from_slice(&member::header(sizes));
        HEADER + deflate + TRAILER
    }
}

/// How long a DEFLATE stream of stored blocks with `bytes` bytes is.
fn stored_bytes(bytes: usize) -> usize {
    bytes + bytes.div_ceil(STORED) * STORED_HEADER
}

/// Writes the DEFLATE stream that has `bytes` in stored blocks. Returns how many bytes it has.
fn store(bytes: &[u8], out: &mut [u8]) -> usize {
    let mut blocks = bytes.chunks(STORED).peekable();
    let mut at = 0;
    while let Some(block) = blocks.next() {
        let is_last = blocks.peek().is_none();
        // The cast cannot truncate: it is the most that a block can have.
        let length = block.len() as u16;
        out[at] = is_last.into();
        out[at + 1..at + 3].copy_from_slice(&length.to_le_bytes());
        out[at + 3..at + STORED_HEADER].copy_from_slice(&(!length).to_le_bytes());
        at += STORED_HEADER;
        out[at..at + block.len()].copy_from_slice(block);
        at += block.len();
    }
    at
}
