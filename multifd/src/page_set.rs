//! Which pages a round sends.

use std::ops::Range;
use std::sync::Arc;

use multifd_core::ram::{PageBatch, Ram, RamBlock};
use multifd_core::{PageSize, UsageError};

/// Bytes that are sent without asking whether somebody has touched them: to read them is faster.
const WORTH_ASKING: u64 = 2 << 20;

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
            return Err(pages.no_such_page(offset));
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

    /// As [`merge_bitmap`](Self::merge_bitmap), for the bitmap of a part of the block, as of each of
    /// the regions that a block lies in: its first bit is the page at the start of `bytes`, and bits
    /// past their end are ignored.
    ///
    /// # Errors
    /// A start that is not that of a page; bytes past the block's end.
    ///
    /// # Panics
    /// With an index at or past the number of blocks.
    pub fn merge_bitmap_at(
        &mut self,
        block: usize,
        bytes: Range<u64>,
        bitmap: &[u64],
    ) -> Result<(), UsageError> {
        let page_size = self.page_size;
        let pages = &mut self.blocks[block];
        let range = pages.range(page_size, &bytes)?;
        if !page_size.is_aligned(bytes.start) {
            return Err(pages.no_such_page(bytes.start));
        }
        let (first, shift) = (range.start / 64, range.start % 64);
        for (at, &word) in bitmap.iter().enumerate() {
            let left = range.end.saturating_sub(range.start + at * 64);
            let word = word & low_bits(left.min(64));
            if left == 0 {
                break;
            }
            pages.words[first + at] |= word << shift;
            // What is shifted out is of the next word; where that is none, no bit was left.
            if let Some(next) = pages.words.get_mut(first + at + 1) {
                *next |= word.checked_shr(64 - shift as u32).unwrap_or(0);
            }
        }
        Ok(())
    }

    /// Adds every page of the block with the index `block` that has any of `bytes`, a range of
    /// offsets.
    ///
    /// # Errors
    /// Bytes past the block's end. None is added then.
    ///
    /// # Panics
    /// With an index at or past the number of blocks.
    pub fn insert_range(&mut self, block: usize, bytes: Range<u64>) -> Result<(), UsageError> {
        let pages = &mut self.blocks[block];
        let range = pages.range(self.page_size, &bytes)?;
        let mut at = range.start;
        while at < range.end {
            let count = (64 - at % 64).min(range.end - at);
            pages.words[at / 64] |= low_bits(count) << (at % 64);
            at += count;
        }
        Ok(())
    }

    /// Number of pages in the set.
    pub fn len(&self) -> u64 {
        self.blocks.iter().map(BlockPages::len).sum()
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
    /// the index of the block, the page's offset, and whether it is known to be zero. With `holes`
    /// the memory is asked for what is known to be zero, which then comes in batches of its own.
    pub(crate) fn batches<E>(
        &self,
        holes: bool,
        mut skip: impl FnMut(usize, u64, bool) -> Result<bool, E>,
        mut send: impl FnMut(PageBatch) -> Result<(), E>,
    ) -> Result<(), E>
    where
        E: From<UsageError>,
    {
        for (index, pages) in self.blocks.iter().enumerate() {
            let data = if holes { pages.data(self.page_size) } else { None };
            let mut known = KnownZero::new(self.page_size, data);
            let mut gathered = [false, true].map(|zero| Gathered::new(pages, self.page_size, zero));
            for offset in pages.offsets(self.page_size) {
                let zero = known.is_zero(offset);
                if skip(index, offset, zero)? {
                    continue;
                }
                if let Some(full) = gathered[usize::from(zero)].add(offset)? {
                    send(full)?;
                }
            }
            for mut gathered in gathered {
                if let Some(rest) = gathered.batch()? {
                    send(rest)?;
                }
            }
        }
        Ok(())
    }
}

/// Pages of a block that become a batch.
struct Gathered<'a> {
    pages: &'a BlockPages,
    page_size: PageSize,
    /// They are known to be zero.
    zero: bool,
    offsets: Vec<u64>,
}

impl<'a> Gathered<'a> {
    fn new(pages: &'a BlockPages, page_size: PageSize, zero: bool) -> Self {
        Self { pages, page_size, zero, offsets: Vec::new() }
    }

