//! The next bits of a stream (RFC 1951, section 3.1.1).

use super::DecodeError;

/// Where a stream is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Bits {
    /// The next bits, the first at the bottom. Above `count` may be some more, of the byte at `at`.
    pub(super) held: u64,
    /// How many there are, in the lowest six bits. Above, anything.
    pub(super) count: u32,
    /// The byte of the input that is next.
    at: usize,
}

impl Bits {
    /// Bits that there are at least after a refill.
    pub(super) const REFILLED: u32 = 56;

    /// Bytes that must be behind a stream in memory, so that its last bits can be loaded.
    pub(super) const PADDING: usize = 16;

    /// At the start of a byte.
    pub(super) fn at_byte(at: usize) -> Self {
        Self { held: 0, count: 0, at }
    }

    /// The first byte of which no bit was taken.
    pub(super) fn next_byte(self) -> usize {
        self.at - (self.count % 64 / 8) as usize
    }

    /// The first bit that was not taken.
    pub(super) fn position(self) -> usize {
        self.at * 8 - (self.count % 64) as usize
    }

    /// Fills up to [`REFILLED`](Self::REFILLED) bits or more.
    ///
    /// # Errors
    /// Where the stream and its padding end.
    #[inline(always)]
    pub(super) fn refill(&mut self, input: &[u8]) -> Result<(), DecodeError> {
        let next = input.get(self.at..).and_then(<[u8]>::first_chunk);
        let Some(&next) = next else { return Err(DecodeError::Malformed) };
        let count = self.count % 64;
        self.held |= u64::from_le_bytes(next) << count;
        self.at += ((63 - count) / 8) as usize;
        self.count = count | Self::REFILLED;
        Ok(())
    }

    /// Drops as many bits as the lowest six bits of `count` say.
    #[inline(always)]
    pub(super) fn skip(&mut self, count: u32) {
        self.held = self.held.wrapping_shr(count);
        self.count = self.count.wrapping_sub(count % 64);
    }

    #[inline(always)]
    pub(super) fn take(&mut self, count: u32) -> u32 {
        let bits = self.held & ((1 << count) - 1);
        self.skip(count);
        bits as u32
    }
}
