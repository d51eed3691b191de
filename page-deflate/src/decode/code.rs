//! Huffman codes (RFC 1951, section 3.2.2) as tables, which say of the next bits what they begin with.

use crate::symbols::{
    DISTANCE_RANGES, DISTANCES, DISTANCES_USED, END, LENGTH_RANGES, LENGTHS, LITLEN, Range,
};

/// What the next bits begin with. From the lowest bit:
///
/// | bits | |
/// |---|---|
/// | 0 to 5 | how many bits it takes, with the extra ones behind it |
/// | 8 to 11 | how many without them |
/// | 12 to 15 | [`END`](Self::END), [`LONG`](Self::LONG), [`SPECIAL`](Self::SPECIAL) |
/// | 16 to 30 | the byte; the first length or distance; where the table for longer codes begins |
/// | 31 | [`LITERAL`](Self::LITERAL) |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry(pub(super) u32);

impl Entry {
    /// The byte is meant.
    pub(super) const LITERAL: u32 = 1 << 31;
    /// Neither a byte nor a length or distance; alone, nothing that there is a code for.
    pub(super) const SPECIAL: u32 = 1 << 15;
    /// The code is longer than the table's index: what follows is in another table, with an index of so many
    /// bits as the lowest four say.
    const LONG: u32 = 1 << 14;
    /// The end of the block.
    const END: u32 = 1 << 13;

    pub(super) const INVALID: Self = Self(Self::SPECIAL);
    const BLOCK_END: Self = Self(Self::SPECIAL | Self::END);

    const fn literal(byte: u8) -> Self {
        Self(Self::LITERAL | (byte as u32) << 16)
    }

    const fn range(range: Range) -> Self {
        Self((range.start as u32) << 16 | range.extra as u32)
    }

    /// The same for a code of `length` bits.
    #[inline(always)]
    fn of(self, length: u32) -> Self {
        Self(self.0 + (length << 8 | length))
    }

    #[inline(always)]
    pub(super) fn is_literal(self) -> bool {
        self.0 & Self::LITERAL != 0
    }

    /// Whether it is neither a literal nor a range of lengths or distances. Not of literals.
    #[inline(always)]
    pub(super) fn is_special(self) -> bool {
        self.0 & Self::SPECIAL != 0
    }

    pub(super) fn is_long(self) -> bool {
        self.0 & Self::LONG != 0
    }

    pub(super) fn is_end(self) -> bool {
        self.0 & Self::END != 0
    }

    #[inline(always)]
    pub(super) fn byte(self) -> u8 {
        (self.0 >> 16) as u8
    }

    /// The length or distance that `held`, which begins with its code, says.
    #[inline(always)]
    pub(super) fn value(self, held: u64) -> usize {
        let bits = held & ((1 << (self.0 % 64)) - 1);
        (self.0 >> 16) as usize + (bits >> (self.0 >> 8 & 15)) as usize
    }
}

/// A code whose table has `N` entries.
#[derive(Debug)]
pub(super) struct Code<const N: usize> {
    table: [Entry; N],
    /// The symbols of the code, by length and then in order.
    sorted: [u16; LITLEN],
}

/// Bits of the longest code.
const LONGEST: usize = 15;

/// For bytes and lengths: an index of 11 bits, and what longer codes need (at most 1334 entries).
pub(super) type LitlenCode = Code<4096>;
pub(super) const LITLEN_BITS: u32 = 11;

/// For distances: an index of 8 bits, and what longer codes need (at most 402 entries).
pub(super) type DistanceCode = Code<1024>;
pub(super) const DISTANCE_BITS: u32 = 8;

/// For code lengths; the longest is 7.
pub(super) type LengthCode = Code<128>;
pub(super) const LENGTH_BITS: u32 = 7;

/// Symbols that have a code, in order, with its length.
#[derive(Debug)]
pub(super) struct Lengths {
    symbols: [(u16, u8); LITLEN],
    count: usize,
    /// How many have each length.
    counts: [u16; LONGEST + 1],
}

impl Lengths {
    pub(super) const fn new() -> Self {
        Self { symbols: [(0, 0); LITLEN], count: 0, counts: [0; LONGEST + 1] }
    }

    pub(super) fn clear(&mut self) {
        self.count = 0;
        self.counts = [0; LONGEST + 1];
    }

    /// # Panics
    /// Where the symbol or the length are more than there can be.
    #[inline(always)]
    pub(super) fn push(&mut self, symbol: usize, length: u8) {
        self.symbols[self.count] = (symbol as u16, length);
        self.count += 1;
        self.counts[usize::from(length)] += 1;
    }

    /// What the codes leave of all sequences of 15 bits; `None` where they need more.
    fn left(&self) -> Option<u32> {
        let lengths = self.counts.iter().zip(0..).skip(1);
        let taken = lengths.map(|(&count, length)| u32::from(count) << (LONGEST - length)).sum();
        (1_u32 << LONGEST).checked_sub(taken)
    }

    /// Whether they are those of a code that decoders take: complete, or with one symbol of one bit or none.
    fn are_a_code(&self) -> bool {
        match self.left() {
            Some(0) => true,
            Some(_) => self.count == 0 || self.count == 1 && self.counts[1] == 1,
            None => false,
        }
    }
}

impl<const N: usize> Code<N> {
    pub(super) const fn new() -> Self {
        Self { table: [Entry::INVALID; N], sorted: [0; LITLEN] }
    }

