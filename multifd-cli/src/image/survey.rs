//! A survey of an image's RAM.

use sha2::{Digest, Sha256};

use super::read::Image;
use super::write::{for_each_chunk, hexadecimal};
use crate::cancel::Interrupt;
use crate::failure::Failure;
use crate::page::is_zero;
use crate::progress::Bar;

/// A RAM block of an image.
#[derive(Clone, Debug)]
pub(crate) struct BlockSurvey {
    pub(crate) name: String,
    pub(crate) file: String,
    pub(crate) bytes: u64,
    pub(crate) pages: u64,
    pub(crate) zero_pages: u64,
    /// Whether its SHA-256 is the manifest's.
    pub(crate) is_intact: bool,
}

impl Image {
    /// Reads all of the RAM.
    pub(crate) fn survey(
        &self,
        interrupt: &Interrupt,
        bar: &Bar,
    ) -> Result<Vec<BlockSurvey>, Failure> {
        let page_bytes = self.ram.page_size().bytes();
        let blocks = self.ram.blocks().iter().zip(&self.blocks).map(|(block, listed)| {
            let (mut hash, mut zero_pages) = (Sha256::new(), 0);
            for_each_chunk(block, interrupt, |_, chunk| {
                hash.update(chunk);
                let pages = chunk.chunks(page_bytes);
                zero_pages += pages.filter(|page| is_zero(page)).count();
                bar.add(chunk.len() as u64);
                Ok(())
            })?;
            Ok(BlockSurvey {
                name: listed.name.clone(),
                file: listed.file.clone(),
                bytes: block.bytes(),
                pages: block.bytes() / page_bytes as u64,
                zero_pages: zero_pages as u64,
                is_intact: hexadecimal(hash.finalize()).eq_ignore_ascii_case(&listed.sha256),
            })
        });
        blocks.collect()
    }
}
