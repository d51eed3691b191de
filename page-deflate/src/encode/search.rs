//! The search for what a page repeats, by one look into a table of hashes at each position.

use std::ops::Range;

use crate::symbols::{LONGEST, SHORTEST};

/// Where bytes were seen.
#[derive(Debug)]
pub(super) struct Search {
    /// Where bytes of each hash were seen last: 0, where no match begins, for nowhere.
    seen: Box<[u16; 1 << HASH_BITS]>,
    /// The largest distance.
    window: usize,
}

const HASH_BITS: u32 = 12;

/// Bytes that are copied at once.
pub(super) const BLOCK: usize = 16;

impl Search {
    pub(super) fn new(window: usize) -> Self {
        Self { seen: Box::new([0; 1 << HASH_BITS]), window }
    }

    /// Forgets the page before.
    pub(super) fn start(&mut self) {
        self.seen.fill(0);
    }

    /// The first match from `taken` on that one look at each position finds. `HASHED` bytes are compared: shorter matches
    /// save little, and every match costs a few mispredicted branches. After every `PATIENCE` bytes without one, the search
    /// goes on with longer steps.
    #[inline(always)]
    pub(super) fn next<const HASHED: u32, const PATIENCE: usize>(
        &mut self,
        page: &[u8],
        taken: usize,
    ) -> Option<Match> {
        // So that whole blocks can be copied and compared.
        let end = page.len().saturating_sub(BLOCK);
        if (2..end).contains(&taken) {
            // Where the last match ended: what comes next has often come after the same bytes.
            self.seen[hash::<HASHED>(load(page, taken - 2))] = (taken - 2) as u16;
        }
        let mut first = taken.max(1);
        // Two looks a step cost less, and find more, than one look a step half as long.
        while first + 1 < end {
            for at in [first, first + 1] {
                let bytes = load(page, at);
                let seen = &mut self.seen[hash::<HASHED>(bytes)];
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
}

pub(super) struct Match {
    pub(super) bytes: Range<usize>,
    pub(super) distance: u16,
}

impl Match {
    /// Parts a length into those of matches that DEFLATE has.
    #[inline(always)]
    pub(super) fn parts(mut length: usize, mut part: impl FnMut(u16)) {
        while length > LONGEST {
            // What is left must be a match, too.
            let these = LONGEST.min(length - SHORTEST);
            part(these as u16);
            length -= these;
        }
        part(length as u16);
    }
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
fn hash<const HASHED: u32>(bytes: u64) -> usize {
    // Any odd factor with its bits well mixed will do; this one is 2^64 over the golden ratio.
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    ((bytes << (64 - 8 * HASHED)).wrapping_mul(FACTOR) >> (64 - HASH_BITS)) as usize
}
