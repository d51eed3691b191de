//! Which pages a round sends.

use std::sync::Arc;

use multifd_core::ram::{PageBatch, Ram, RamBlock};
use multifd_core::{PageSize, UsageError};

/// A set of pages of a VM's RAM: those that a round sends.
///
/// The bits are laid out as KVM's dirty log has them, so that a log can be merged in as it is.
#[derive(Clone, Debug)]
pub struct PageSet {
    page_size: PageSize,
    blocks: Vec<BlockPages>,
}

#[derive(Clone, Debug)]
struct BlockPages {
    block: Arc<RamBlock>,
    /// A bit a page, from the lowest of the first word on. Bits past the last page are 0.
    words: Vec<u64>,
}

impl PageSet {
    /// No page of `ram`.
    pub fn none(ram: &Ram) -> Self {
        let page_size = ram.page_size();
        let pages = |block: &RamBlock| block.bytes() / page_size.bytes() as u64;
        let blocks = ram.blocks().iter().map(|block| BlockPages {
            words: vec![0; pages(block).div_ceil(64) as usize],
            block: Arc::clone(block),
        });
        Self { page_size, blocks: blocks.collect() }
    }

    /// Every page of `ram`: what a first round sends.
    pub fn all(ram: &Ram) -> Self {
        let mut set = Self::none(ram);
        for block in &mut set.blocks {
            block.words.fill(u64::MAX);
            block.clear_past_end(set.page_size);
        }
        set
    }

    /// Adds the page of the block with the index `block` (in the order of the RAM's blocks) that
    /// holds the byte at `offset`.
    ///
    /// # Errors
    /// An offset past the block's end.
    ///
    /// # Panics
    /// With an index at or past the number of blocks.
    pub fn insert(&mut self, block: usize, offset: u64) -> Result<(), UsageError> {
        let pages = &mut self.blocks[block];
        if offset >= pages.block.bytes() {
            return Err(UsageError::NoSuchPage { name: pages.block.name().clone(), offset });
        }
        let page = offset / self.page_size.bytes() as u64;
        pages.words[(page / 64) as usize] |= 1 << (page % 64);
        Ok(())
    }

    /// Adds the pages of the block with the index `block` whose bits are set in `bitmap`: bit n of
    /// word m is page 64 m + n, as in KVM's dirty log. Bits past the block's end are ignored, and
    /// missing words are zero. What `AtomicBitmap::get_and_reset` of `vm-memory` gives has the same
    /// form.
    ///
    /// A bit must stand for a page of the RAM's page size. KVM's log has the host's, and so has an
    /// `AtomicBitmap` unless it is made otherwise: 16 or 64 KiB on some machines. Pages would be
    /// left out, and nothing would tell.
    ///
    /// # Panics
    /// With an index at or past the number of blocks.
    pub fn merge_bitmap(&mut self, block: usize, bitmap: &[u64]) {
        let pages = &mut self.blocks[block];
        for (word, more) in pages.words.iter_mut().zip(bitmap) {
            *word |= more;
        }
        pages.clear_past_end(self.page_size);
    }

    /// Number of pages in the set.
    pub fn len(&self) -> u64 {
        let words = self.blocks.iter().flat_map(|block| &block.words);
        words.map(|word| u64::from(word.count_ones())).sum()
    }

    /// Whether the set has no page.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the set was made for `ram`.
    pub(crate) fn is_of(&self, ram: &Ram) -> bool {
        self.blocks.len() == ram.blocks().len()
            && self
                .blocks
                .iter()
                .zip(ram.blocks())
                .all(|(own, block)| Arc::ptr_eq(&own.block, block))
    }

