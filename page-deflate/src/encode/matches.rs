//! The search for what a page repeats.

use std::ops::Range;

use crate::symbols::{LONGEST, SHORTEST};

/// A page as bytes that are written out, and matches between them.
#[derive(Debug)]
pub(super) struct Matches {
    /// Where bytes of each hash were seen last: 0, where no match begins, for nowhere.
    seen: Box<[u16; 1 << HASH_BITS]>,
    literals: Box<[u8]>,
    literal_count: usize,
    sequences: Box<[Sequence]>,
    sequence_count: usize,
    /// The largest distance.
    window: usize,
}

/// Literals, and the match behind them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sequence {
    pub(super) literals: u32,
    /// Bytes of the match.
    pub(super) length: u16,
    pub(super) distance: u16,
}

const HASH_BITS: u32 = 12;

/// Bytes that the search compares. Shorter matches save little, and every match costs a few
/// mispredicted branches.
const HASHED: usize = 7;

/// After every so many bytes without a match, the search goes on with longer steps.
const PATIENCE: usize = 32;

/// Bytes that are copied at once.
const BLOCK: usize = 16;

impl Matches {
    /// For pages of up to `page_bytes`.
    pub(super) fn new(page_bytes: usize, window: usize) -> Self {
        Self {
            seen: Box::new([0; 1 << HASH_BITS]),
            literals: vec![0; page_bytes + BLOCK].into(),
            literal_count: 0,
            // A match has HASHED bytes or more, and all parts of a long one but the last have 256.
            sequences: vec![Sequence::default(); page_bytes / 4].into(),
            sequence_count: 0,
            window,
        }
    }

    pub(super) fn literals(&self) -> &[u8] {
        &self.literals[..self.literal_count]
    }

    pub(super) fn sequences(&self) -> &[Sequence] {
        &self.sequences[..self.sequence_count]
    }

    /// Takes `page` apart. What is left behind the last sequence are literals.
    pub(super) fn find(&mut self, page: &[u8]) {
        self.seen.fill(0);
        (self.literal_count, self.sequence_count) = (0, 0);
        let mut taken = 0;
        while let Some(found) = self.search(page, taken) {
            self.push_literals(&page[taken..], found.bytes.start - taken);
            self.push_match(found.bytes.start - taken, found.bytes.len(), found.distance);
            taken = found.bytes.end;
        }
        let rest = &page[taken..];
        self.literals[self.literal_count..][..rest.len()].copy_from_slice(rest);
        self.literal_count += rest.len();
    }

    /// The first match from `taken` on that one look at each position finds.
    #[inline(always)]
    fn search(&mut self, page: &[u8], taken: usize) -> Option<Match> {
        // So that whole blocks can be copied and compared.
        let end = page.len().saturating_sub(BLOCK);
        if (2..end).contains(&taken) {
            // Where the last match ended: what comes next has often come after the same bytes.
            self.seen[hash(load(page, taken - 2))] = (taken - 2) as u16;
        }
        let mut first = taken.max(1);
        // Two looks a step cost less, and find more, than one look a step half as long.
        while first + 1 < end {
            for at in [first, first + 1] {
                let bytes = load(page, at);
                let seen = &mut self.seen[hash(bytes)];
                let from = usize::from(*seen);
                *seen = at as u16;
                if (load(page, from) ^ bytes) << (64 - 8 * HASHED) == 0 && at - from <= self.window
                {
                    return Some(extend(page, taken, at, from));
                }
            }
            first += 2 + (first - taken) / PATIENCE;
        }
        None
    }

    /// Appends the first `count` bytes of `bytes`, which has at least a block more.
    #[inline(always)]
    fn push_literals(&mut self, bytes: &[u8], count: usize) {
        let literals = &mut self.literals[self.literal_count..];
        let mut at = 0;
        // The length of a copy that is known in advance is an instruction, not a call.
        while at < count {
            literals[at..at + BLOCK].copy_from_slice(&bytes[at..at + BLOCK]);
            at += BLOCK;
        }
        self.literal_count += count;
    }

