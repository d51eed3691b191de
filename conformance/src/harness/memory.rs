//! RAM of one block, with known content.

use std::sync::Arc;

use multifd_core::PageSize;
use multifd_core::ram::{BlockMemory, Ram, RamBlock};
use multifd_core::vm_memory::MmapRegion;
use multifd_core::wire::BlockName;

use super::verdict::{Stop, Verdict};

/// The name of the one block.
pub(crate) const BLOCK: &str = "pc.ram";

/// What destinations are filled with before anything arrives.
pub(crate) const STALE: u8 = 0xa5;

/// RAM that holds `content`, of which the library is to assume nothing.
pub(crate) fn ram(page_size: PageSize, content: &[u8]) -> Verdict<Arc<Ram>> {
    let block = RamBlock::new(name()?, zeros(content.len())?);
    block.write(0, content);
    of_one_block(page_size, block)
}

/// RAM of zeros, known to be fresh.
pub(crate) fn fresh_ram(page_size: PageSize, pages: usize) -> Verdict<Arc<Ram>> {
    let memory = zeros(pages * page_size.bytes())?;
    of_one_block(page_size, RamBlock::new(name()?, memory).fresh())
}

/// RAM on memory of the case's own.
pub(crate) fn ram_on(page_size: PageSize, memory: impl BlockMemory + 'static) -> Verdict<Arc<Ram>> {
    of_one_block(page_size, RamBlock::new(name()?, memory))
}

pub(crate) fn zeros(bytes: usize) -> Verdict<MmapRegion> {
    MmapRegion::new(bytes).map_err(|error| Stop::failed(format!("no memory: {error}")))
}

fn name() -> Verdict<BlockName> {
    BlockName::new(BLOCK).map_err(|error| Stop::failed(error.to_string()))
}

fn of_one_block(page_size: PageSize, block: RamBlock) -> Verdict<Arc<Ram>> {
    let ram = Ram::new(page_size, [block]).map_err(|error| Stop::failed(error.to_string()))?;
    Ok(Arc::new(ram))
}

/// All of the RAM's only block.
pub(crate) fn read(ram: &Ram) -> Vec<u8> {
    let block = &ram.blocks()[0];
    let mut content = vec![0; block.bytes() as usize];
    block.slice(0, content.len()).copy_to(&mut content[..]);
    content
}

/// The page at `offset` of the RAM's only block.
pub(crate) fn page_of(ram: &Ram, offset: u64) -> Vec<u8> {
    let mut page = vec![0; ram.page_size().bytes()];
    ram.blocks()[0].slice(offset, page.len()).copy_to(&mut page[..]);
    page
}

/// The offsets of the pages with the numbers in `pages`.
pub(crate) fn offsets(page_size: PageSize, pages: impl IntoIterator<Item = usize>) -> Vec<u64> {
    pages.into_iter().map(|page| (page * page_size.bytes()) as u64).collect()
}

/// Where two pieces of memory differ first.
pub(crate) fn first_difference(left: &[u8], right: &[u8]) -> Option<usize> {
    if left == right {
        return None;
    }
    let common = left.len().min(right.len());
    (0..common).find(|&at| left[at] != right[at]).or(Some(common))
}
