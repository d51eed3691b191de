//! The search for what a page repeats.

use super::search::{BLOCK, Match, Search};

/// A page as bytes that are written out, and matches between them.
#[derive(Debug)]
pub(super) struct Matches {
    search: Search,
    literals: Box<[u8]>,
    literal_count: usize,
    sequences: Box<[Sequence]>,
    sequence_count: usize,
}

/// Bytes that the search compares.
const HASHED: u32 = 7;

/// After so many bytes without a match, the search goes on with longer steps.
const PATIENCE: usize = 32;

/// Literals, and the match behind them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sequence {
    pub(super) literals: u32,
    /// Bytes of the match.
    pub(super) length: u16,
    pub(super) distance: u16,
}

impl Matches {
    /// For pages of up to `page_bytes`.
    pub(super) fn new(page_bytes: usize, window: usize) -> Self {
        Self {
            search: Search::new(window),
            literals: vec![0; page_bytes + BLOCK].into(),
            literal_count: 0,
            // A match has 7 bytes or more, and all parts of a long one but the last have 256.
            sequences: vec![Sequence::default(); page_bytes / 4].into(),
            sequence_count: 0,
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
        self.search.start();
        (self.literal_count, self.sequence_count) = (0, 0);
        let mut taken = 0;
        while let Some(found) = self.search.next::<HASHED, PATIENCE>(page, taken) {
            self.push_literals(&page[taken..], found.bytes.start - taken);
            self.push_match(found.bytes.start - taken, found.bytes.len(), found.distance);
            taken = found.bytes.end;
        }
        let rest = &page[taken..];
        self.literals[self.literal_count..][..rest.len()].copy_from_slice(rest);
        self.literal_count += rest.len();
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
    fn push_match(&mut self, literals: usize, length: usize, distance: u16) {
        let mut literals = literals as u32;
        Match::parts(length, |length| {
            self.sequences[self.sequence_count] = Sequence { literals, length, distance };
            self.sequence_count += 1;
            literals = 0;
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::noise;
    use crate::symbols::{LONGEST, SHORTEST};

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
        for length in 7..1100 {
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
