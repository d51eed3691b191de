//! The RAM of a mapped-ram file: where in the file each block's pages are.

use super::{BlockInfo, StreamErrorKind};
use crate::PageSize;

/// The version of a block's header.
const VERSION: u32 = 1;

/// Bytes of a block's header: version, page size, where the bitmap is, where the pages are.
pub(super) const HEADER: usize = 4 + 3 * 8;

/// What pages begin at a multiple of, so that they can be written past the page cache.
const ALIGNMENT: u64 = 1 << 20;

/// What a source lists among its capabilities.
pub(super) const CAPABILITY: &str = "mapped-ram";

/// Where in a mapped-ram file a RAM block is. Offsets are in bytes from the start of the file. Bitmap and pages lie behind
/// the block's entry in the stream and apart from each other, and the stream goes on at their [`end`](Self::end).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MappedBlock {
    /// Name and size.
    pub info: BlockInfo,
    /// Where the bitmap is: bit i mod 8 of byte i / 8 is set if page i has anything in the file; other pages are zero, whatever
    /// the file has in their place.
    pub bitmap_offset: u64,
    /// Bytes of the bitmap: whole words of 8.
    pub bitmap_bytes: u64,
    /// Where page 0 is: a multiple of the page size.
    pub pages_offset: u64,
}

impl MappedBlock {
    /// The block whose header ends at `bitmap_offset`, as QEMU puts it into a file.
    pub(super) fn laid_out(
        info: BlockInfo,
        page_size: PageSize,
        bitmap_offset: u64,
    ) -> Result<Self, StreamErrorKind> {
        let bitmap_bytes = bitmap_bytes(info.bytes, page_size);
        let pages_offset = bitmap_offset
            .checked_add(bitmap_bytes)
            .and_then(|end| end.checked_next_multiple_of(ALIGNMENT));
        Self { info, bitmap_offset, bitmap_bytes, pages_offset: pages_offset.unwrap_or(u64::MAX) }
            .checked(page_size, bitmap_offset)
    }

    /// Parses the header of a block, which ends at `at` in the file.
    pub(super) fn parse(
        info: BlockInfo,
        page_size: PageSize,
        header: &[u8; HEADER],
        at: u64,
    ) -> Result<Self, StreamErrorKind> {
        let number = |from: usize| {
            header[from..from + 8].iter().fold(0, |number, &byte| number << 8 | u64::from(byte))
        };
        let version = u32::from_be_bytes([header[0], header[1], header[2], header[3]]);
        if version != VERSION {
            return Err(StreamErrorKind::MappedRamVersion(version));
        }
        let [pages, bitmap_offset, pages_offset] = [4, 12, 20].map(number);
        if pages != page_size.bytes() as u64 {
            return Err(StreamErrorKind::MappedRamPageSize { found: pages, expected: page_size });
        }
        let bitmap_bytes = bitmap_bytes(info.bytes, page_size);
        Self { info, bitmap_offset, bitmap_bytes, pages_offset }.checked(page_size, at)
    }

    pub(super) fn header(&self, page_size: PageSize) -> Vec<u8> {
        let numbers = [page_size.bytes() as u64, self.bitmap_offset, self.pages_offset];
        let numbers = numbers.into_iter().flat_map(u64::to_be_bytes);
        VERSION.to_be_bytes().into_iter().chain(numbers).collect()
    }

    /// The block, if its parts are in order behind `at`, where its header ends.
    fn checked(self, page_size: PageSize, at: u64) -> Result<Self, StreamErrorKind> {
        let bitmap_end = self.bitmap_offset.checked_add(self.bitmap_bytes);
        let in_order = self.bitmap_offset >= at
            && bitmap_end.is_some_and(|end| end <= self.pages_offset)
            // Offsets of files are signed.
            && self.pages_offset.checked_add(self.info.bytes).is_some_and(|end| i64::try_from(end).is_ok())
            && page_size.is_aligned(self.pages_offset);
        match in_order {
            true => Ok(self),
            false => {
                let Self { info: BlockInfo { name, .. }, bitmap_offset, pages_offset, .. } = self;
                Err(StreamErrorKind::MappedRamPlace { name, bitmap_offset, pages_offset })
            }
        }
    }

    /// Where the pages end, and the stream goes on.
    pub fn end(&self) -> u64 {
        // It has been checked that there is such a place.
        self.pages_offset + self.info.bytes
    }
}

/// A bit for each page, in whole words.
fn bitmap_bytes(bytes: u64, page_size: PageSize) -> u64 {
    (bytes / page_size.bytes() as u64).div_ceil(64) * 8
}
