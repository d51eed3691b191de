//! Digests of RAM blocks, by which a destination knows that what has arrived is what was sent.
//!
//! The format has no checksum. Both sides note the hash of each page that they send or receive, and in
//! the end compare one value for each block. `docs/digest.md` has the definition.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use twox_hash::{XxHash3_64, XxHash3_128};
use vm_memory::VolatileSlice;
use zerocopy::IntoBytes;

use super::{Ram, RamBlock};
use crate::page_size::PageSize;

/// The digest of a RAM block: 128 bits, written as 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct BlockDigest(u128);

/// The hashes of all pages of a VM's RAM, as they were last sent or received in one migration. Pages
/// that were not are as zero pages. Takes 8 bytes for each page of memory in use.
#[derive(Debug)]
pub struct RamDigests {
    blocks: Vec<(Arc<RamBlock>, PageHashes)>,
}

/// The hashes of a block's pages.
#[derive(Debug)]
pub struct PageHashes {
    page_size: PageSize,
    pages: usize,
    /// The hash of a zero page, which every hash is combined with.
    zero: u64,
    /// Groups of pages; those in which only zero pages have been noted take no memory.
    groups: Box<[OnceLock<Box<[AtomicU64]>>]>,
}

/// Pages of a group.
const GROUP: usize = 512;

impl RamDigests {
    /// No page of `ram` has been noted yet.
    pub fn new(ram: &Ram) -> Self {
        let hashes = |block: &Arc<RamBlock>| {
            (Arc::clone(block), PageHashes::new(ram.page_size(), block.bytes()))
        };
        Self { blocks: ram.blocks().iter().map(hashes).collect() }
    }

    /// The hashes of `block`'s pages, if it is one of the RAM's.
    pub fn of(&self, block: &RamBlock) -> Option<&PageHashes> {
        let is_it = |(own, _): &&(Arc<RamBlock>, PageHashes)| std::ptr::eq(&raw const **own, block);
        self.blocks.iter().find(is_it).map(|(_, hashes)| hashes)
    }

    /// Each block with its digest, in the order of the RAM.
    pub fn blocks(&self) -> impl Iterator<Item = (&RamBlock, BlockDigest)> {
        self.blocks.iter().map(|(block, hashes)| (&**block, hashes.digest()))
    }
}

impl PageHashes {
    fn new(page_size: PageSize, bytes: u64) -> Self {
        let pages = usize::try_from(bytes).unwrap_or(usize::MAX) / page_size.bytes();
        let zero = XxHash3_64::oneshot(&super::block::ZEROS[..page_size.bytes()]);
        let groups = (0..pages.div_ceil(GROUP)).map(|_| OnceLock::new()).collect();
        Self { page_size, pages, zero, groups }
    }

    /// Notes what the page at `offset` (in bytes) holds.
    ///
    /// # Panics
    /// With a page outside the block.
    pub fn note(&self, offset: u64, page: &[u8]) {
        debug_assert_eq!(page.len(), self.page_size.bytes(), "a whole page");
        let hash = XxHash3_64::oneshot(page) ^ self.zero;
        let (group, index) = self.place(offset);
        let group = self.groups[group].get_or_init(|| {
            let pages = GROUP.min(self.pages - group * GROUP);
            (0..pages).map(|_| AtomicU64::new(0)).collect()
        });
        // Whoever computes the digest has waited for all who note.
        group[index].store(hash, Ordering::Relaxed);
    }

    /// As [`note`](Self::note), for a page in guest memory, which is copied to `scratch` first.
    ///
    /// # Panics
    /// With a page outside the block.
    pub fn note_guest(&self, offset: u64, page: VolatileSlice<'_>, scratch: &mut Vec<u8>) {
        scratch.resize(page.len(), 0);
        page.copy_to(&mut scratch[..]);
        self.note(offset, scratch);
    }

    /// Notes that the page at `offset` (in bytes) is zero.
    ///
    /// # Panics
    /// With a page outside the block.
    pub fn note_zero(&self, offset: u64) {
        let (group, index) = self.place(offset);
        if let Some(group) = self.groups[group].get() {
            group[index].store(0, Ordering::Relaxed);
        }
    }

    fn place(&self, offset: u64) -> (usize, usize) {
        let page = usize::try_from(offset).unwrap_or(usize::MAX) / self.page_size.bytes();
        (page / GROUP, page % GROUP)
    }

    /// The digest of the block.
    pub fn digest(&self) -> BlockDigest {
        let mut digests = Vec::with_capacity(self.groups.len());
        let untouched = of_group(&[0; GROUP]);
        for (number, group) in self.groups.iter().enumerate() {
            let pages = GROUP.min(self.pages - number * GROUP);
            let mut words = [0_u64; GROUP];
            for (word, hash) in words.iter_mut().zip(group.get().into_iter().flatten()) {
                *word = hash.load(Ordering::Relaxed).to_be();
            }
            let is_untouched = group.get().is_none() && pages == GROUP;
            digests.push(if is_untouched { untouched } else { of_group(&words[..pages]) });
        }
        BlockDigest(XxHash3_128::oneshot(digests.as_bytes()))
    }
}

