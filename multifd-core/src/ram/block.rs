//! One RAM block.

use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::mm::{Advice, madvise};
use vm_memory::bitmap::Bitmap;
use vm_memory::{GuestRegionMmap, MmapRegion, VolatileMemory, VolatileSlice};

use super::huge_pages::HugePages;
use super::sparse;
use crate::page_size::PageSize;
use crate::wire::BlockName;

/// The memory behind a RAM block.
///
/// Implemented for the mapped regions of `vm-memory`, with any dirty bitmap. A VMM whose block
/// lies in several regions (as PC RAM does around the PCI hole) implements it for a type of its
/// own that finds the region of an offset; pages never straddle one, as long as regions are whole
/// pages.
pub trait BlockMemory: Debug + Send + Sync {
    /// Length in bytes.
    fn bytes(&self) -> u64;

    /// The `len` bytes at `offset`; `None` where they are not all in this memory.
    fn slice(&self, offset: usize, len: usize) -> Option<VolatileSlice<'_>>;

    /// Notes that the `len` bytes at `offset` have been written through a [`slice`](Self::slice).
    /// Memory without dirty tracking ignores it.
    fn mark_dirty(&self, offset: usize, len: usize) {
        _ = (offset, len);
    }

    /// The parts that may hold anything but zeros, in ascending order and apart from each other, as
    /// ranges of offsets in bytes: what is outside of them was zero at some moment of the call. `None`
    /// where that is not known without reading the memory.
    ///
    /// Mapped regions know the holes of a memfd or file that is mapped shared, and, from Linux 6.7
    /// on, private anonymous memory that nobody has written. Memory that a userfaultfd fills in is
    /// not known.
    fn data(&self) -> Option<Vec<Range<u64>>> {
        None
    }
}

impl<B: Bitmap + Debug + Send + Sync> BlockMemory for MmapRegion<B> {
    fn bytes(&self) -> u64 {
        self.size() as u64
    }

    fn slice(&self, offset: usize, len: usize) -> Option<VolatileSlice<'_>> {
        let slice = self.get_slice(offset, len).ok()?;
        // SAFETY: the region just vouched for these `len` bytes, which stay mapped while `self`
        // is borrowed; this only leaves out the dirty bitmap, which `mark_dirty` serves.
        Some(unsafe { VolatileSlice::new(slice.ptr_guard_mut().as_ptr(), slice.len()) })
    }

    fn mark_dirty(&self, offset: usize, len: usize) {
        self.bitmap().mark_dirty(offset, len);
    }

    fn data(&self) -> Option<Vec<Range<u64>>> {
        sparse::data(self.as_ptr() as usize, self.size() as u64, self.file_offset())
    }
}

impl<B: Bitmap + Debug + Send + Sync> BlockMemory for GuestRegionMmap<B> {
    fn bytes(&self) -> u64 {
        BlockMemory::bytes(&**self)
    }

    fn slice(&self, offset: usize, len: usize) -> Option<VolatileSlice<'_>> {
        BlockMemory::slice(&**self, offset, len)
    }

    fn mark_dirty(&self, offset: usize, len: usize) {
        BlockMemory::mark_dirty(&**self, offset, len);
    }

    fn data(&self) -> Option<Vec<Range<u64>>> {
        BlockMemory::data(&**self)
    }
}

impl<M: BlockMemory + ?Sized> BlockMemory for Arc<M> {
    fn bytes(&self) -> u64 {
        (**self).bytes()
    }

    fn slice(&self, offset: usize, len: usize) -> Option<VolatileSlice<'_>> {
        (**self).slice(offset, len)
    }

    fn mark_dirty(&self, offset: usize, len: usize) {
        (**self).mark_dirty(offset, len);
    }

    fn data(&self) -> Option<Vec<Range<u64>>> {
        (**self).data()
    }
}

/// A named piece of guest memory, migrated as a whole, with a bitmap of the pages that have been
/// received.
#[derive(Debug)]
pub struct RamBlock {
    name: BlockName,
    memory: Box<dyn BlockMemory>,
    fresh: AtomicBool,
    huge_pages: Option<HugePages>,
    /// A bit for each page of the smallest size.
    received: Box<[AtomicU64]>,
}

/// The unit of the received bitmap: the smallest page.
const UNIT: u64 = PageSize::Kib4.bytes() as u64;

/// What a zero page is written from.
pub(crate) static ZEROS: [u8; PageSize::Kib64.bytes()] = [0; PageSize::Kib64.bytes()];

