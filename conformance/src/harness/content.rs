//! What guest memory holds, made up from a seed.

/// Numbers from a seed: the same on every machine and in every run (`SplitMix64`).
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        (self.number() % limit as u64) as usize
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.fill(&mut bytes);
        bytes
    }

    fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.number().to_le_bytes()[..chunk.len()]);
        }
    }

    /// The same things in another order.
    pub(crate) fn shuffle<T>(&mut self, things: &mut [T]) {
        for last in (1..things.len()).rev() {
            things.swap(last, self.below(last + 1));
        }
    }
}

/// A kind of content that guest memory has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    Zero,
    Text,
    /// A table of addresses that lie close together.
    Pointers,
    /// Encrypted or already compressed data.
    Noise,
    /// One byte over and over, not zero.
    Fill,
    /// Zeros, but for the very last byte.
    LastByte,
}

const WORDS: [&str; 12] = [
    "the ", "kernel ", "page ", "of ", "memory ", "0x7f", "\n", "device ", "is ", "a ", "bus ",
    "at ",
];

impl Content {
    pub(crate) const ALL: [Self; 6] =
        [Self::Zero, Self::Text, Self::Pointers, Self::Noise, Self::Fill, Self::LastByte];

    /// Fills `page`, which is zero.
    pub(crate) fn write(self, random: &mut Random, page: &mut [u8]) {
        match self {
            Self::Zero => {}
            Self::Noise => random.fill(page),
            Self::Fill => page.fill(1 + random.below(255) as u8),
            Self::LastByte => page[page.len() - 1] = 1 + random.below(255) as u8,
            Self::Pointers => {
                let base = 0xffff_8880_0000_0000 | (random.number() & 0xffff_f000);
                for word in page.chunks_exact_mut(8) {
                    let pointer = base + (random.number() & 0xfff8);
                    word.copy_from_slice(&pointer.to_le_bytes());
                }
            }
            Self::Text => {
                let mut at = 0;
                while at < page.len() {
                    let word = WORDS[random.below(WORDS.len())].as_bytes();
                    let len = word.len().min(page.len() - at);
                    page[at..at + len].copy_from_slice(&word[..len]);
                    at += len;
                }
            }
        }
    }

    /// `pages` pages of this kind, none like the other where the kind allows it.
    pub(crate) fn pages(self, seed: u64, pages: usize, page_bytes: usize) -> Vec<u8> {
        let mut random = Random::new(seed);
        let mut memory = vec![0; pages * page_bytes];
        for page in memory.chunks_exact_mut(page_bytes) {
            self.write(&mut random, page);
        }
        memory
    }
}

/// `pages` pages of every kind, in no order.
pub(crate) fn mixed(seed: u64, pages: usize, page_bytes: usize) -> Vec<u8> {
    let mut random = Random::new(seed);
    let mut memory = vec![0; pages * page_bytes];
    let mut kinds: Vec<_> = Content::ALL.into_iter().cycle().take(pages).collect();
    random.shuffle(&mut kinds);
    for (page, kind) in memory.chunks_exact_mut(page_bytes).zip(kinds) {
        kind.write(&mut random, page);
    }
    memory
}
