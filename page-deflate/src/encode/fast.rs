//! A page in one pass, in codes that are there already.

use super::bits::Writer;
use super::block::{write_literals, write_match};
use super::sample;
use super::search::{Match, Search};
use super::shared::SharedCode;
use crate::symbols::END;

/// Bytes that the search compares.
pub(super) const HASHED: u32 = 7;

/// After so many bytes without a match, the search goes on with longer steps.
pub(super) const PATIENCE: usize = 10;

/// The search, and the memory that a stream is written to.
#[derive(Debug)]
pub(super) struct Fast {
    search: Search,
    stream: Box<[u8]>,
}

impl Fast {
    /// For pages of up to `page_bytes`.
    pub(super) fn new(page_bytes: usize, window: usize) -> Self {
        // A byte has 11 bits at most, and matches have fewer than the bytes that they are for.
        let most = page_bytes * 11 / 8 + SharedCode::MOST_HEADER + 2 * Writer::MARGIN;
        Self { search: Search::new(window), stream: vec![0; most].into() }
    }

    /// Writes `page` into `stream`. Returns the bytes written; `None` where they do not fit.
    pub(super) fn encode(&mut self, page: &[u8], stream: &mut [u8]) -> Option<usize> {
        self.encode_in(SharedCode::choose(page), page, stream)
    }

    /// The same in the code that was chosen, in which a sample takes so many bits.
    pub(super) fn encode_in(
        &mut self,
        (code, bits): (&SharedCode, u64),
        page: &[u8],
        stream: &mut [u8],
    ) -> Option<usize> {
        self.search.start();
        let mut found = self.search.next::<HASHED, PATIENCE>(page, 0);
        if found.is_none() && sample::is_dense(page, bits) {
            return None;
        }
        let mut writer = code.begin(&mut self.stream);
        let mut taken = 0;
        while let Some(Match { bytes, distance }) = found {
            write_literals(&mut writer, &page[taken..bytes.start], &code.litlen);
            Match::parts(bytes.len(), |length| {
                write_match(&mut writer, length, distance, &code.litlen, &code.distances);
            });
            taken = bytes.end;
            found = self.search.next::<HASHED, PATIENCE>(page, taken);
        }
        write_literals(&mut writer, &page[taken..], &code.litlen);
        writer.push(code.litlen[END]);
        writer.flush();
        let bytes = writer.bits().div_ceil(8);
        stream.get_mut(..bytes)?.copy_from_slice(&self.stream[..bytes]);
        Some(bytes)
    }
}
