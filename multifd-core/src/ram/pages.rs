//! Sets of pages of one block.

use std::sync::Arc;

use vm_memory::VolatileSlice;

use super::{PageMemory, RamBlock};
use crate::error::UsageError;
use crate::page_size::PageSize;

/// Pages of one block in guest memory. Every offset is a whole page inside the block.
#[derive(Clone, Copy, Debug)]
pub struct GuestPages<'a> {
    block: &'a RamBlock,
    page_size: PageSize,
    offsets: &'a [u64],
}

impl<'a> GuestPages<'a> {
    /// The pages of `block` at `offsets` (in bytes).
    ///
    /// # Errors
    /// An offset that is not a multiple of the page size or whose page is not all in the block.
    pub fn new(
        block: &'a RamBlock,
        page_size: PageSize,
        offsets: &'a [u64],
    ) -> Result<Self, UsageError> {
        Self::find(block, page_size, offsets)
            .map_err(|offset| UsageError::NoSuchPage { name: block.name().clone(), offset })
    }

    /// As [`new`](Self::new); the error is the first offset that is not a page of the block.
    pub(super) fn find(
        block: &'a RamBlock,
        page_size: PageSize,
        offsets: &'a [u64],
    ) -> Result<Self, u64> {
        let page_bytes = page_size.bytes() as u64;
        let outside = |offset: u64| {
            !page_size.is_aligned(offset)
                || offset.checked_add(page_bytes).is_none_or(|end| end > block.bytes())
        };
        match offsets.iter().find(|&&offset| outside(offset)) {
            Some(&offset) => Err(offset),
            None => Ok(Self { block, page_size, offsets }),
        }
    }

    /// The pages at `offsets`, which have been found in `block` before.
    pub(crate) fn found(block: &'a RamBlock, page_size: PageSize, offsets: &'a [u64]) -> Self {
        Self { block, page_size, offsets }
    }

    /// The block.
    pub fn block(&self) -> &'a RamBlock {
        self.block
    }

    /// The size of a page.
    pub fn page_size(&self) -> PageSize {
        self.page_size
    }

    /// The offset in bytes of each page, in the order of the pages.
    pub fn offsets(&self) -> &'a [u64] {
        self.offsets
    }

    /// Number of pages.
    pub fn len(&self) -> usize {
        self.offsets.len()
    }

    /// Whether there are no pages.
    pub fn is_empty(&self) -> bool {
        self.offsets.is_empty()
    }

    /// Bytes in all pages.
    pub fn bytes(&self) -> usize {
        self.len() * self.page_size.bytes()
    }

    /// The memory of the page with the index `index`.
    ///
    /// # Panics
    /// With an index at or past [`len`](Self::len).
    pub fn slice(&self, index: usize) -> VolatileSlice<'a> {
        self.block.slice(self.offsets[index], self.page_size.bytes())
    }

    /// The memory of each page, in order.
    pub fn slices(&self) -> impl Iterator<Item = VolatileSlice<'a>> + use<'a> {
        let pages = *self;
        (0..pages.len()).map(move |index| pages.slice(index))
    }

    /// Writes the page with the index `index`.
    ///
    /// # Panics
    /// With an index at or past [`len`](Self::len), or with more bytes than a page has.
    pub fn write(&self, index: usize, page: &[u8]) {
        assert!(page.len() <= self.page_size.bytes(), "more bytes than a page has");
        self.block.write(self.offsets[index], page);
    }

    /// Notes that the bytes in `range`, counted over all pages, have been written through a
    /// [`slice`](Self::slice).
    ///
    /// # Panics
    /// With bytes past the last page.
    pub(crate) fn mark_dirty(&self, range: std::ops::Range<usize>) {
        let page_bytes = self.page_size.bytes();
        for page in range.start / page_bytes..range.end.div_ceil(page_bytes) {
            self.block.memory().mark_dirty(self.offsets[page] as usize, page_bytes);
        }
    }

    /// The pages with the indices in `range`.
    ///
    /// # Panics
    /// With indices past [`len`](Self::len).
    #[must_use]
    pub fn subset(&self, range: std::ops::Range<usize>) -> Self {
        Self { offsets: &self.offsets[range], ..*self }
    }
}

