//! The bits of a stream, the first in the lowest place (RFC 1951, section 3.1.1).

/// Up to 32 bits that are written at once: at the top of the word, and at its bottom how many they
/// are. That takes one shift and one OR to append.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bits(u64);

impl Bits {
    pub(crate) const NONE: Self = Self(0);

    /// The lowest `count` bits, up to 32, of `value`, which has no others.
    pub(crate) const fn new(value: u32, count: u32) -> Self {
        debug_assert!(count <= 32 && (value as u64) >> count == 0);
        Self((value as u64).wrapping_shl(64 - count) | count as u64)
    }

    /// A Huffman code of `count` bits, up to 15, which goes out from its highest bit on.
    #[inline(always)]
    pub(crate) const fn code(code: u16, count: u32) -> Self {
        debug_assert!(count < 16 && code >> count == 0);
        Self((code.reverse_bits() as u64) << 48 | count as u64)
    }

    /// These, and behind them `next`: up to 32 together.
    pub(crate) const fn then(self, next: Self) -> Self {
        let count = self.count();
        Self::new(self.value() | next.value() << count, count + next.count())
    }

    const fn count(self) -> u32 {
        self.0 as u32 % 64
    }

    const fn value(self) -> u32 {
        if self.count() == 0 { 0 } else { (self.0 >> (64 - self.count())) as u32 }
    }
}

/// Writes bits into memory.
#[derive(Debug)]
pub(crate) struct Writer<'a> {
    stream: &'a mut [u8],
    /// Bytes that are written.
    at: usize,
    /// The last bits, at the top. Below are bits that are written, and others' counts.
    held: u64,
    /// In the lowest six bits, how many of the top ones are not written; above, anything.
    count: u64,
}

impl<'a> Writer<'a> {
    /// Bits that may be pushed from one flush to the next: with the 7 that a flush leaves, they do
    /// not reach down to the count of the last ones.
    pub(crate) const ROOM: u32 = 49;

    /// Bytes behind the end of the stream that a flush may write to.
    pub(crate) const MARGIN: usize = 8;

    pub(crate) fn new(stream: &'a mut [u8]) -> Self {
        Self { stream, at: 0, held: 0, count: 0 }
    }

    /// Behind the first `bits` bits of the stream, which are there already.
    pub(crate) fn behind(stream: &'a mut [u8], bits: usize) -> Self {
        let (at, count) = (bits / 8, bits % 8);
        let held = if count == 0 { 0 } else { u64::from(stream[at]) << (64 - count) };
        Self { stream, at, held, count: count as u64 }
    }

    #[inline(always)]
    pub(crate) fn push(&mut self, bits: Bits) {
        self.held = self.held.wrapping_shr(bits.0 as u32) | bits.0;
        self.count = self.count.wrapping_add(bits.0);
    }

    /// Writes what was pushed, but for a byte's first bits.
    #[inline(always)]
    pub(crate) fn flush(&mut self) {
        let count = self.count % 64;
        let low = self.held.wrapping_shr(64 - count as u32);
        self.stream[self.at..self.at + 8].copy_from_slice(&low.to_le_bytes());
        self.at += (count / 8) as usize;
        self.count = count % 8;
    }

    /// Bits so far, all of them flushed.
    pub(crate) fn bits(&self) -> usize {
        self.at * 8 + self.count as usize
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn bits_come_out_as_they_went_in(
            pieces in proptest::collection::vec((any::<u32>(), 0..=32_u32), 0..100),
        ) {
            let mut stream = vec![0; 100 * 4 + Writer::MARGIN];
            let mut writer = Writer::new(&mut stream);
            let (mut expected, mut pushed) = (Vec::new(), 0);
            for (value, count) in pieces {
                let value = (u64::from(value) & ((1 << count) - 1)) as u32;
                if pushed + count > Writer::ROOM {
                    writer.flush();
                    pushed = 0;
                }
                writer.push(Bits::new(value, count));
                pushed += count;
                expected.extend((0..count).map(|bit| value >> bit & 1 == 1));
            }
            writer.flush();
            prop_assert_eq!(writer.bits(), expected.len());
            let written = (0..expected.len()).map(|at| stream[at / 8] >> (at % 8) & 1 == 1);
            prop_assert!(written.eq(expected.iter().copied()));
            // Nothing but zeros fill the last byte.
            let last = expected.len().next_multiple_of(8) - expected.len();
            prop_assert!(last == 0 || stream[expected.len() / 8] >> (8 - last) == 0);
        }
    }

    #[test]
    fn bits_behind_others_come_after_them() {
        assert_eq!(Bits::new(0b01, 2).then(Bits::new(0b110, 3)), Bits::new(0b11001, 5));
        assert_eq!(Bits::NONE.then(Bits::new(1, 1)), Bits::new(1, 1));
        // A Huffman code begins with its highest bit.
        assert_eq!(Bits::code(0b100, 3).then(Bits::NONE), Bits::new(0b001, 3));
    }
}
