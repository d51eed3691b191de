//! The encoder.
//!
//! A page is small, so what an encoder does once for a block costs as much here as what it does for every byte. Each
//! step takes nearly the best result in a fraction of the time: matches from one probe of a hash table
//! ([`search`]); then, at level [`Strong`](Level::Strong), a Huffman code of the page's own from rounded logarithms
//! ([`code`]), and code lengths that go out in a code that is the same for every page ([`header`]); at level
//! [`Fast`](Level::Fast), one of a few codes that are made already ([`shared`]), in one pass ([`fast`]); at level
//! [`Balanced`](Level::Balanced), one or the other, by a sample of the page ([`sample`]). What comes out depends on the page
//! alone.

pub(crate) mod bits;
mod block;
mod code;
mod fast;
mod header;
mod matches;
mod sample;
mod search;
mod shared;

use std::fmt;
use std::str::FromStr;

use block::Block;
use fast::Fast;
use matches::Matches;
use shared::SharedCode;

/// How much is done for a shorter stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Level {
    /// One pass over the page, in one of a few codes that were made for what is often in memory.
    Fast,
    /// As [`Strong`](Self::Strong) those pages whose own codes look a good deal shorter, the others as [`Fast`](Self::Fast).
    Balanced,
    /// Codes of the page's own.
    #[default]
    Strong,
}

impl Level {
    /// Every level, the faster first.
    pub const ALL: [Self; 3] = [Self::Fast, Self::Balanced, Self::Strong];

    /// The level's name, in small letters.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fast => "fast",
            Self::Balanced => "balanced",
            Self::Strong => "strong",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Level {
    type Err = UnknownLevel;

    fn from_str(text: &str) -> Result<Self, UnknownLevel> {
        let level = Self::ALL.into_iter().find(|level| level.name() == text);
        level.ok_or_else(|| UnknownLevel(text.to_owned()))
    }
}

/// A text that is not the name of a [`Level`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not one of fast, balanced and strong")]
pub struct UnknownLevel(String);

/// Compresses pages of memory, each into a stream of its own.
///
/// What it makes of a page depends on the page alone.
#[derive(Debug)]
pub struct Encoder {
    kind: Kind,
    page_bytes: usize,
}

#[derive(Debug)]
enum Kind {
    Fast(Fast),
    Balanced(Fast, Strong),
    Strong(Strong),
}

#[derive(Debug)]
struct Strong {
    matches: Matches,
    block: Box<Block>,
}

impl Encoder {
    /// For pages of up to `page_bytes`, with matches of up to `window` bytes back, at level [`Strong`](Level::Strong).
    ///
    /// # Panics
    /// Where `page_bytes` is above 64 KiB, or `window` above [`LARGEST_WINDOW`](crate::LARGEST_WINDOW).
    pub fn new(page_bytes: usize, window: usize) -> Self {
        Self::with_level(Level::Strong, page_bytes, window)
    }

    /// The same at another level.
    ///
    /// # Panics
    /// As [`new`](Self::new).
    pub fn with_level(level: Level, page_bytes: usize, window: usize) -> Self {
        assert!(page_bytes <= 1 << 16, "a page of {page_bytes} bytes");
        assert!(window <= crate::LARGEST_WINDOW, "a window of {window} bytes");
        let kind = match level {
            Level::Fast => Kind::Fast(Fast::new(page_bytes, window)),
            Level::Balanced => {
                Kind::Balanced(Fast::new(page_bytes, window), Strong::new(page_bytes, window))
            }
            Level::Strong => Kind::Strong(Strong::new(page_bytes, window)),
        };
        Self { kind, page_bytes }
    }

    /// Compresses `page` into `stream`. Returns the bytes written; `None` where they do not fit, or, below level
    /// [`Strong`](Level::Strong), where the page does not look as if it got shorter.
    ///
    /// # Panics
    /// Where the page is longer than the encoder is made for.
    pub fn encode(&mut self, page: &[u8], stream: &mut [u8]) -> Option<usize> {
        let bytes = page.len();
        assert!(bytes <= self.page_bytes, "a page of {bytes} bytes");
        match &mut self.kind {
            Kind::Fast(fast) => fast.encode(page, stream),
            Kind::Balanced(fast, strong) => {
                let (code, bits) = SharedCode::choose(page);
                // The sample's own code flatters: it fits the sample better than the page's code would, which costs a
                // header as well. Hence 7 to 5, which was tried out.
                if bits * 5 > sample::bits_in_their_own_code(page) * 7 {
                    strong.encode(page, stream)
                } else {
                    fast.encode_in((code, bits), page, stream)
                }
            }
            Kind::Strong(strong) => strong.encode(page, stream),
        }
    }
}

impl Strong {
    fn new(page_bytes: usize, window: usize) -> Self {
        let block = Box::new(Block::new(page_bytes));
        Self { matches: Matches::new(page_bytes, window), block }
    }

    fn encode(&mut self, page: &[u8], stream: &mut [u8]) -> Option<usize> {
        self.matches.find(page);
        self.block.write(&self.matches, stream)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `None` where the page does not get shorter.
    fn stream(level: Level, page: &[u8]) -> Option<Vec<u8>> {
        let mut stream = vec![0; page.len()];
        let bytes = Encoder::with_level(level, page.len(), 4096).encode(page, &mut stream)?;
        stream.truncate(bytes);
        Some(stream)
    }

    #[test]
    fn the_balanced_level_makes_codes_where_they_save_much() {
        let noise = crate::noise(4096);
        let rare: Vec<_> =
            noise.iter().map(|byte| [0x9e, 0xb3, 0xc5, 0xd1][usize::from(byte % 4)]).collect();
        assert_eq!(stream(Level::Balanced, &rare), stream(Level::Strong, &rare));
        let text = b"eeetttaaooiinnsshhrrddllucmf     ";
        let usual: Vec<_> =
            noise.iter().map(|&byte| text[usize::from(byte) % text.len()]).collect();
        assert_eq!(stream(Level::Balanced, &usual), stream(Level::Fast, &usual));
        for page in [rare, usual] {
            assert_ne!(stream(Level::Strong, &page), stream(Level::Fast, &page));
        }
    }
}
