//! The codes of a block (RFC 1951, sections 3.2.6 and 3.2.7).

use std::sync::LazyLock;

use super::DecodeError;
use super::bits::Bits;
use super::code::{
    DISTANCE_BITS, DISTANCE_ENTRIES, DistanceCode, LENGTH_BITS, LENGTH_ENTRIES, LITLEN_BITS,
    LITLEN_ENTRIES, LengthCode, Lengths, LitlenCode,
};
use crate::symbols::{DISTANCES_USED, END, FIXED_DISTANCES, FIXED_LITLEN, LENGTHS, ORDER};

/// The two codes of a block.
#[derive(Debug)]
pub(super) struct Codes {
    pub(super) litlen: LitlenCode,
    pub(super) distances: DistanceCode,
}

impl Codes {
    const fn new() -> Self {
        Self { litlen: LitlenCode::new(), distances: DistanceCode::new() }
    }

    fn build(&mut self, litlen: &Lengths, distances: &Lengths) -> bool {
        self.litlen.build::<LITLEN_BITS>(litlen, &LITLEN_ENTRIES)
            && self.distances.build::<DISTANCE_BITS>(distances, &DISTANCE_ENTRIES)
    }
}

/// The fixed codes.
pub(super) static FIXED: LazyLock<Codes> = LazyLock::new(|| {
    let (mut litlen, mut distances) = (Lengths::new(), Lengths::new());
    for (lengths, fixed) in
        [(&mut litlen, &FIXED_LITLEN[..]), (&mut distances, &FIXED_DISTANCES[..])]
    {
        fixed.iter().enumerate().for_each(|(symbol, &length)| lengths.push(symbol, length));
    }
    let mut codes = Codes::new();
    assert!(codes.build(&litlen, &distances), "the fixed codes are complete");
    codes
});

/// The codes of the last block that had its own, and the header that they are from.
#[derive(Debug)]
pub(super) struct Dynamic {
    pub(super) codes: Codes,
    /// The stream's beginning up to and with the header, where that is the first.
    header: Vec<u8>,
    /// How many bits of it; 0 where there is none.
    header_bits: usize,
    length_code: LengthCode,
    lengths: Lengths,
    distances: Lengths,
}

impl Dynamic {
    pub(super) fn new() -> Self {
        Self {
            codes: Codes::new(),
            header: Vec::new(),
            header_bits: 0,
            length_code: LengthCode::new(),
            lengths: Lengths::new(),
            distances: Lengths::new(),
        }
    }

    /// Reads the codes of a block, behind its kind. `input` is the stream with its padding.
    ///
    /// Encoders that have one code for many pages write one header many times: where it is that of the stream
    /// before, there is nothing to do.
    pub(super) fn read(&mut self, bits: &mut Bits, input: &[u8]) -> Result<(), DecodeError> {
        let first = bits.position() == 3;
        if first && self.is_known(input) {
            *bits = Bits::at_byte(self.header_bits / 8);
            bits.refill(input)?;
            bits.skip((self.header_bits % 8) as u32);
            return Ok(());
        }
        self.header_bits = 0;
        self.read_codes(bits, input)?;
        if first {
            self.header_bits = bits.position();
            self.header.clear();
            self.header.extend_from_slice(&input[..self.header_bits.div_ceil(8)]);
        }
        Ok(())
    }

    /// Whether the input begins as the stream did that the codes are from.
    fn is_known(&self, input: &[u8]) -> bool {
        let (whole, rest) = (self.header_bits / 8, self.header_bits % 8);
        self.header_bits > 0
            && input.len() > whole
            && input[..whole] == self.header[..whole]
            && (rest == 0 || (input[whole] ^ self.header[whole]) << (8 - rest) == 0)
    }

    fn read_codes(&mut self, bits: &mut Bits, input: &[u8]) -> Result<(), DecodeError> {
        bits.refill(input)?;
        let litlen = bits.take(5) as usize + END + 1;
        let distances = bits.take(5) as usize + 1;
        let count = bits.take(4) as usize + 4;
        if litlen > END + 1 + LENGTHS || distances > DISTANCES_USED {
            return Err(DecodeError::Malformed);
        }
        self.read_length_code(bits, input, count)?;
        let has_end = self.read_lengths(bits, input, litlen, litlen + distances)?;
        let good = has_end && self.codes.build(&self.lengths, &self.distances);
        if good { Ok(()) } else { Err(DecodeError::Malformed) }
    }

    /// The code that the others' lengths are in, of which `count` lengths are there.
    fn read_length_code(
        &mut self,
        bits: &mut Bits,
        input: &[u8],
        count: usize,
    ) -> Result<(), DecodeError> {
        let mut by_symbol = [0; 19];
        for some in ORDER[..count].chunks(10) {
            bits.refill(input)?;
            for &symbol in some {
                by_symbol[symbol] = bits.take(3) as u8;
            }
        }
        self.lengths.clear();
        for (symbol, length) in by_symbol.into_iter().enumerate() {
            if length > 0 {
                self.lengths.push(symbol, length);
            }
        }
        let good = self.length_code.build::<LENGTH_BITS>(&self.lengths, &LENGTH_ENTRIES);
        if good { Ok(()) } else { Err(DecodeError::Malformed) }
    }

    /// The lengths of `litlen` symbols, and of others up to `end` in all. Says whether the end of the block has a code.
    fn read_lengths(
        &mut self,
        bits: &mut Bits,
        input: &[u8],
        litlen: usize,
        end: usize,
    ) -> Result<bool, DecodeError> {
        const REPEAT: usize = 16;
        const SHORT_ZEROS: usize = 17;

        self.lengths.clear();
        self.distances.clear();
        let mut has_end = false;
        let mut push = |symbol: usize, length: u8| {
            has_end |= symbol == END;
            if symbol < litlen {
                self.lengths.push(symbol, length);
            } else {
                self.distances.push(symbol - litlen, length);
            }
        };
        let (mut at, mut last) = (0, None);
        while at < end {
            const { assert!(4 * (7 + 7) <= Bits::REFILLED) };
            bits.refill(input)?;
            for _ in 0..4 {
                let entry = self.length_code.look::<LENGTH_BITS>(bits.held);
                if entry.is_special() {
                    return Err(DecodeError::Malformed);
                }
                bits.skip(entry.0);
                let (length, count) = match (entry.0 >> 16) as usize {
                    length @ 0..REPEAT => (length as u8, 1),
                    REPEAT => match last {
                        Some(last) => (last, 3 + bits.take(2)),
                        None => return Err(DecodeError::Malformed),
                    },
                    SHORT_ZEROS => (0, 3 + bits.take(3)),
                    _ => (0, 11 + bits.take(7)),
                };
                let next = at + count as usize;
                if next > end {
                    return Err(DecodeError::Malformed);
                }
                if length > 0 {
                    (at..next).for_each(|symbol| push(symbol, length));
                }
                (at, last) = (next, Some(length));
                if at == end {
                    break;
                }
            }
        }
        Ok(has_end)
    }
}