    #[inline(always)]
    fn push_match(&mut self, literals: usize, mut length: usize, distance: u16) {
        let mut literals = literals as u32;
        while length > LONGEST {
            // What is left must be a match, too.
            let part = LONGEST.min(length - SHORTEST);
            self.push(Sequence { literals, length: part as u16, distance });
            (literals, length) = (0, length - part);
        }
        self.push(Sequence { literals, length: length as u16, distance });
    }

    #[inline(always)]
    fn push(&mut self, sequence: Sequence) {
        self.sequences[self.sequence_count] = sequence;
        self.sequence_count += 1;
    }
}

struct Match {
    bytes: Range<usize>,
    distance: u16,
}

/// The match of what is at `at` and at `from`, as far as it reaches to both sides, but not to before
/// `taken`.
#[inline(always)]
fn extend(page: &[u8], taken: usize, at: usize, from: usize) -> Match {
    let end = at + common(&page[at..], &page[from..]);
    let back = if from < 8 {
        0
    } else {
        let differ = load(page, at - 8) ^ load(page, from - 8);
        (differ.leading_zeros() as usize / 8).min(at - taken)
    };
    Match { bytes: at - back..end, distance: (at - from) as u16 }
}

/// How many bytes at the start of `bytes` are those of `earlier`, which is longer.
#[inline(always)]
fn common(bytes: &[u8], earlier: &[u8]) -> usize {
    let mut count = 0;
    while count + 8 <= bytes.len() {
        let differ = load(bytes, count) ^ load(earlier, count);
        if differ != 0 {
            return count + differ.trailing_zeros() as usize / 8;
        }
        count += 8;
    }
    let rest = bytes[count..].iter().zip(&earlier[count..]);
    count + rest.take_while(|(byte, earlier)| byte == earlier).count()
}

#[inline(always)]
fn load(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
}

#[inline(always)]
fn hash(bytes: u64) -> usize {
    // Any odd factor with its bits well mixed will do; this one is 2^64 over the golden ratio.
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    ((bytes << (64 - 8 * HASHED)).wrapping_mul(FACTOR) >> (64 - HASH_BITS)) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::noise;

    const WINDOW: usize = 4096;

    /// What the literals and the sequences stand for.
    fn put_together(matches: &Matches) -> Vec<u8> {
        let mut page = Vec::new();
        let mut literals = matches.literals();
        for sequence in matches.sequences() {
            let (these, rest) = literals.split_at(sequence.literals as usize);
            page.extend_from_slice(these);
            literals = rest;
            assert!((SHORTEST..=LONGEST).contains(&usize::from(sequence.length)), "{sequence:?}");
            assert!((1..=WINDOW).contains(&usize::from(sequence.distance)), "{sequence:?}");
            for _ in 0..sequence.length {
                page.push(page[page.len() - usize::from(sequence.distance)]);
            }
        }
        page.extend_from_slice(literals);
        page
    }

    #[test]
    fn a_page_taken_apart_makes_the_page() {
        for page_bytes in [4096, 65536] {
            let mut matches = Matches::new(page_bytes, WINDOW);
            for period in [1, 3, 8, 100, 4095, 4096, 4097, 70_000] {
                let noise = noise(period);
                let page: Vec<_> = noise.iter().copied().cycle().take(page_bytes).collect();
                matches.find(&page);
                assert!(put_together(&matches) == page, "period {period}");
                let found = !matches.sequences().is_empty();
                assert!(found || period > 100, "period {period}");
                assert!(!found || period <= WINDOW, "period {period}");
            }
        }
    }

    #[test]
    fn matches_longer_than_the_longest_are_parted_into_matches() {
        let mut matches = Matches::new(4096, WINDOW);
        for length in HASHED..1100 {
            let mut page = noise(2000);
            page.extend_from_within(..length);
            page.resize(4096, !page[length]);
            matches.find(&page);
            assert!(put_together(&matches) == page, "{length}");
            let length = length.div_ceil(LONGEST);
            assert!(matches.sequences().len() >= length);
        }
    }
}
