//! Pages of which a part has been moved.

use vm_memory::VolatileSlice;

use super::GuestPages;

/// Pages of guest memory, one behind the other, from some byte of them on: what is left to read or
/// write after partial progress.
#[derive(Clone, Copy, Debug)]
pub struct GuestSlices<'a> {
    pages: GuestPages<'a>,
    skip: usize,
}

impl<'a> GuestSlices<'a> {
    /// What is left of `pages` behind the first `skip` bytes.
    ///
    /// # Panics
    /// With more bytes than the pages have.
    pub fn new(pages: GuestPages<'a>, skip: usize) -> Self {
        assert!(skip <= pages.bytes(), "more bytes than the pages have");
        Self { pages, skip }
    }

    /// What is left behind the next `count` bytes.
    ///
    /// # Panics
    /// With more bytes than are left.
    #[must_use]
    pub fn skip(self, count: usize) -> Self {
        Self::new(self.pages, self.skip + count)
    }

    /// Bytes that are left.
    pub fn bytes(&self) -> usize {
        self.pages.bytes() - self.skip
    }

    /// The memory that is left, in order: a part of a page, then whole pages.
    pub fn iter(&self) -> impl Iterator<Item = VolatileSlice<'a>> + use<'a> {
        let page_bytes = self.pages.page_size().bytes();
        let (first, mut skip) = (self.skip / page_bytes, self.skip % page_bytes);
        let rest = self.pages.subset(first..self.pages.len());
        rest.slices().map(move |page| {
            // Only the first page has bytes to skip, fewer than it is long.
            let slice = page.offset(skip).expect("a part of a page");
            skip = 0;
            slice
        })
    }

    /// Copies the first bytes out, as many as `bytes` has room for. Returns how many.
    pub fn copy_to(&self, bytes: &mut [u8]) -> usize {
        let mut copied = 0;
        for slice in self.iter() {
            if copied == bytes.len() {
                break;
            }
            copied += slice.copy_to(&mut bytes[copied..]);
        }
        copied
    }

    /// Copies `bytes` in, as many as there is room for. Returns how many.
    pub fn copy_from(&self, bytes: &[u8]) -> usize {
        let mut copied = 0;
        for slice in self.iter() {
            let count = slice.len().min(bytes.len() - copied);
            if count == 0 {
                break;
            }
            slice.copy_from(&bytes[copied..copied + count]);
            copied += count;
        }
        copied
    }
}

#[cfg(test)]
mod tests {
    use vm_memory::MmapRegion;

    use super::*;
    use crate::page_size::PageSize;
    use crate::ram::RamBlock;
    use crate::wire::BlockName;

    #[test]
    fn bytes_split_anywhere_come_out_as_they_went_in() {
        let memory = MmapRegion::<()>::new(4 * 4096).unwrap();
        let block = RamBlock::new(BlockName::new("ram").unwrap(), memory);
        let offsets = [0x3000, 0x1000, 0x2000];
        let pages = GuestPages::new(&block, PageSize::Kib4, &offsets).unwrap();
        let bytes: Vec<u8> = (0..pages.bytes()).map(|at| (at * 31 / 7) as u8).collect();
        for split in [0, 1, 4095, 4096, 4097, 8191, 8192, 12287, 12288] {
            assert_eq!(GuestSlices::new(pages, 0).copy_from(&bytes[..split]), split);
            let rest = GuestSlices::new(pages, split);
            assert_eq!(rest.bytes(), bytes.len() - split);
            assert_eq!(rest.copy_from(&bytes[split..]), bytes.len() - split);
            let mut out = vec![0; bytes.len()];
            let head = GuestSlices::new(pages, 0).copy_to(&mut out[..split]);
            assert_eq!(head, split);
            assert_eq!(rest.copy_to(&mut out[split..]), bytes.len() - split);
            assert!(out == bytes, "{split}");
            for page in 0..3 {
                pages.write(page, &[0; 4096]);
            }
        }
    }

    #[test]
    fn more_than_the_room_is_not_copied() {
        let memory = MmapRegion::<()>::new(4096).unwrap();
        let block = RamBlock::new(BlockName::new("ram").unwrap(), memory);
        let pages = GuestPages::new(&block, PageSize::Kib4, &[0]).unwrap();
        let slices = GuestSlices::new(pages, 4000);
        assert_eq!(slices.copy_from(&[1; 5000]), 96);
        assert_eq!(slices.copy_to(&mut [0; 5000]), 96);
        assert_eq!(slices.copy_to(&mut [0; 5]), 5);
    }
}
