//! A page as one DEFLATE block, which is the stream.

use super::bits::{Bits, Writer};
use super::code::Code;
use super::header::{self, DISTANCE_LONGEST, LITLEN_LONGEST};
use super::matches::Matches;
use crate::symbols::{self, DISTANCES, END, FIXED_DISTANCES, FIXED_LITLEN, LITLEN};

/// The codes of one block after the other, and the memory that they are written to.
#[derive(Debug)]
pub(super) struct Block {
    frequencies: Frequencies,
    litlen: Code<LITLEN>,
    distances: Code<DISTANCES>,
    stream: Box<[u8]>,
}

/// How often each symbol occurs. 16 bits are enough: a page of 65536 times one byte has matches.
#[derive(Debug)]
struct Frequencies {
    litlen: [u16; LITLEN],
    distances: [u16; DISTANCES],
}

impl Block {
    /// For pages of up to `page_bytes`.
    pub(super) fn new(page_bytes: usize) -> Self {
        Self {
            frequencies: Frequencies { litlen: [0; LITLEN], distances: [0; DISTANCES] },
            litlen: Code::new(),
            distances: Code::new(),
            stream: vec![0; page_bytes * 9 / 8 + header::MOST + Writer::MARGIN].into(),
        }
    }

    /// Writes the page into `chunk`, which is no longer than it. Returns the bytes written; `None`
    /// where they do not fit.
    pub(super) fn write(&mut self, page: &Matches, chunk: &mut [u8]) -> Option<usize> {
        let Self { frequencies, litlen, distances, stream } = self;
        frequencies.count(page);
        litlen.fit(&frequencies.litlen, LITLEN_LONGEST);
        distances.fit(&frequencies.distances, DISTANCE_LONGEST);

        let mut writer = Writer::new(stream);
        header::write(&mut writer, litlen, distances);
        let dynamic = writer.bits() + frequencies.bits(litlen.lengths(), distances.lengths());
        let fixed = 3 + frequencies.bits(&FIXED_LITLEN, &FIXED_DISTANCES);
        let bytes = (dynamic.min(fixed) + frequencies.extra_bits()).div_ceil(8);
        let chunk = chunk.get_mut(..bytes)?;

        if dynamic < fixed {
            litlen.assign();
            distances.assign();
            write_symbols(&mut writer, page, litlen.bits(), distances.bits());
        } else {
            const KIND: Bits = Bits::new(0b011, 3);
            writer = Writer::new(stream);
            writer.push(KIND);
            write_symbols(&mut writer, page, &FIXED_LITLEN_BITS, &FIXED_DISTANCE_BITS);
        }
        debug_assert_eq!(writer.bits().div_ceil(8), bytes);
        chunk.copy_from_slice(&stream[..bytes]);
        Some(bytes)
    }
}

impl Frequencies {
    fn count(&mut self, page: &Matches) {
        // One after the other in the same place, increments of the same byte would wait.
        let mut counts = [[0_u16; 256]; 4];
        let quads = page.literals().chunks_exact(4);
        let rest = quads.remainder();
        for quad in quads {
            for (counts, &literal) in counts.iter_mut().zip(quad) {
                counts[usize::from(literal)] += 1;
            }
        }
        for &literal in rest {
            counts[0][usize::from(literal)] += 1;
        }
        self.litlen.fill(0);
        for (literal, sum) in self.litlen[..256].iter_mut().enumerate() {
            *sum = counts.iter().map(|counts| counts[literal]).sum();
        }
        self.litlen[END] = 1;
        self.distances.fill(0);
        for sequence in page.sequences() {
            self.litlen[symbols::of_length(sequence.length)] += 1;
            self.distances[symbols::of_distance(sequence.distance)] += 1;
        }
    }

    /// Bits of all symbols in codes of these lengths.
    fn bits(&self, litlen: &[u8; LITLEN], distances: &[u8; DISTANCES]) -> usize {
        weigh(&self.litlen, litlen) + weigh(&self.distances, distances)
    }

    /// Bits between the symbols.
    fn extra_bits(&self) -> usize {
        weigh(&self.litlen[END..], &symbols::LITLEN_EXTRA[END..])
            + weigh(&self.distances, &symbols::DISTANCE_EXTRA)
    }
}

fn weigh(frequencies: &[u16], bits: &[u8]) -> usize {
    let products = frequencies.iter().zip(bits);
    let sum: u32 = products.map(|(&count, &bits)| u32::from(count) * u32::from(bits)).sum();
    sum as usize
}

/// Writes the symbols of a block and its end.
#[inline(never)]
fn write_symbols(
    writer: &mut Writer<'_>,
    page: &Matches,
    litlen: &[Bits; LITLEN],
    distances: &[Bits; DISTANCES],
) {
    let mut literals = page.literals();
    for sequence in page.sequences() {
        let (these, behind) = literals.split_at(sequence.literals as usize);
        write_literals(writer, these, litlen);
        write_match(writer, sequence.length, sequence.distance, litlen, distances);
        literals = behind;
    }
    write_literals(writer, literals, litlen);
    writer.push(litlen[END]);
    writer.flush();
}

/// Writes all literals but the last up to three, which are pushed only.
#[inline(always)]
pub(super) fn write_literals(writer: &mut Writer<'_>, literals: &[u8], litlen: &[Bits; LITLEN]) {
    const { assert!(4 * LITLEN_LONGEST as u32 <= Writer::ROOM) };
    let quads = literals.chunks_exact(4);
    let rest = quads.remainder();
    for quad in quads {
        for &literal in quad {
            writer.push(litlen[usize::from(literal)]);
        }
        writer.flush();
    }
    for &literal in rest {
        writer.push(litlen[usize::from(literal)]);
    }
    writer.flush();
}

#[inline(always)]
pub(super) fn write_match(
    writer: &mut Writer<'_>,
    length: u16,
    distance: u16,
    litlen: &[Bits; LITLEN],
    distances: &[Bits; DISTANCES],
) {
    let symbol = symbols::of_length(length);
    writer.push(litlen[symbol]);
    writer.push(symbols::length_extra(symbol, length));
    let symbol = symbols::of_distance(distance);
    writer.push(distances[symbol]);
    writer.push(symbols::distance_extra(symbol, distance));
    writer.flush();
}

static FIXED_LITLEN_BITS: [Bits; LITLEN] = {
    let mut bits = [Bits::NONE; LITLEN];
    let mut symbol = 0;
    while symbol < LITLEN {
        let code = match symbol {
            0..144 => 0b0011_0000 + symbol,
            144..256 => 0b1_1001_0000 + (symbol - 144),
            256..280 => symbol - 256,
            _ => 0b1100_0000 + (symbol - 280),
        };
        bits[symbol] = Bits::code(code as u16, FIXED_LITLEN[symbol] as u32);
        symbol += 1;
    }
    bits
};

static FIXED_DISTANCE_BITS: [Bits; DISTANCES] = {
    let mut bits = [Bits::NONE; DISTANCES];
    let mut symbol = 0;
    while symbol < DISTANCES {
        bits[symbol] = Bits::code(symbol as u16, 5);
        symbol += 1;
    }
    bits
};
