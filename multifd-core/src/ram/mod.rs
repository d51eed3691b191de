//! Guest memory: RAM blocks on `vm-memory`, and which of their pages have arrived.
//!
//! No safe function here ever hands out a `&[u8]` to guest memory: the guest, or another channel,
//! may write it at any time.

mod block;
mod copy;
mod digest;
mod huge_pages;
mod memory;
mod pages;
mod sent;
mod slices;
mod sparse;

use std::sync::Arc;

pub(crate) use block::ZEROS;
pub use block::{BlockMemory, RamBlock};
pub use copy::{copy_unless_zero, is_zero};
pub use digest::{BlockDigest, MalformedDigest, PageHashes, RamDigests};
pub use memory::PageMemory;
pub use pages::{GuestPages, NormalPages, PageBatch};
pub use sent::SentPages;
pub use slices::GuestSlices;

use crate::error::{PeerError, UsageError};
use crate::page_size::PageSize;
use crate::wire::Pages;

/// The RAM of a VM: its blocks, in the order in which they are migrated.
#[derive(Clone, Debug)]
pub struct Ram {
    page_size: PageSize,
    blocks: Vec<Arc<RamBlock>>,
}

impl Ram {
    /// RAM made of `blocks`, migrated in pages of `page_size`.
    ///
    /// # Errors
    /// Two blocks with one name, and a block that is not a whole number of pages.
    pub fn new(
        page_size: PageSize,
        blocks: impl IntoIterator<Item = RamBlock>,
    ) -> Result<Self, UsageError> {
        let mut ram = Self { page_size, blocks: Vec::new() };
        for block in blocks {
            if block.bytes() == 0 || !page_size.is_aligned(block.bytes()) {
                let (name, bytes) = (block.name().clone(), block.bytes());
                return Err(UsageError::BlockSize { name, bytes, page_size });
            }
            if ram.block(block.name().as_str()).is_some() {
                return Err(UsageError::BlockTwice { name: block.name().clone() });
            }
            ram.blocks.push(Arc::new(block));
        }
        Ok(ram)
    }

    /// The size of a page.
    pub fn page_size(&self) -> PageSize {
        self.page_size
    }

    /// The blocks, in the order given.
    pub fn blocks(&self) -> &[Arc<RamBlock>] {
        &self.blocks
    }

    /// Bytes in all blocks.
    pub fn bytes(&self) -> u64 {
        self.blocks.iter().map(|block| block.bytes()).sum()
    }

    /// Pages that have not been received.
    pub fn missing_pages(&self) -> u64 {
        let missing = |block: &Arc<RamBlock>| {
            block.bytes() / self.page_size.bytes() as u64 - block.received_pages(self.page_size)
        };
        self.blocks.iter().map(missing).sum()
    }

    /// The block called `name`.
    pub fn block(&self, name: &str) -> Option<&Arc<RamBlock>> {
        self.blocks.iter().find(|block| block.name().as_str() == name)
    }

    /// Finds the pages of a packet in memory: the normal ones, and the zero ones. `offsets` is
    /// scratch space.
    ///
    /// # Errors
    /// A block that does not exist, and a page past its block's end.
    pub fn pages<'a>(
        &'a self,
        packet: &Pages<'_>,
        offsets: &'a mut Vec<u64>,
    ) -> Result<[GuestPages<'a>; 2], PeerError> {
        let block = self
            .block(packet.block)
            .ok_or_else(|| PeerError::UnknownBlock { name: packet.block.to_owned() })?;
        offsets.clear();
        offsets.extend(packet.normal.iter().chain(packet.zero).map(|offset| offset.get()));
        let (normal, zero) = offsets.split_at(packet.normal.len());
        let find = |offsets| {
            GuestPages::find(block, self.page_size, offsets).map_err(|offset| {
                let (block, bytes) = (block.name().clone(), block.bytes());
                PeerError::OffsetPastEnd { offset, block, bytes }
            })
        };
        Ok([find(normal)?, find(zero)?])
    }
}