/// The digest of a group of pages whose hashes, big-endian, are `words`.
fn of_group(words: &[u64]) -> [u8; 16] {
    XxHash3_128::oneshot(words.as_bytes()).to_be_bytes()
}

impl fmt::Display for BlockDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for BlockDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlockDigest({self})")
    }
}

/// A text that is not a digest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a digest: 32 hexadecimal digits")]
pub struct MalformedDigest(String);

impl FromStr for BlockDigest {
    type Err = MalformedDigest;

    fn from_str(text: &str) -> Result<Self, MalformedDigest> {
        let refused = || MalformedDigest(text.to_owned());
        if text.len() != 32 || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(refused());
        }
        u128::from_str_radix(text, 16).map(Self).map_err(|_| refused())
    }
}

#[cfg(test)]
mod tests {
    use vm_memory::MmapRegion;

    use super::*;
    use crate::wire::BlockName;

    fn ram(pages: usize) -> Ram {
        let memory = MmapRegion::<()>::new(pages << 12).unwrap();
        let block = RamBlock::new(BlockName::new("pc.ram").unwrap(), memory);
        Ram::new(PageSize::Kib4, [block]).unwrap()
    }

    fn digest(digests: &RamDigests) -> BlockDigest {
        digests.blocks().next().unwrap().1
    }

    /// What `note` has been told of each page, in any order, and the definition word for word.
    fn defined(pages: &[Vec<u8>]) -> u128 {
        let zero = XxHash3_64::oneshot(&[0; 4096]);
        let hashes = pages.iter().map(|page| XxHash3_64::oneshot(page) ^ zero);
        let hashes: Vec<_> = hashes.flat_map(u64::to_be_bytes).collect();
        let groups = hashes.chunks(512 * 8).map(XxHash3_128::oneshot);
        let groups: Vec<_> = groups.flat_map(u128::to_be_bytes).collect();
        XxHash3_128::oneshot(&groups)
    }

    #[test]
    fn a_digest_is_as_it_is_defined_in_whatever_order_pages_come_and_come_again() {
        for count in [1, 511, 512, 513, 1100] {
            let ram = ram(count);
            let pages: Vec<Vec<u8>> = (0..count)
                .map(|page| if page % 3 == 0 { vec![0; 4096] } else { vec![page as u8 | 1; 4096] })
                .collect();
            let digests = RamDigests::new(&ram);
            let hashes = digests.of(&ram.blocks()[0]).unwrap();
            for page in (0..count).rev() {
                let offset = (page as u64) << 12;
                hashes.note(offset, &[9; 4096]);
                match page % 6 {
                    0 => hashes.note_zero(offset),
                    _ => hashes.note(offset, &pages[page]),
                }
            }
            assert_eq!(digest(&digests), BlockDigest(defined(&pages)), "{count} pages");
        }
    }

    #[test]
    fn a_page_that_was_not_noted_is_as_a_zero_page_and_costs_nothing() {
        let ram = ram(2000);
        let (untouched, zero) = (RamDigests::new(&ram), RamDigests::new(&ram));
        let hashes = zero.of(&ram.blocks()[0]).unwrap();
        (0..2000).for_each(|page| hashes.note_zero(page << 12));
        assert!(hashes.groups.iter().all(|group| group.get().is_none()));
        hashes.note(1999 << 12, &[0; 4096]);
        assert_eq!(digest(&untouched), digest(&zero));
        assert_eq!(digest(&untouched), BlockDigest(defined(&vec![vec![0; 4096]; 2000])));
    }

    #[test]
    fn each_bit_of_a_page_and_the_place_of_each_page_matter() {
        let ram = ram(3);
        let of = |pages: [&[u8]; 3]| {
            let digests = RamDigests::new(&ram);
            let hashes = digests.of(&ram.blocks()[0]).unwrap();
            (0..).zip(pages).for_each(|(page, bytes)| hashes.note(page << 12, bytes));
            digest(&digests)
        };
        let mut page = vec![5; 4096];
        let right = of([&page, &[6; 4096], &[7; 4096]]);
        assert_ne!(right, of([&[6; 4096], &page, &[7; 4096]]));
        for bit in (0..8 * 4096).step_by(if cfg!(miri) { 4099 } else { 1 }) {
            page[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(right, of([&page, &[6; 4096], &[7; 4096]]), "bit {bit}");
            page[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn another_ram_s_blocks_have_no_hashes_here() {
        let (own, other) = (ram(1), ram(1));
        assert!(RamDigests::new(&own).of(&other.blocks()[0]).is_none());
    }

    #[test]
    fn a_digest_reads_as_it_is_written_and_other_text_is_refused() {
        let text = "00112233445566778899aabbccddeeff";
        assert_eq!(text.parse::<BlockDigest>().unwrap().to_string(), text);
        for wrong in ["", "0011", "+0112233445566778899aabbccddeeff", &"g".repeat(32)] {
            assert!(wrong.parse::<BlockDigest>().is_err(), "{wrong}");
        }
    }
}
