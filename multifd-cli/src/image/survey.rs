//! A survey of a stored VM's RAM.

use multifd::core::ram::Ram;
use sha2::{Digest, Sha256};

use super::manifest::Block;
use super::read::Image;
use super::write::{for_each_chunk, hexadecimal};
use crate::cancel::Interrupt;
use crate::failure::Failure;
use crate::page::is_zero;
use crate::progress::Bar;

/// A RAM block of a VM that is stored.
#[derive(Clone, Debug)]
pub(crate) struct BlockSurvey {
    pub(crate) name: String,
    pub(crate) bytes: u64,
    pub(crate) pages: u64,
    pub(crate) zero_pages: u64,
    /// Of a VM image.
    pub(crate) file: Option<BlockFile>,
}

/// A RAM block's file in a VM image.
#[derive(Clone, Debug)]
pub(crate) struct BlockFile {
    pub(crate) name: String,
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
        survey(&self.ram, Some(&self.blocks), interrupt, bar)
    }
}

/// Reads all of the RAM, whose files are `listed` where they have a SHA-256.
pub(crate) fn survey(
    ram: &Ram,
    listed: Option<&[Block]>,
    interrupt: &Interrupt,
    bar: &Bar,
) -> Result<Vec<BlockSurvey>, Failure> {
    let page_bytes = ram.page_size().bytes();
    let blocks = ram.blocks().iter().enumerate().map(|(index, block)| {
        let listed = listed.map(|listed| &listed[index]);
        let (mut hash, mut zero_pages) = (Sha256::new(), 0);
        for_each_chunk(block, interrupt, |_, chunk| {
            if listed.is_some() {
                hash.update(chunk);
            }
            zero_pages += chunk.chunks(page_bytes).filter(|page| is_zero(page)).count();
            bar.add(chunk.len() as u64);
            Ok(())
        })?;
        let sha256 = hexadecimal(hash.finalize());
        Ok(BlockSurvey {
            name: block.name().to_string(),
            bytes: block.bytes(),
            pages: block.bytes() / page_bytes as u64,
            zero_pages: zero_pages as u64,
            file: listed.map(|listed| BlockFile {
                name: listed.file.clone(),
                is_intact: sha256.eq_ignore_ascii_case(&listed.sha256),
            }),
        })
    });
    blocks.collect()
}