    /// Takes the page at `offset`. Returns the batch that it completes.
    fn add(&mut self, offset: u64) -> Result<Option<PageBatch>, UsageError> {
        let page_count = self.page_size.page_count();
        if self.offsets.capacity() == 0 {
            self.offsets.reserve_exact(page_count);
        }
        self.offsets.push(offset);
        if self.offsets.len() < page_count { Ok(None) } else { self.batch() }
    }

    /// What has been taken since the last batch.
    fn batch(&mut self) -> Result<Option<PageBatch>, UsageError> {
        if self.offsets.is_empty() {
            return Ok(None);
        }
        let (block, offsets) = (Arc::clone(&self.pages.block), std::mem::take(&mut self.offsets));
        let batch = PageBatch::new(block, self.page_size, offsets)?;
        Ok(Some(if self.zero { batch.known_zero() } else { batch }))
    }
}

/// Which pages of a block are known to be zero, asked in ascending order.
struct KnownZero {
    page_bytes: u64,
    /// The parts that may have data and have not been passed yet; `None` where nothing is known.
    data: Option<std::iter::Peekable<std::vec::IntoIter<Range<u64>>>>,
}

impl KnownZero {
    fn new(page_size: PageSize, data: Option<Vec<Range<u64>>>) -> Self {
        let data = data.map(|parts| parts.into_iter().peekable());
        Self { page_bytes: page_size.bytes() as u64, data }
    }

    fn is_zero(&mut self, offset: u64) -> bool {
        let Some(data) = &mut self.data else { return false };
        while data.next_if(|part| part.end <= offset).is_some() {}
        data.peek().is_none_or(|part| part.start >= offset + self.page_bytes)
    }
}

/// The lowest `count` bits, 64 at most.
fn low_bits(count: usize) -> u64 {
    u64::MAX.checked_shr(64 - count as u32).unwrap_or(0)
}

impl BlockPages {
    fn no_such_page(&self, offset: u64) -> UsageError {
        UsageError::NoSuchPage { name: self.block.name().clone(), offset }
    }

    /// The numbers of the pages that have any of `bytes`.
    fn range(&self, page_size: PageSize, bytes: &Range<u64>) -> Result<Range<usize>, UsageError> {
        if bytes.end > self.block.bytes() {
            return Err(self.no_such_page(bytes.end));
        }
        let page_bytes = page_size.bytes() as u64;
        // The block is mapped, so that its pages can be counted.
        Ok((bytes.start / page_bytes) as usize..bytes.end.div_ceil(page_bytes) as usize)
    }

    /// Number of pages in the set.
    fn len(&self) -> u64 {
        self.words.iter().map(|word| u64::from(word.count_ones())).sum()
    }

    /// What the memory knows of where it has data. To ask takes the kernel a look at all memory of the
    /// program, which pays where there is much to be sent that is most of the block.
    fn data(&self, page_size: PageSize) -> Option<Vec<Range<u64>>> {
        let set = self.len() * page_size.bytes() as u64;
        if set < WORTH_ASKING || set < self.block.bytes().div_ceil(2) {
            return None;
        }
        let data = self.block.memory().data();
        let (block, parts) = (self.block.name(), data.as_ref().map(Vec::len));
        tracing::debug!(%block, ?parts, "parts of the memory that may have data");
        data
    }

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
}

#[cfg(test)]
mod tests {
    use multifd_core::ram::BlockMemory;
    use multifd_core::vm_memory::{MmapRegion, VolatileSlice};
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
            false,
            |_, _, _| Ok(false),
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

    fn numbers(set: &PageSet, block: usize) -> Vec<u64> {
        set.blocks[block].offsets(PageSize::Kib4).map(|offset| offset / 4096).collect()
    }

    #[test]
    fn a_bitmap_at_an_offset_sets_the_same_pages_as_one_by_one() {
        let bitmap = [0x8000_0000_0000_0001, u64::MAX, 0b101];
        for start in [0, 1, 5, 63, 64, 65, 100, 199] {
            for pages in [0, 1, 2, 63, 64, 65, 128, 130, 131, 200] {
                let end = (start + pages).min(200);
                let mut set = PageSet::none(&ram());
                set.merge_bitmap_at(0, start * 4096..end * 4096, &bitmap).unwrap();
                let is_set =
                    |bit: u64| bitmap.get(bit as usize / 64).unwrap_or(&0) >> (bit % 64) & 1;
                let expected = (start..end).filter(|page| is_set(page - start) == 1);
                assert_eq!(numbers(&set, 0), expected.collect::<Vec<_>>(), "{start}, {pages}");
            }
        }
    }

