//! Finds repetitions within the history of 4096 bytes.

use super::{HISTORY, Sink};

const SHORTEST: usize = 3;
const LONGEST: usize = 258;
const HASH_BITS: u32 = 12;
/// How many earlier places are looked at.
const TRIES: u32 = 6;
/// A match of this length is long enough to look no further.
const GOOD: usize = 32;

/// Tables of where bytes have been. Nothing of one run's data is left for the next one: the places of each
/// run have numbers of their own.
#[derive(Debug)]
pub(crate) struct Matcher {
    /// The last place of each hash.
    last: Vec<u32>,
    /// For each place of the history, the one before of the same hash.
    before: Vec<u32>,
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
        self.start(data.len());
        let mut at = 0;
        while at < data.len() {
            match self.best(data, at) {
                Some((length, distance)) => {
                    sink.repeat(length, distance);
                    for passed in at..at + length {
                        self.enter(data, passed);
                    }
                    at += length;
                }
                None => {
                    sink.literal(data[at]);
                    self.enter(data, at);
                    at += 1;
                }
            }
        }
        self.first += data.len() as u32;
    }

    fn start(&mut self, bytes: usize) {
        if self.first.checked_add(bytes as u32).is_none() {
            *self = Self::default();
        }
    }

    /// The longest match at a place: length and distance.
    #[inline]
    fn best(&self, data: &[u8], at: usize) -> Option<(usize, usize)> {
        let longest = (data.len() - at).min(LONGEST);
        let mut place = self.last[hash(data, at)?];
        let number = self.first + at as u32;
        let (mut length, mut distance) = (SHORTEST - 1, 0);
        for _ in 0..TRIES {
            let away = number.wrapping_sub(place) as usize;
            if place < self.first || away > HISTORY {
                break;
            }
            if length < longest && data[at - away + length] == data[at + length] {
                let found = same(&data[at - away..], &data[at..at + longest]);
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
        (distance > 0).then_some((length, distance))
    }

    #[inline]
    fn enter(&mut self, data: &[u8], at: usize) {
        if let Some(hash) = hash(data, at) {
            let number = self.first + at as u32;
            self.before[number as usize % HISTORY] = self.last[hash];
            self.last[hash] = number;
        }
    }
}

impl Default for Matcher {
    fn default() -> Self {
        Self { last: vec![0; 1 << HASH_BITS], before: vec![0; HISTORY], first: 1 }
    }
}

/// A hash of the 3 bytes from a place on, if there are as many.
#[inline]
fn hash(data: &[u8], at: usize) -> Option<usize> {
    let bytes = data.get(at..at + SHORTEST)?;
    let word = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], 0]);
    Some((word.wrapping_mul(0x9e37_79b1) >> (32 - HASH_BITS)) as usize)
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