    /// The pages as batches for packets, in order, except those that `skip` takes: it is given
    /// the index of the block and the page's offset.
    pub(crate) fn batches<E>(
        &self,
        mut skip: impl FnMut(usize, u64) -> Result<bool, E>,
        mut send: impl FnMut(PageBatch) -> Result<(), E>,
    ) -> Result<(), E>
    where
        E: From<UsageError>,
    {
        let page_count = self.page_size.page_count();
        for (index, pages) in self.blocks.iter().enumerate() {
            let mut offsets = Vec::with_capacity(page_count);
            for offset in pages.offsets(self.page_size) {
                if skip(index, offset)? {
                    continue;
                }
                offsets.push(offset);
                if offsets.len() == page_count {
                    let full = std::mem::replace(&mut offsets, Vec::with_capacity(page_count));
                    send(pages.batch(self.page_size, full)?)?;
                }
            }
            if !offsets.is_empty() {
                send(pages.batch(self.page_size, offsets)?)?;
            }
        }
        Ok(())
    }
}

impl BlockPages {
    fn clear_past_end(&mut self, page_size: PageSize) {
        let pages = self.block.bytes() / page_size.bytes() as u64;
        if let Some(last) = self.words.last_mut().filter(|_| pages % 64 != 0) {
            *last &= (1 << (pages % 64)) - 1;
        }
    }

    fn offsets(&self, page_size: PageSize) -> impl Iterator<Item = u64> {
        self.words.iter().enumerate().flat_map(move |(index, &word)| {
            let mut left = word;
            std::iter::from_fn(move || {
                let bit = (left != 0).then(|| u64::from(left.trailing_zeros()))?;
                left &= left - 1;
                Some((index as u64 * 64 + bit) * page_size.bytes() as u64)
            })
        })
    }

    fn batch(&self, page_size: PageSize, offsets: Vec<u64>) -> Result<PageBatch, UsageError> {
        PageBatch::new(Arc::clone(&self.block), page_size, offsets)
    }
}

#[cfg(test)]
mod tests {
    use multifd_core::vm_memory::MmapRegion;
    use multifd_core::wire::BlockName;

    use super::*;

    fn ram() -> Ram {
        let block = |name: &str, pages: usize| {
            let memory = MmapRegion::<()>::new(pages * 4096).unwrap();
            RamBlock::new(BlockName::new(name).unwrap(), memory)
        };
        Ram::new(PageSize::Kib4, [block("a", 200), block("b", 3)]).unwrap()
    }

    fn batches(set: &PageSet) -> Vec<(String, Vec<u64>)> {
        let mut all = Vec::new();
        set.batches::<UsageError>(
            |_, _| Ok(false),
            |batch| {
                let pages = batch.pages();
                all.push((pages.block().name().to_string(), pages.offsets().to_vec()));
                Ok(())
            },
        )
        .unwrap();
        all
    }

    #[test]
    fn all_pages_come_in_batches_of_one_block_each() {
        let set = PageSet::all(&ram());
        assert_eq!(set.len(), 203);
        let batches = batches(&set);
        let sizes: Vec<_> = batches.iter().map(|(name, pages)| (&name[..], pages.len())).collect();
        assert_eq!(sizes, [("a", 128), ("a", 72), ("b", 3)]);
        let first: Vec<u64> = (0..128).map(|page| page * 4096).collect();
        assert_eq!(batches[0].1, first);
    }

    #[test]
    fn a_dirty_log_is_merged_and_its_bits_past_the_end_ignored() {
        let mut set = PageSet::none(&ram());
        assert!(set.is_empty());
        set.insert(1, 4097).unwrap();
        set.merge_bitmap(0, &[1 << 63, 1]);
        set.merge_bitmap(1, &[u64::MAX << 2, 7]);
        assert_eq!(
            batches(&set),
            [("a".to_owned(), vec![63 * 4096, 64 * 4096]), ("b".to_owned(), vec![4096, 8192])]
        );
    }

    #[test]
    fn a_page_past_the_end_of_its_block_is_refused() {
        assert!(PageSet::none(&ram()).insert(1, 3 * 4096).is_err());
    }
}