impl RamBlock {
    /// A block called `name` in `memory`, which may hold anything. A VMM shares a region
    /// of its guest memory by [`GuestRegionMmap::get_mmap`].
    pub fn new(name: BlockName, memory: impl BlockMemory + 'static) -> Self {
        let words = memory.bytes().div_ceil(UNIT).div_ceil(64);
        let received = (0..words).map(|_| AtomicU64::new(0)).collect();
        let fresh = AtomicBool::new(false);
        Self { name, memory: Box::new(memory), fresh, huge_pages: None, received }
    }

    /// The same block, known to read as zeros until it is first written, as new anonymous memory
    /// or a new sparse file do. A page that first arrives as zero is then left untouched.
    #[must_use]
    pub fn fresh(self) -> Self {
        Self { fresh: AtomicBool::new(true), ..self }
    }

    /// Has zero pages written from now on even where they first arrive in memory that is
    /// [fresh](Self::fresh), as for a source that may switch to postcopy: there a page that was never
    /// written is one that has not come.
    pub fn write_zero_pages(&self) {
        self.fresh.store(false, Ordering::Release);
    }

    /// The same block, whose memory the system is asked to make of huge pages, as QEMU asks for its
    /// guests' RAM. Pages that arrive then hardly ever fault; but the first that is written in 2 MiB
    /// takes all of these. Channels that receive pages of the same 2 MiB have one of them ask for the memory, and
    /// wait for it. Nothing changes where the system has no huge pages, or the block lies in
    /// several regions.
    #[must_use]
    pub fn with_huge_pages(mut self) -> Self {
        let bytes = usize::try_from(self.bytes()).ok();
        if let Some(all) = bytes.and_then(|bytes| self.memory.slice(0, bytes)) {
            let guard = all.ptr_guard_mut();
            // SAFETY: the bytes are mapped while the memory is borrowed. The advice changes by which
            // pages the kernel backs them, never what they hold or who may access them.
            let advised =
                unsafe { madvise(guard.as_ptr().cast(), guard.len(), Advice::LinuxHugepage) };
            // A kernel without huge pages refuses; the block then works without.
            if advised.is_ok() {
                self.huge_pages = Some(HugePages::new(guard.as_ptr().addr(), self.bytes()));
            }
        }
        self
    }

    /// Has memory made for the page of `page_bytes` bytes at `offset`, which is going to be written, where several
    /// threads would do so at once: that of the huge page in which it begins.
    ///
    /// # Panics
    /// With a page outside the block, where it is the first in its huge page.
    pub(crate) fn make_memory(&self, offset: u64, page_bytes: usize) {
        if let Some(huge_pages) = &self.huge_pages {
            huge_pages.make(offset, || self.slice(offset, page_bytes));
        }
    }

    /// The block's name.
    pub fn name(&self) -> &BlockName {
        &self.name
    }

    /// Length in bytes.
    pub fn bytes(&self) -> u64 {
        self.memory.bytes()
    }

    /// The memory behind the block.
    pub fn memory(&self) -> &dyn BlockMemory {
        &*self.memory
    }

    /// Whether the page at `offset` (in bytes) has been received.
    pub fn is_received(&self, offset: u64) -> bool {
        let (word, mask) = Self::bit(offset);
        self.received.get(word).is_some_and(|word| word.load(Ordering::Acquire) & mask != 0)
    }

    /// Pages of `page_size` that have been received.
    pub fn received_pages(&self, page_size: PageSize) -> u64 {
        let step = page_size.bytes();
        (0..self.bytes()).step_by(step).filter(|&offset| self.is_received(offset)).count() as u64
    }

    /// Notes that the page at `offset` has been received. Returns whether it had been before.
    pub fn mark_received(&self, offset: u64) -> bool {
        let (word, mask) = Self::bit(offset);
        let Some(word) = self.received.get(word) else { return false };
        // The common case, a page of a later round, needs no write to a shared cache line.
        word.load(Ordering::Acquire) & mask != 0
            || word.fetch_or(mask, Ordering::AcqRel) & mask != 0
    }

    /// Takes in the page of `page_bytes` bytes at `offset` as all zero: writes it, unless it is
    /// known to be zero already.
    ///
    /// # Panics
    /// With a page outside the block.
    pub fn receive_zero(&self, offset: u64, page_bytes: usize) {
        let received = self.mark_received(offset);
        if received || !self.fresh.load(Ordering::Acquire) {
            self.write(offset, &ZEROS[..page_bytes]);
        }
    }