/// The pages of a packet that have data, as a codec gets them to send.
#[derive(Clone, Copy, Debug)]
pub struct NormalPages<'a> {
    guest: GuestPages<'a>,
    private: Option<&'a PageMemory>,
}

impl<'a> NormalPages<'a> {
    /// The pages `guest` with their private copies one behind the other at the start of `private`,
    /// or with none, for a method that reads them in place.
    ///
    /// # Panics
    /// Where `private` is shorter than the pages.
    pub fn new(guest: GuestPages<'a>, private: Option<&'a PageMemory>) -> Self {
        let enough = |copy: &PageMemory| copy.as_slice().len() >= guest.bytes();
        assert!(private.is_none_or(enough), "a copy of every page");
        Self { guest, private }
    }

    /// Number of pages, at least 1.
    pub fn len(&self) -> usize {
        self.guest.len()
    }

    /// Whether there are no pages; a codec never sees that.
    pub fn is_empty(&self) -> bool {
        self.guest.is_empty()
    }

    /// The size of a page.
    pub fn page_size(&self) -> PageSize {
        self.guest.page_size()
    }

    /// The pages in guest memory, which changes while the guest runs.
    pub fn guest(&self) -> GuestPages<'a> {
        self.guest
    }

    /// The private copies, one behind the other: [`len`](Self::len) pages. They do not change.
    ///
    /// # Panics
    /// For a method that asked to read pages in place
    /// ([`PageAccess::InPlace`](crate::PageAccess::InPlace)).
    pub fn private(&self) -> &'a [u8] {
        &self.private_memory().as_slice()[..self.guest.bytes()]
    }

    /// The memory that [`private`](Self::private) is the start of. A method that hands it to a
    /// device keeps a clone until the device has let go; the next packet's copies are then made in
    /// other memory.
    ///
    /// # Panics
    /// As [`private`](Self::private).
    pub fn private_memory(&self) -> &'a PageMemory {
        self.private.expect("a method that reads in place has no private copies")
    }

    /// The private copies, where the method has them.
    pub(crate) fn private_if_any(&self) -> Option<&'a [u8]> {
        self.private.map(|copy| &copy.as_slice()[..self.guest.bytes()])
    }
}

/// Pages of one block to be sent in one packet: at least one.
#[derive(Clone, Debug)]
pub struct PageBatch {
    block: Arc<RamBlock>,
    page_size: PageSize,
    offsets: Vec<u64>,
    zero: bool,
}

impl PageBatch {
    /// A batch of the pages of `block` at `offsets` (in bytes).
    ///
    /// # Errors
    /// No page, or more than a packet holds, and an offset that is not a page of the block.
    pub fn new(
        block: Arc<RamBlock>,
        page_size: PageSize,
        offsets: Vec<u64>,
    ) -> Result<Self, UsageError> {
        if !(1..=page_size.page_count()).contains(&offsets.len()) {
            let (pages, page_count) = (offsets.len(), page_size.page_count());
            return Err(UsageError::BatchSize { pages, page_count });
        }
        GuestPages::new(&block, page_size, &offsets)?;
        Ok(Self { block, page_size, offsets, zero: false })
    }

    /// The same batch, whose pages are known to be zero, as those of
    /// [holes](super::BlockMemory::data): they are sent as such without being read, whether or not
    /// the channel looks for zero pages.
    #[must_use]
    pub fn known_zero(self) -> Self {
        Self { zero: true, ..self }
    }

    /// Whether all pages are known to be zero.
    pub fn is_known_zero(&self) -> bool {
        self.zero
    }

    /// The pages.
    pub fn pages(&self) -> GuestPages<'_> {
        GuestPages { block: &self.block, page_size: self.page_size, offsets: &self.offsets }
    }
}
