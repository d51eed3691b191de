//! The path that needs no libqpl: a DEFLATE encoder for pages.
//!
//! A page is small, so what an encoder does once for a block costs as much here as what it does for
//! every byte. Each step takes nearly the best result in a fraction of the time: matches from one
//! probe of a hash table ([`mod@matches`]), a Huffman code from rounded logarithms ([`code`]), and code
//! lengths that go out in a code that is the same for every page ([`header`]). What comes out
//! depends on the page alone.

mod bits;
mod block;
mod code;
mod header;
mod matches;
mod symbols;

use multifd_core::ChannelConfig;

use block::Block;
use matches::Matches;

/// Compresses pages of one size.
#[derive(Debug)]
pub(crate) struct Compressor {
    matches: Matches,
    block: Box<Block>,
}

impl Compressor {
    pub(crate) fn new(config: &ChannelConfig) -> Self {
        let page_bytes = config.page_size.bytes();
        Self { matches: Matches::new(page_bytes), block: Box::new(Block::new(page_bytes)) }
    }

    /// Compresses `page` into `chunk`, which is no longer. Returns the bytes written; `None` where
    /// they do not fit.
    pub(crate) fn compress(&mut self, page: &[u8], chunk: &mut [u8]) -> Option<usize> {
        self.matches.find(page);
        self.block.write(&self.matches, chunk)
    }
}
