//! The memory that is measured with.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use multifd_core::ram::{GuestPages, NormalPages, PageMemory, RamBlock};
use multifd_core::vm_memory::MmapRegion;
use multifd_core::wire::BlockName;
use multifd_core::{PACKET_BYTES, PageSize};

use multifd_conformance::made_up;

/// The size of a page.
pub const PAGE_SIZE: PageSize = PageSize::Kib4;

/// Bytes in a page.
pub const PAGE_BYTES: usize = PAGE_SIZE.bytes();

/// Pages in a whole packet.
pub const PACKET_PAGES: usize = PAGE_SIZE.page_count();

/// A guest's memory, twice: as a RAM block, and as plain bytes for the bare libraries.
#[derive(Debug)]
pub struct Guest {
    origin: String,
    bytes: Vec<u8>,
    block: Arc<RamBlock>,
    normal: Vec<u64>,
    zero: Vec<u64>,
    /// The private copies of each full packet.
    private: Vec<PageMemory>,
}

/// Whole pages of a guest that make one full packet, none of them zero.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// The pages in guest memory.
    pub guest: GuestPages<'a>,
    /// Their private copies, one behind the other.
    pub private: &'a [u8],
    memory: &'a PageMemory,
}

impl<'a> Packet<'a> {
    /// The pages as a codec gets them.
    pub fn normal_pages(&self) -> NormalPages<'a> {
        NormalPages::new(self.guest, Some(self.memory))
    }
}

impl Guest {
    /// The image that `MULTIFD_GUEST_RAM` names, or `target/guest-ram/guest.ram` of this
    /// repository, or made-up memory.
    ///
    /// # Panics
    /// Where the image that `MULTIFD_GUEST_RAM` names cannot be read.
    pub fn load() -> Self {
        if let Some(path) = std::env::var_os("MULTIFD_GUEST_RAM") {
            let path = PathBuf::from(path);
            let bytes = std::fs::read(&path).expect("MULTIFD_GUEST_RAM names a readable file");
            return Self::new(path.display().to_string(), bytes);
        }
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/guest-ram/guest.ram");
        match std::fs::read(&path) {
            Ok(bytes) => Self::new("the image of scripts/guest-ram".to_owned(), bytes),
            Err(_) => Self::new("made-up memory".to_owned(), made_up_memory()),
        }
    }

    /// Memory of `bytes`, up to the last whole page, which come from `origin`.
    pub fn new(origin: String, mut bytes: Vec<u8>) -> Self {
        bytes.truncate(bytes.len() / PAGE_BYTES * PAGE_BYTES);
        let block = Arc::new(new_block(bytes.len()));
        block.write(0, &bytes);
        let mut guest = Self {
            origin,
            bytes,
            block,
            normal: Vec::new(),
            zero: Vec::new(),
            private: Vec::new(),
        };
        for (index, page) in guest.bytes.chunks_exact(PAGE_BYTES).enumerate() {
            let offset = (index * PAGE_BYTES) as u64;
            if page.iter().all(|&byte| byte == 0) {
                guest.zero.push(offset);
            } else {
                guest.normal.push(offset);
            }
        }
        for offsets in guest.normal.chunks_exact(PACKET_PAGES) {
            let mut private = PageMemory::new(PACKET_BYTES);
            for (page, &offset) in
                private.get_mut_or_new().chunks_exact_mut(PAGE_BYTES).zip(offsets)
            {
                page.copy_from_slice(&guest.bytes[offset as usize..][..PAGE_BYTES]);
            }
            guest.private.push(private);
        }
        guest
    }

    /// Where the memory comes from, for people.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// The memory as plain bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The memory as a RAM block.
    pub fn block(&self) -> &Arc<RamBlock> {
        &self.block
    }

    /// The offsets of the pages that are not zero.
    pub fn normal(&self) -> &[u64] {
        &self.normal
    }

    /// The offsets of the zero pages.
    pub fn zero(&self) -> &[u64] {
        &self.zero
    }

    /// All full packets that the non-zero pages make.
    pub fn packets(&self) -> Vec<Packet<'_>> {
        let packets = self.normal.chunks_exact(PACKET_PAGES).zip(&self.private);
        let packets = packets.map(|(offsets, memory)| Packet {
            guest: pages(&self.block, offsets),
            private: memory.as_slice(),
            memory,
        });
        packets.collect()
    }

    /// As many of the [`packets`](Self::packets), from all over the memory.
    pub fn sample(&self, count: usize) -> Vec<Packet<'_>> {
        let packets = self.packets();
        let step = (packets.len() / count).max(1);
        packets.into_iter().step_by(step).take(count).collect()
    }
}

/// 256 MiB of memory for where there is no guest's.
fn made_up_memory() -> Vec<u8> {
    let mut memory = vec![0; 256 << 20];
    for (page, index) in memory.chunks_exact_mut(PAGE_BYTES).zip(0..) {
        made_up::fill(page, 1, index);
    }
    memory
}

/// A block as large as a guest's, every page of it in place, as a destination's in a later round.
pub(crate) fn new_block(bytes: usize) -> RamBlock {
    let memory = MmapRegion::<()>::new(bytes).expect("there is memory for the guest");
    let block = RamBlock::new(BlockName::new("pc.ram").expect("a valid name"), memory);
    let page = [0xa5; PAGE_BYTES];
    (0..bytes).step_by(PAGE_BYTES).for_each(|offset| block.write(offset as u64, &page));
    block
}

pub(crate) fn pages<'a>(block: &'a RamBlock, offsets: &'a [u64]) -> GuestPages<'a> {
    GuestPages::new(block, PAGE_SIZE, offsets).expect("the offsets are those of pages")
}