    /// What `bits` begin with, of an index of `BITS` bits.
    #[inline(always)]
    pub(super) fn look<const BITS: u32>(&self, bits: u64) -> Entry {
        const { assert!(1 << BITS <= N && N.is_power_of_two()) };
        self.table[bits as usize % (1 << BITS)]
    }

    /// What `bits`, those behind the index of a `long` entry, go on with.
    pub(super) fn look_further(&self, long: Entry, bits: u64) -> Entry {
        let index = bits as usize & ((1 << (long.0 & 15)) - 1);
        self.table[((long.0 >> 16) as usize + index) % N]
    }

    /// Makes the tables for an index of `BITS` bits, where the symbols mean `entries`. Says whether the lengths are
    /// a code's.
    pub(super) fn build<const BITS: u32>(&mut self, lengths: &Lengths, entries: &[Entry]) -> bool {
        if !lengths.are_a_code() {
            return false;
        }
        if lengths.count < 2 {
            // What has no code is not filled in below.
            self.table.fill(Entry::INVALID);
        }
        self.sort(lengths);
        let (mut code, mut next, mut size) = (0, 0, 1);
        for length in 1..=BITS {
            // All that has a shorter code has it with either bit behind.
            self.table.copy_within(..size, size);
            size *= 2;
            for _ in 0..lengths.counts[length as usize] {
                let symbol = usize::from(self.sorted[next]);
                self.table[code] = entries[symbol].of(length);
                code = next_code(code, length);
                next += 1;
            }
        }
        if next < lengths.count {
            self.build_longer::<BITS>(lengths, entries, code, next);
        }
        true
    }

    /// The symbols by the lengths of their codes.
    fn sort(&mut self, lengths: &Lengths) {
        let mut next = [0; LONGEST + 1];
        for length in 1..LONGEST {
            next[length + 1] = next[length] + lengths.counts[length];
        }
        for &(symbol, length) in &lengths.symbols[..lengths.count] {
            let next = &mut next[usize::from(length)];
            self.sorted[usize::from(*next)] = symbol;
            *next += 1;
        }
    }

    /// Makes the tables of the codes that are longer than the index, from `code`, that of the symbol that is the
    /// `next` in order, on.
    #[cold]
    fn build_longer<const BITS: u32>(
        &mut self,
        lengths: &Lengths,
        entries: &[Entry],
        mut code: usize,
        mut next: usize,
    ) {
        const { assert!(BITS < LONGEST as u32) };
        let mut at = 1 << BITS;
        let mut left = lengths.counts;
        let mut length = BITS + 1;
        while next < lengths.count {
            while left[length as usize] == 0 {
                length += 1;
            }
            // As many bits as all codes with this beginning need.
            let mut bits = length - BITS;
            let mut room = 1_i32 << bits;
            loop {
                room -= i32::from(left[(BITS + bits) as usize]);
                if room <= 0 || BITS + bits == LONGEST as u32 {
                    break;
                }
                bits += 1;
                room <<= 1;
            }
            let start = code % (1 << BITS);
            self.table[start] = Entry(Entry::SPECIAL | Entry::LONG | (at as u32) << 16 | bits);
            while next < lengths.count && code % (1 << BITS) == start {
                while left[length as usize] == 0 {
                    length += 1;
                }
                let entry = entries[usize::from(self.sorted[next])].of(length - BITS);
                let step = 1 << (length - BITS);
                for index in (code >> BITS..1 << bits).step_by(step) {
                    self.table[at + index] = entry;
                }
                code = next_code(code, length);
                left[length as usize] -= 1;
                next += 1;
            }
            at += 1 << bits;
        }
    }
}

/// The code behind `code`, both from their last bit on, as they are in a stream.
#[inline(always)]
fn next_code(code: usize, length: u32) -> usize {
    let zeros = !code & ((1 << length) - 1);
    if zeros == 0 {
        return 0;
    }
    let highest = 1 << zeros.ilog2();
    code & (highest - 1) | highest
}

/// What the symbols for bytes, ends and lengths mean (RFC 1951, section 3.2.5).
pub(super) static LITLEN_ENTRIES: [Entry; LITLEN] = {
    let mut entries = [Entry::INVALID; LITLEN];
    let mut byte = 0;
    while byte < END {
        entries[byte] = Entry::literal(byte as u8);
        byte += 1;
    }
    entries[END] = Entry::BLOCK_END;
    let mut symbol = 0;
    while symbol < LENGTHS {
        entries[END + 1 + symbol] = Entry::range(LENGTH_RANGES[symbol]);
        symbol += 1;
    }
    entries
};

/// What the symbols for distances mean.
pub(super) static DISTANCE_ENTRIES: [Entry; DISTANCES] = {
    let mut entries = [Entry::INVALID; DISTANCES];
    let mut symbol = 0;
    while symbol < DISTANCES_USED {
        entries[symbol] = Entry::range(DISTANCE_RANGES[symbol]);
        symbol += 1;
    }
    entries
};

/// What the symbols for code lengths mean: themselves.
pub(super) static LENGTH_ENTRIES: [Entry; 19] = {
    let mut entries = [Entry::INVALID; 19];
    let mut symbol = 0;
    while symbol < 19 {
        entries[symbol] = Entry::range(Range { start: symbol as u16, extra: 0 });
        symbol += 1;
    }
    entries
};
