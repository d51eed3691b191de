//! Bits in DEFLATE's order: the lowest of a byte first.

/// Writes bits behind what is in a buffer.
#[derive(Debug)]
pub(crate) struct BitWriter<'a> {
    out: &'a mut Vec<u8>,
    held: u64,
    /// Bits in `held`, fewer than 32.
    bits: u32,
}

impl<'a> BitWriter<'a> {
    pub(crate) fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out, held: 0, bits: 0 }
    }

    /// Writes the low `bits`, at most 32, of a value that has none above.
    #[inline]
    pub(crate) fn put(&mut self, value: u32, bits: u32) {
        self.held |= u64::from(value) << self.bits;
        self.bits += bits;
        if self.bits >= 32 {
            self.out.extend_from_slice(&(self.held as u32).to_le_bytes());
            self.held >>= 32;
            self.bits -= 32;
        }
    }

    /// Writes zeros up to the next whole byte.
    pub(crate) fn align(&mut self) {
        self.put(0, self.bits.wrapping_neg() % 8);
    }

    /// Writes all whole bytes; the bits behind them, fewer than 8, and how many.
    pub(crate) fn finish(self) -> (u8, u32) {
        let bytes = self.bits / 8;
        self.out.extend_from_slice(&self.held.to_le_bytes()[..bytes as usize]);
        ((self.held >> (8 * bytes)) as u8, self.bits % 8)
    }
}

/// A place in a buffer of bits. Copies go on from there on their own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BitReader<'a> {
    data: &'a [u8],
    /// Bits of `data` that count.
    limit: usize,
    /// The byte behind those in `held`.
    at: usize,
    held: u64,
    bits: u32,
}

impl<'a> BitReader<'a> {
    /// The bits of `data` from `start` up to `limit`, of which neither is beyond the end.
    pub(crate) fn new(data: &'a [u8], start: usize, limit: usize) -> Self {
        let data = &data[..limit.div_ceil(8)];
        let mut reader = Self { data, limit, at: start / 8, held: 0, bits: 0 };
        reader.refill();
        reader.drop((start % 8) as u32);
        reader
    }

    /// Holds at least 48 bits, or all there are.
    #[inline(always)]
    pub(crate) fn refill(&mut self) {
        match self.data.get(self.at..self.at + 9) {
            // The last byte may count in part, so it is not taken here.
            Some(ahead) => {
                let word = u64::from_le_bytes(ahead[..8].try_into().expect("8 bytes"));
                self.held |= word << self.bits;
                let bytes = (63 - self.bits) / 8;
                self.at += bytes as usize;
                self.bits += bytes * 8;
                self.held &= u64::MAX >> (64 - self.bits);
            }
            None => self.refill_near_end(),
        }
    }

    #[cold]
    fn refill_near_end(&mut self) {
        while self.bits < 56 && 8 * self.at < self.limit {
            let bits = (self.limit - 8 * self.at).min(8) as u32;
            let byte = u64::from(self.data[self.at]) & ((1 << bits) - 1);
            self.held |= byte << self.bits;
            self.bits += bits;
            self.at += 1;
        }
    }

    /// The next bits. Those that do not count are 0.
    #[inline(always)]
    pub(crate) fn peek(&self) -> u64 {
        self.held
    }

    /// How many bits are held.
    #[inline(always)]
    pub(crate) fn held(&self) -> u32 {
        self.bits
    }

    /// Goes on behind bits that are held.
    #[inline(always)]
    pub(crate) fn drop(&mut self, bits: u32) {
        let bits = bits.min(self.bits);
        self.held = self.held.checked_shr(bits).unwrap_or(0);
        self.bits -= bits;
    }

    /// The next `count` bits, at most 32, if there are as many.
    pub(crate) fn take(&mut self, count: u32) -> Option<u32> {
        self.refill();
        if self.bits < count {
            return None;
        }
        let value = self.held & ((1 << count) - 1);
        self.drop(count);
        Some(value as u32)
    }

    /// Goes on at the next whole byte.
    pub(crate) fn align(&mut self) {
        // Only the last byte can be held in part, and nothing is behind it.
        let behind = (self.position() % 8) as u32;
        self.drop((8 - behind) % 8);
    }

    /// The next whole bytes, at most `most`; the reader is at a whole byte.
    pub(crate) fn bytes(&mut self, most: usize) -> &'a [u8] {
        let start = self.position() / 8;
        let count = most.min((self.limit / 8).saturating_sub(start));
        if count > 0 {
            *self = Self::new(self.data, 8 * (start + count), self.limit);
        }
        &self.data[start..start + count]
    }

    /// The bit of the buffer that comes next.
    pub(crate) fn position(&self) -> usize {
        (8 * self.at).min(self.limit) - self.bits as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut out = Vec::new();
        let mut writer = BitWriter::new(&mut out);
        for n in 0..1000_u32 {
            writer.put(n % (1 << (n % 17)), n % 17);
        }
        let (last, bits) = writer.finish();
        let total = 8 * out.len() + bits as usize;
        assert_eq!(total, (0..1000_usize).map(|n| n % 17).sum::<usize>());
        out.push(last);
        let mut reader = BitReader::new(&out, 0, total);
        for n in 0..1000_u32 {
            assert_eq!(reader.take(n % 17), Some(n % (1 << (n % 17))), "{n}");
        }
        assert_eq!((reader.position(), reader.take(1)), (total, None));
    }

    #[test]
    fn a_reader_ends_at_its_limit_from_any_start() {
        let data: Vec<u8> = (0..40_u8).map(|byte| byte.wrapping_mul(77)).collect();
        let bit = |at: usize| u32::from(data[at / 8] >> (at % 8) & 1);
        for start in 0..=8 * data.len() {
            for limit in start.max(8 * data.len() - 20)..=8 * data.len() {
                let mut reader = BitReader::new(&data, start, limit);
                for at in start..limit {
                    assert_eq!(reader.position(), at);
                    assert_eq!(reader.take(1), Some(bit(at)), "{start}..{limit} at {at}");
                }
                assert_eq!(reader.take(1), None);
                assert_eq!(reader.position(), limit);
            }
        }
    }

    #[test]
    fn bytes_follow_an_alignment() {
        let data: Vec<u8> = (0..40).collect();
        for start in 0..8 * data.len() {
            let mut reader = BitReader::new(&data, start, 8 * data.len() - 3);
            reader.align();
            let at = start.div_ceil(8);
            let expected = &data[at.min(39)..(at + 5).min(39)];
            assert_eq!(reader.bytes(5), expected, "{start}");
            let next = data.get(at).map(|_| u32::from(data[(at + 5).min(39)] & 7));
            assert_eq!(reader.take(3), next, "{start}");
        }
    }
}
