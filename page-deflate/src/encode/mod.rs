//! The encoder.
//!
//! A page is small, so what an encoder does once for a block costs as much here as what it does for
//! every byte. Each step takes nearly the best result in a fraction of the time: matches from one
//! probe of a hash table ([`mod@matches`]), a Huffman code from rounded logarithms ([`code`]), and code
//! lengths that go out in a code that is the same for every page ([`header`]). What comes out
//! depends on the page alone.

pub(crate) mod bits;
mod block;
mod code;
mod header;
mod matches;

use block::Block;
use matches::Matches;

/// Compresses pages of memory, each into a stream of its own.
///
/// What it makes of a page depends on the page alone.
#[derive(Debug)]
pub struct Encoder {
    matches: Matches,
    block: Box<Block>,
}

impl Encoder {
    /// For pages of up to `page_bytes`, with matches of up to `window` bytes back.
    ///
    /// # Panics
    /// Where `page_bytes` is above 64 KiB, or `window` above [`LARGEST_WINDOW`](crate::LARGEST_WINDOW).
    pub fn new(page_bytes: usize, window: usize) -> Self {
        assert!(page_bytes <= 1 << 16, "a page of {page_bytes} bytes");
        assert!(window <= crate::LARGEST_WINDOW, "a window of {window} bytes");
        Self { matches: Matches::new(page_bytes, window), block: Box::new(Block::new(page_bytes)) }
    }

    /// Compresses `page` into `stream`. Returns the bytes written; `None` where they do not fit.
    ///
    /// # Panics
    /// Where the page is longer than the encoder is made for.
    pub fn encode(&mut self, page: &[u8], stream: &mut [u8]) -> Option<usize> {
        self.matches.find(page);
        self.block.write(&self.matches, stream)
    }
}