    /// Writes `bytes` at `offset`.
    ///
    /// # Panics
    /// Where they are not all inside the block.
    pub fn write(&self, offset: u64, bytes: &[u8]) {
        self.slice(offset, bytes.len()).copy_from(bytes);
        self.memory.mark_dirty(offset as usize, bytes.len());
    }

    /// The `len` bytes at `offset`.
    ///
    /// # Panics
    /// Where they are not all inside the block.
    pub fn slice(&self, offset: u64, len: usize) -> VolatileSlice<'_> {
        usize::try_from(offset)
            .ok()
            .and_then(|offset| self.memory.slice(offset, len))
            .filter(|slice| slice.len() == len)
            .expect("the bytes are inside the block")
    }

    fn bit(offset: u64) -> (usize, u64) {
        let unit = offset / UNIT;
        (usize::try_from(unit / 64).unwrap_or(usize::MAX), 1 << (unit % 64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block() -> RamBlock {
        let memory = MmapRegion::<()>::new(0x4000).unwrap();
        let block = RamBlock::new(BlockName::new("pc.ram").unwrap(), memory);
        block.write(0x1000, &[7; 0x1000]);
        block
    }

    fn first_byte(block: &RamBlock, offset: u64) -> u8 {
        let mut byte = [0];
        block.slice(offset, 1).copy_to(&mut byte);
        byte[0]
    }

    #[test]
    fn a_first_zero_page_is_written_unless_the_memory_is_fresh() {
        let stale = block();
        stale.receive_zero(0x1000, 0x1000);
        assert_eq!(first_byte(&stale, 0x1000), 0);

        let advised = block().fresh();
        advised.write_zero_pages();
        advised.receive_zero(0x1000, 0x1000);
        assert_eq!(first_byte(&advised, 0x1000), 0);

        let fresh = block().fresh();
        fresh.receive_zero(0x1000, 0x1000);
        assert_eq!(first_byte(&fresh, 0x1000), 7, "the page was not touched");
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri has no madvise")]
    fn huge_pages_leave_what_the_memory_holds() {
        let memory = MmapRegion::<()>::new(8 << 20).unwrap();
        let block = RamBlock::new(BlockName::new("pc.ram").unwrap(), memory);
        block.write(3 << 20, &[7]);
        let block = block.with_huge_pages();
        block.write(5 << 20, &[8]);
        assert_eq!([3 << 20, 5 << 20, 0].map(|at| first_byte(&block, at)), [7, 8, 0]);
        let range = format!("{:x}-", block.slice(0, 1).ptr_guard().as_ptr().addr());
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let own = maps.split_once(&range).map(|(_, rest)| rest).unwrap_or_default();
        let flags = own.lines().find(|line| line.starts_with("VmFlags:")).unwrap_or_default();
        // Whether the kernel has huge pages is not known where there is no /sys.
        if std::path::Path::new("/sys/kernel/mm").exists() {
            let supported = std::path::Path::new("/sys/kernel/mm/transparent_hugepage").exists();
            assert_eq!(flags.split_whitespace().any(|flag| flag == "hg"), supported, "{flags}");
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri has no madvise")]
    fn memory_is_made_for_a_page_once_and_holds_what_it_held() {
        let memory = MmapRegion::<()>::new(8 << 20).unwrap();
        let block = RamBlock::new(BlockName::new("pc.ram").unwrap(), memory).with_huge_pages();
        block.write(1 << 20, &[7]);
        let pages = [1 << 20, 5 << 20, (8 << 20) - 0x1000];
        std::thread::scope(|threads| {
            for _ in 0..4 {
                threads.spawn(|| pages.map(|page| block.make_memory(page, 0x1000)));
            }
        });
        assert_eq!(pages.map(|page| first_byte(&block, page)), [7, 0, 0]);
        // `None` before Linux 6.7.
        let has = |page| block.memory().data().map(|data| data.iter().any(|it| it.contains(&page)));
        if block.huge_pages.is_some() && has(1 << 20).is_some() {
            assert_eq!(pages.map(has), [Some(true); 3]);
        }
    }

    #[test]
    fn a_zero_page_after_another_arrival_is_written() {
        let block = block().fresh();
        assert!(!block.mark_received(0x1000));
        block.receive_zero(0x1000, 0x1000);
        assert_eq!(first_byte(&block, 0x1000), 0);
    }

    #[test]
    fn the_bitmap_counts_each_page_once() {
        let block = block();
        assert!(!block.mark_received(0x3000));
        assert!(block.mark_received(0x3000));
        assert!(block.is_received(0x3000) && !block.is_received(0x2000));
        assert_eq!(block.received_pages(PageSize::Kib4), 1);
    }
}
