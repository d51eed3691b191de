//! Codes that pages share. Each page's stream has its code in its header, as any, but nobody has to make it.

mod lengths;
#[cfg(test)]
mod train;

use std::sync::LazyLock;

use super::bits::{Bits, Writer};
use super::code::Code;
use super::header;
use super::sample;
use crate::symbols::{DISTANCES, DISTANCES_USED, END, LENGTHS as LENGTH_SYMBOLS, LITLEN};
use lengths::LENGTHS;

/// How many codes there are.
const CODES: usize = 8;

/// Symbols that have a code: the others never occur.
const LITLEN_USED: usize = END + 1 + LENGTH_SYMBOLS;
const USED: usize = LITLEN_USED + DISTANCES_USED;

/// Lengths of the codes of all symbols, of bytes and lengths first.
type Lengths = [u8; USED];

/// One of the codes, and the header that says it.
#[derive(Debug)]
pub(super) struct SharedCode {
    pub(super) litlen: [Bits; LITLEN],
    pub(super) distances: [Bits; DISTANCES],
    header: Vec<u8>,
    header_bits: usize,
}

/// All of them, and the lengths of each byte's code in each.
struct Shared {
    codes: [SharedCode; CODES],
    costs: [Costs; 256],
}

static SHARED: LazyLock<Shared> = LazyLock::new(|| Shared {
    codes: LENGTHS.map(SharedCode::new),
    costs: std::array::from_fn(|byte| Costs::of(LENGTHS.map(|lengths| lengths[byte]))),
});

/// A number for each code. They are added up at once.
#[derive(Clone, Copy, Debug, Default)]
struct Costs([u64; CODES / 4]);

impl Costs {
    fn of(costs: [u8; CODES]) -> Self {
        let four =
            |costs: &[u8]| costs.iter().rev().fold(0, |four, &cost| four << 16 | u64::from(cost));
        Self(std::array::from_fn(|at| four(&costs[4 * at..4 * at + 4])))
    }

    fn add(&mut self, other: Self) {
        // A sample of 11 bits each does not reach into the next number.
        const { assert!(sample::MOST * 11 < 1 << 16) };
        self.0.iter_mut().zip(other.0).for_each(|(sum, cost)| *sum += cost);
    }

    /// Which is the least, and what it is.
    fn least(self) -> (usize, u64) {
        let costs = (0..CODES).map(|code| (code, self.0[code / 4] >> (16 * (code % 4)) & 0xffff));
        costs.min_by_key(|&(_, cost)| cost).unwrap_or_default()
    }
}

impl SharedCode {
    /// Bytes of a header, at most.
    pub(super) const MOST_HEADER: usize = header::MOST;

    /// The code for a page whose bytes are like a sample of it, and the bits that this takes.
    pub(super) fn choose(page: &[u8]) -> (&'static Self, u64) {
        let shared = &*SHARED;
        let mut costs = Costs::default();
        sample::bytes(page).for_each(|&byte| costs.add(shared.costs[usize::from(byte)]));
        let (code, cost) = costs.least();
        (&shared.codes[code], cost)
    }

    /// Begins a stream: with the header.
    pub(super) fn begin<'s>(&self, stream: &'s mut [u8]) -> Writer<'s> {
        stream[..self.header.len()].copy_from_slice(&self.header);
        Writer::behind(stream, self.header_bits)
    }

    fn new(lengths: &Lengths) -> Self {
        let (litlen_lengths, distance_lengths) = lengths.split_at(LITLEN_USED);
        let (mut litlen, mut distances) = (Code::<LITLEN>::new(), Code::<DISTANCES>::new());
        litlen.set(litlen_lengths);
        distances.set(distance_lengths);
        let mut header = vec![0; Self::MOST_HEADER + Writer::MARGIN];
        let mut writer = Writer::new(&mut header);
        header::write_shortest(&mut writer, lengths, LITLEN_USED);
        let header_bits = writer.bits();
        header.truncate(header_bits.div_ceil(8));
        Self { litlen: *litlen.bits(), distances: *distances.bits(), header, header_bits }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_symbol_has_a_code_and_each_code_is_complete() {
        for lengths in LENGTHS {
            let (litlen, distances) = lengths.split_at(LITLEN_USED);
            for (lengths, longest) in [(litlen, 11), (distances, 8)] {
                let taken: u32 = lengths.iter().map(|&length| 1 << (longest - length)).sum();
                assert_eq!(taken, 1 << longest);
                assert!(lengths.iter().all(|&length| length > 0));
            }
        }
    }

    #[test]
    fn a_page_gets_the_code_in_which_its_bytes_are_shortest() {
        for (code, lengths) in LENGTHS.into_iter().enumerate() {
            let byte = (0..=255).min_by_key(|&byte: &u8| lengths[usize::from(byte)]).unwrap();
            let (chosen, bits) = SharedCode::choose(&[byte; 4096]);
            let least =
                LENGTHS.map(|lengths| lengths[usize::from(byte)]).into_iter().min().unwrap();
            let chosen = SHARED.codes.iter().position(|it| std::ptr::eq(it, chosen)).unwrap();
            assert_eq!(LENGTHS[chosen][usize::from(byte)], least, "{code}");
            assert_eq!(bits, u64::from(least) * sample::bytes(&[byte; 4096]).len() as u64);
            assert!(!sample::is_dense(&[byte; 4096], bits));
        }
        let noise = crate::noise(4096);
        assert!(sample::is_dense(&noise, SharedCode::choose(&noise).1));
    }
}
