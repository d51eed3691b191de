//! The header of a block with its own codes (RFC 1951, section 3.2.7).

use super::bits::{Bits, Writer};
use super::code::Code;
use crate::symbols::{DISTANCES, END, LITLEN, ORDER};

/// Bits of the longest code for bytes and lengths. More gain nothing in a page of 4 KiB, and cost
/// a decoder its second table.
pub(super) const LITLEN_LONGEST: usize = 11;

/// Bits of the longest code for distances.
pub(super) const DISTANCE_LONGEST: usize = 8;

/// Bytes of the longest header, and more: a run and a length for each symbol.
pub(super) const MOST: usize = 16 + (LITLEN + DISTANCES) * 3;

/// The lengths of the code in which the code lengths go out, the same for every page: Huffman's, with
/// 7 bits at most, for how often each of the lengths 0 to 11, and each run, occurs over the memory of
/// a Linux guest. It has no symbol 16, which repeats a length.
const PRECODE_LENGTHS: [u8; 19] = [3, 7, 7, 7, 5, 4, 4, 4, 2, 3, 3, 4, 0, 0, 0, 0, 0, 4, 7];

/// Symbols of runs of zeros: 3 to 10 of them, and 11 to 138.
const SHORT_RUN: usize = 17;
const LONG_RUN: usize = 18;

const PRECODE: [Bits; 19] = {
    let mut bits = [Bits::NONE; 19];
    let (mut code, mut length) = (0, 1);
    while length <= 7 {
        let mut symbol = 0;
        while symbol < 19 {
            if PRECODE_LENGTHS[symbol] == length {
                bits[symbol] = Bits::code(code, length as u32);
                code += 1;
            }
            symbol += 1;
        }
        code <<= 1;
        length += 1;
    }
    assert!(code == 1 << 8, "the code is complete");
    bits
};

/// The symbols for a run of so many symbols without a code. It is never longer: [`END`] has one.
static GAPS: [Bits; END + 1] = {
    let mut gaps = [Bits::NONE; END + 1];
    let mut gap = 1;
    while gap <= END {
        let (bits, count) = match gap {
            1..=2 => (PRECODE[0], 1),
            3..=10 => (PRECODE[SHORT_RUN].then(Bits::new(gap as u32 - 3, 3)), gap),
            11..=138 => (PRECODE[LONG_RUN].then(Bits::new(gap as u32 - 11, 7)), gap),
            _ => (PRECODE[LONG_RUN].then(Bits::new(127, 7)), 138),
        };
        gaps[gap] = bits.then(gaps[gap - count]);
        gap += 1;
    }
    gaps
};

/// The kind of a last block with its own codes.
const KIND: Bits = Bits::new(0b101, 3);

/// Writes a header whose code lengths go out in a code of their own, with repeats: for what is made once. The first
/// `litlen` of the lengths are those for bytes and lengths; none is 0.
pub(super) fn write_shortest(writer: &mut Writer<'_>, lengths: &[u8], litlen: usize) {
    const REPEAT: usize = 16;

    // The symbols of the lengths, each with how often it is repeated behind.
    let mut runs = Vec::new();
    for run in lengths.chunk_by(|one, other| one == other) {
        let (&first, mut rest) = (&run[0], run.len() - 1);
        runs.push((usize::from(first), Bits::NONE));
        while rest > 0 {
            let count = if rest < 3 { 1 } else { rest.min(6) };
            runs.push(match count {
                1 => (usize::from(first), Bits::NONE),
                count => (REPEAT, Bits::new(count as u32 - 3, 2)),
            });
            rest -= count;
        }
    }
    let mut frequencies = [0; 19];
    runs.iter().for_each(|&(symbol, _)| frequencies[symbol] += 1);
    let mut precode = Code::<19>::new();
    precode.fit(&frequencies, 7);
    precode.assign();

    writer.push(KIND);
    writer.push(Bits::new(litlen as u32 - 257, 5));
    writer.push(Bits::new((lengths.len() - litlen) as u32 - 1, 5));
    writer.push(Bits::new(ORDER.len() as u32 - 4, 4));
    writer.flush();
    for symbol in ORDER {
        writer.push(Bits::new(precode.lengths()[symbol].into(), 3));
        writer.flush();
    }
    for (symbol, repeats) in runs {
        writer.push(precode.bits()[symbol]);
        writer.push(repeats);
        writer.flush();
    }
}

/// What begins the header of a last block: its kind, the counts of symbols, and the precode.
pub(super) fn write(writer: &mut Writer<'_>, litlen: &Code<LITLEN>, distances: &Code<DISTANCES>) {
    // The last, for 15, has no length.
    const USED: usize = ORDER.len() - 1;

    let end = |used: &[u16]| used.last().map_or(0, |&symbol| u32::from(symbol) + 1);
    writer.push(KIND);
    writer.push(Bits::new(end(litlen.used()) - 257, 5));
    writer.push(Bits::new(end(distances.used()) - 1, 5));
    writer.push(Bits::new(USED as u32 - 4, 4));
    for symbols in ORDER[..USED].chunks(9) {
        for &symbol in symbols {
            writer.push(Bits::new(PRECODE_LENGTHS[symbol].into(), 3));
        }
        writer.flush();
    }
    write_lengths(writer, litlen);
    write_lengths(writer, distances);
}

fn write_lengths<const N: usize>(writer: &mut Writer<'_>, code: &Code<N>) {
    static PRECODES: [Bits; 19] = PRECODE;

    let mut next = 0;
    for &symbol in code.used() {
        let symbol = usize::from(symbol);
        writer.push(GAPS[symbol - next]);
        writer.push(PRECODES[usize::from(code.lengths()[symbol])]);
        writer.flush();
        next = symbol + 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lengths_code_suits_what_it_was_made_for() {
        // Of 1000 symbols in the headers over the image of scripts/guest-ram.
        let mut frequencies = [0; 19];
        frequencies[..12].copy_from_slice(&[125, 5, 4, 14, 30, 37, 44, 77, 213, 185, 147, 70]);
        frequencies[SHORT_RUN..].copy_from_slice(&[43, 10]);
        let mut code = Code::<19>::new();
        code.fit(&frequencies, 7);
        let bits = |lengths: &[u8; 19]| {
            let products = frequencies.iter().zip(lengths);
            products.map(|(&count, &length)| u32::from(count) * u32::from(length)).sum::<u32>()
        };
        assert!(bits(&PRECODE_LENGTHS) <= bits(code.lengths()));
    }
}
