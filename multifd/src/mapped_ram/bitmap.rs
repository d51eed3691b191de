//! Which pages of a RAM block a file has.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A bit for each page: bit i mod 64 of word i / 64 is page i's.
#[derive(Debug)]
pub(super) struct Bitmap(Vec<AtomicU64>);

impl Bitmap {
    /// None of so many pages.
    pub(super) fn new(pages: u64) -> Self {
        Self((0..pages.div_ceil(64)).map(|_| AtomicU64::new(0)).collect())
    }

    /// Of a file's bytes: words of the host's order, which on all machines here is little endian. `None` where there are bits
    /// behind the last of `pages` pages.
    pub(super) fn parse(bytes: &[u8], pages: u64) -> Option<Self> {
        let words = bytes.chunks_exact(8).map(|word| {
            AtomicU64::new(word.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte)))
        });
        let bitmap = Self(words.collect());
        let behind = bitmap.runs(pages..bitmap.0.len() as u64 * 64).next();
        behind.is_none().then_some(bitmap)
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        self.0.iter().flat_map(|word| word.load(Relaxed).to_le_bytes()).collect()
    }

    pub(super) fn set(&self, page: u64) {
        self.0[(page / 64) as usize].fetch_or(1 << (page % 64), Relaxed);
    }

    fn has(&self, page: u64) -> bool {
        self.0[(page / 64) as usize].load(Relaxed) >> (page % 64) & 1 != 0
    }

    /// The pages of `among` that are there, neighbours together.
    pub(super) fn runs(&self, among: Range<u64>) -> impl Iterator<Item = Range<u64>> {
        let mut at = among.start;
        std::iter::from_fn(move || {
            let start = self.find(at..among.end, true)?;
            at = self.find(start..among.end, false).unwrap_or(among.end);
            Some(start..at)
        })
    }

    /// The first page of `among` that is there, or with `is_there` false, that is not.
    fn find(&self, among: Range<u64>, is_there: bool) -> Option<u64> {
        let mut page = among.start;
        while page < among.end {
            let word = self.0[(page / 64) as usize].load(Relaxed);
            let none = if is_there { 0 } else { u64::MAX };
            // Most are all there or all not.
            if page % 64 == 0 && word == none {
                page += 64;
            } else if self.has(page) == is_there {
                return Some(page);
            } else {
                page += 1;
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_those_of_the_pages_one_by_one() {
        let set = [0, 1, 5, 62, 63, 64, 65, 127, 128, 200, 255, 256, 257];
        let bitmap = Bitmap::new(300);
        set.iter().for_each(|&page| bitmap.set(page));
        for (from, to) in
            [(0, 300), (1, 299), (63, 65), (64, 128), (66, 127), (256, 256), (255, 258)]
        {
            let found: Vec<_> = bitmap.runs(from..to).flatten().collect();
            let wanted: Vec<_> = set.into_iter().filter(|page| (from..to).contains(page)).collect();
            assert_eq!(found, wanted);
        }
        let runs: Vec<_> = bitmap.runs(0..300).collect();
        assert_eq!(runs, [0..2, 5..6, 62..66, 127..129, 200..201, 255..258]);
    }

    #[test]
    fn a_bitmap_reads_as_it_is_written_and_has_nothing_behind_the_last_page() {
        let bitmap = Bitmap::new(70);
        [0, 9, 69].into_iter().for_each(|page| bitmap.set(page));
        let bytes = bitmap.to_bytes();
        assert_eq!(bytes, [&[1, 2, 0, 0, 0, 0, 0, 0, 32][..], &[0; 7]].concat());
        assert_eq!(Bitmap::parse(&bytes, 70).unwrap().to_bytes(), bytes);
        assert!(Bitmap::parse(&bytes, 69).is_none());
    }
}