    #[test]
    fn the_bitmaps_of_two_regions_in_one_block_stay_apart() {
        let mut set = PageSet::none(&ram());
        set.merge_bitmap_at(0, 0..10 * 4096, &[u64::MAX]).unwrap();
        set.merge_bitmap_at(0, 10 * 4096..200 * 4096, &[0b10]).unwrap();
        assert_eq!(numbers(&set, 0), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11]);
    }

    #[test]
    fn a_bitmap_that_starts_in_a_page_or_ends_past_the_block_is_refused() {
        let mut set = PageSet::none(&ram());
        assert!(set.merge_bitmap_at(0, 1..8192, &[1]).is_err());
        assert!(set.merge_bitmap_at(1, 0..4 * 4096, &[1]).is_err());
        assert!(set.is_empty());
    }

    #[test]
    fn a_range_has_every_page_that_has_any_of_its_bytes() {
        for (bytes, pages) in [
            (0..0, 0..0),
            (5..6, 0..1),
            (4095..4097, 0..2),
            (4096..8192, 1..2),
            (63 * 4096..65 * 4096, 63..65),
            (0..200 * 4096, 0..200),
            (10 * 4096..199 * 4096 + 1, 10..200),
        ] {
            let mut set = PageSet::none(&ram());
            set.insert_range(0, bytes.clone()).unwrap();
            assert_eq!(numbers(&set, 0), pages.collect::<Vec<_>>(), "{bytes:?}");
        }
        let mut set = PageSet::none(&ram());
        assert!(set.insert_range(1, 0..3 * 4096 + 1).is_err());
        assert!(set.is_empty());
    }

    /// Memory that says where it has data, and that cannot be read elsewhere.
    #[derive(Debug)]
    struct Sparse(Vec<Range<u64>>);

    impl BlockMemory for Sparse {
        fn bytes(&self) -> u64 {
            1000 * 4096
        }

        fn slice(&self, _: usize, _: usize) -> Option<VolatileSlice<'_>> {
            None
        }

        fn data(&self) -> Option<Vec<Range<u64>>> {
            Some(self.0.clone())
        }
    }

    #[test]
    fn holes_come_in_full_batches_of_their_own_and_pages_with_any_data_do_not() {
        let data = vec![4095..4097, 300 * 4096..301 * 4096 + 1, 999 * 4096 + 5..999 * 4096 + 6];
        let block = RamBlock::new(BlockName::new("a").unwrap(), Sparse(data));
        let ram = Ram::new(PageSize::Kib4, [block]).unwrap();
        for (set, known) in [(PageSet::all(&ram), true), {
            let mut few = PageSet::none(&ram);
            few.insert_range(0, 0..499 * 4096).unwrap();
            (few, false)
        }] {
            let (mut normal, mut zero) = (Vec::new(), Vec::new());
            let mut sizes = Vec::new();
            let taken = set.batches::<UsageError>(
                true,
                |_, _, _| Ok(false),
                |batch| {
                    let pages = batch.pages().offsets().iter().map(|offset| offset / 4096);
                    let of = if batch.is_known_zero() { &mut zero } else { &mut normal };
                    of.extend(pages);
                    sizes.push((batch.is_known_zero(), batch.pages().len()));
                    Ok(())
                },
            );
            taken.unwrap();
            if known {
                assert_eq!(normal, [0, 1, 300, 301, 999]);
                assert_eq!(zero.len(), 995);
                assert!(zero.is_sorted());
                let full = sizes.iter().filter(|&&size| size == (true, 128)).count();
                assert_eq!((full, sizes.len()), (995 / 128, 995 / 128 + 2));
            } else {
                assert_eq!((normal.len(), zero.len()), (499, 0), "not worth to ask for");
            }
        }
    }

    #[test]
    fn a_page_past_the_end_of_its_block_is_refused() {
        assert!(PageSet::none(&ram()).insert(1, 3 * 4096).is_err());
    }
}
