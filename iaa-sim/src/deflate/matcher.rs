//! Finds repetitions within the history of 4096 bytes.

use super::{HISTORY, Sink};

const SHORTEST: usize = 3;
const LONGEST: usize = 258;
const HASH_BITS: u32 = 12;
/// How many earlier places are looked at.
const TRIES: u32 = 4;
/// A match of this length is long enough to look no further.
const GOOD: usize = 32;

/// Tables of where bytes have been. Nothing of one run's data is left for the next one: the places of each
/// run have numbers of their own.
#[derive(Debug)]
pub(crate) struct Matcher {
    /// The last place of each hash.
    last: Box<[u32; 1 << HASH_BITS]>,
    /// For each place of the history, the one before of the same hash.
    before: Box<[u32; HISTORY]>,
    /// The number of the next run's first place; those below are of earlier runs.
    first: u32,
}

impl Matcher {
    /// Splits data into literals and matches: always the same for the same data.
    pub(crate) fn run(&mut self, data: &[u8], literals_only: bool, sink: &mut impl Sink) {
        if literals_only {
            data.iter().for_each(|byte| sink.literal(*byte));
            return;
        }
        if self.first.checked_add(data.len() as u32).is_none() {
            *self = Self::default();
        }
        let mut at = 0;
        while let Some(place) = self.enter(data, at) {
            let (length, distance) = self.best(data, at, place);
            if distance == 0 {
                sink.literal(data[at]);
                at += 1;
            } else {
                sink.repeat(length, distance);
                for passed in at + 1..at + length {
                    self.enter(data, passed);
                }
                at += length;
            }
        }
        data[at..].iter().for_each(|byte| sink.literal(*byte));
        self.first += data.len() as u32;
    }

    /// Enters a place, if enough bytes follow for a match; the last one of the same hash.
    #[inline]
    fn enter(&mut self, data: &[u8], at: usize) -> Option<u32> {
        let bytes = data.get(at..at + SHORTEST)?;
        let word = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], 0]);
        let hash = (word.wrapping_mul(0x9e37_79b1) >> (32 - HASH_BITS)) as usize;
        let number = self.first + at as u32;
        let last = std::mem::replace(&mut self.last[hash], number);
        self.before[number as usize % HISTORY] = last;
        Some(last)
    }

    /// The longest match at a place: length and distance, which is 0 for none.
    #[inline]
    fn best(&self, data: &[u8], at: usize, mut place: u32) -> (usize, usize) {
        let new = &data[at..data.len().min(at + LONGEST)];
        let number = self.first + at as u32;
        let (mut length, mut distance) = (SHORTEST - 1, 0);
        for _ in 0..TRIES {
            let away = number.wrapping_sub(place) as usize;
            if place < self.first || away > HISTORY {
                break;
            }
            let old = &data[at - away..];
            if length < new.len() && old[length] == new[length] && old[0] == new[0] {
                let found = same(old, new);
                if found > length {
                    (length, distance) = (found, away);
                }
                if found >= GOOD {
                    break;
                }
            }
            let before = self.before[place as usize % HISTORY];
            if before >= place {
                break;
            }
            place = before;
        }
        (length, distance)
    }
}

impl Default for Matcher {
    fn default() -> Self {
        Self { last: Box::new([0; 1 << HASH_BITS]), before: Box::new([0; HISTORY]), first: 1 }
    }
}

/// How many bytes are the same, up to the end of `new`.
#[inline]
fn same(old: &[u8], new: &[u8]) -> usize {
    let mut count = 0;
    while let (Some(one), Some(other)) = (old.get(count..count + 8), new.get(count..count + 8)) {
        let word = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("8 bytes"));
        let differ = word(one) ^ word(other);
        if differ != 0 {
            return count + differ.trailing_zeros() as usize / 8;
        }
        count += 8;
    }
    count + old[count..].iter().zip(&new[count..]).take_while(|(one, other)| one == other).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What literals and matches stand for.
    #[derive(Default)]
    struct Copy(Vec<u8>, usize);

    impl Sink for Copy {
        fn literal(&mut self, byte: u8) {
            self.0.push(byte);
        }

        fn repeat(&mut self, length: usize, distance: usize) {
            assert!((SHORTEST..=LONGEST).contains(&length) && (1..=HISTORY).contains(&distance));
            (0..length).for_each(|_| self.0.push(self.0[self.0.len() - distance]));
            self.1 += 1;
        }
    }

    #[test]
    fn a_run_knows_nothing_of_those_before_it_even_when_numbers_start_over() {
        let data: Vec<u8> = (0..6000_u32).map(|at| ((at * at) >> 9) as u8).collect();
        let mut fresh = Copy::default();
        Matcher::default().run(&data, false, &mut fresh);
        assert!(fresh.0 == data && fresh.1 > 10);
        for first in [1, 4095, u32::MAX - 6001, u32::MAX - 6000, u32::MAX - 5999, u32::MAX] {
            let mut matcher = Matcher { first, ..Matcher::default() };
            for _ in 0..3 {
                let mut copy = Copy::default();
                matcher.run(&data, false, &mut copy);
                assert!(copy.0 == data, "{first}");
                assert_eq!(copy.1, fresh.1, "{first}");
            }
        }
    }
}
