//! Packets from all over a guest's memory, on which codecs are measured.

use multifd_core::PageSize;
use multifd_core::ram::{GuestPages, NormalPages, PageMemory, Ram, RamBlock};
use multifd_core::vm_memory::MmapRegion;
use multifd_core::vm_memory::mmap::MmapRegionError;
use multifd_core::wire::BlockName;

use crate::error::Error;
use crate::workload::{PACKET_PAGES, PAGE};

const PACKET_BYTES: u64 = PACKET_PAGES * PAGE as u64;

/// Packets of 128 pages from all over a guest's memory, in random order.
#[derive(Debug)]
pub struct Sample {
    bytes: u64,
    /// The normal pages of all packets, one after the other, and their offsets.
    block: RamBlock,
    offsets: Vec<u64>,
    packets: Vec<Sampled>,
}

#[derive(Debug)]
struct Sampled {
    normal: usize,
    zero: usize,
    /// Private copies of the normal pages.
    private: PageMemory,
}

/// One packet of the sample.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Packet<'a> {
    /// Its normal pages; `None` if it has none.
    pub(crate) normal: Option<NormalPages<'a>>,
    /// The number of its zero pages.
    pub(crate) zero: u64,
}

impl Sample {
    /// At most `count` packets of a guest's memory. The same `seed` takes the same packets.
    ///
    /// # Errors
    /// Pages that are not 4 KiB large; no memory for the sampled pages.
    pub fn of_ram(ram: &Ram, count: u64, seed: u64) -> Result<Self, Error> {
        if ram.page_size() != PageSize::Kib4 {
            return Err(Error::PageSize(ram.page_size()));
        }
        let packets: Vec<_> = ram
            .blocks()
            .iter()
            .flat_map(|block| {
                (0..block.bytes()).step_by(PACKET_BYTES as usize).map(move |at| (block, at))
            })
            .collect();
        let chosen = spread(packets.len() as u64, count, seed);
        let pages = chosen.into_iter().map(|index| {
            let (block, at) = packets[index as usize];
            let bytes = (block.bytes() - at).min(PACKET_BYTES) as usize;
            let mut pages = vec![0; bytes];
            block.slice(at, bytes).copy_to(&mut pages[..]);
            pages
        });
        Self::new(ram.bytes(), pages)
    }

    /// At most `count` packets of memory of `bytes` bytes that is not at hand as RAM. `read` fills
    /// whole pages from an offset in bytes. The same `seed` takes the same packets.
    ///
    /// # Errors
    /// A size that is not one or more pages of 4 KiB; no memory for the sampled pages.
    pub fn of_pages(
        bytes: u64,
        count: u64,
        seed: u64,
        mut read: impl FnMut(u64, &mut [u8]),
    ) -> Result<Self, Error> {
        if bytes == 0 || bytes % PAGE as u64 != 0 {
            return Err(Error::Size(bytes));
        }
        let chosen = spread(bytes.div_ceil(PACKET_BYTES), count, seed);
        let pages = chosen.into_iter().map(|index| {
            let offset = index * PACKET_BYTES;
            let mut pages = vec![0; (bytes - offset).min(PACKET_BYTES) as usize];
            read(offset, &mut pages);
            pages
        });
        Self::new(bytes, pages)
    }

    fn new(bytes: u64, packets: impl Iterator<Item = Vec<u8>>) -> Result<Self, Error> {
        let packets: Vec<_> = packets.map(|pages| Sampled::new(&pages)).collect();
        let normal: usize = packets.iter().map(|packet| packet.normal).sum();
        // A block cannot be empty.
        let block = anonymous("sample", (normal.max(1) * PAGE) as u64)?;
        let offsets: Vec<_> = (0..normal as u64).map(|page| page * PAGE as u64).collect();
        let mut offset = 0;
        for Sampled { private, .. } in &packets {
            block.write(offset, private.as_slice());
            offset += private.as_slice().len() as u64;
        }
        Ok(Self { bytes, block, offsets, packets })
    }

    /// The size of the memory from which the packets come, in bytes.
    pub fn memory_bytes(&self) -> u64 {
        self.bytes
    }

    /// Number of packets.
    pub fn packet_count(&self) -> usize {
        self.packets.len()
    }

    /// The block with the sampled pages.
    pub(crate) fn block(&self) -> &RamBlock {
        &self.block
    }

    /// Each packet.
    pub(crate) fn packets(&self) -> Vec<Packet<'_>> {
        let mut at = 0;
        let packets = self.packets.iter().map(|packet| {
            let range = at..at + packet.normal;
            at = range.end;
            let zero = packet.zero as u64;
            if range.is_empty() {
                return Packet { normal: None, zero };
            }
            let guest = GuestPages::new(&self.block, PageSize::Kib4, &self.offsets[range]);
            let guest = guest.expect("all offsets are pages of the block");
            Packet { normal: Some(NormalPages::new(guest, Some(&packet.private))), zero }
        });
        packets.collect()
    }
}

impl Sampled {
    fn new(pages: &[u8]) -> Self {
        let with_data = |page: &&[u8]| page.iter().any(|&byte| byte != 0);
        let with_data: Vec<_> = pages.chunks(PAGE).filter(with_data).collect();
        let normal = with_data.len();
        let mut private = PageMemory::new(normal * PAGE);
        for (copy, page) in private.get_mut_or_new().chunks_mut(PAGE).zip(with_data) {
            copy.copy_from_slice(page);
        }
        Self { normal, zero: pages.len() / PAGE - normal, private }
    }
}

/// A RAM block with new memory, all zero.
pub(crate) fn anonymous(name: &str, bytes: u64) -> Result<RamBlock, Error> {
    let memory = usize::try_from(bytes)
        .map_or(Err(MmapRegionError::InvalidOffsetLength), MmapRegion::<()>::new);
    let memory = memory.map_err(|source| Error::Memory { bytes, source })?;
    Ok(RamBlock::new(BlockName::new(name).expect("it is a short name"), memory))
}

/// `count` of the numbers below `end`, one from each of `count` equal stretches, shuffled.
fn spread(end: u64, count: u64, seed: u64) -> Vec<u64> {
    let count = count.min(end);
    let mut random = Random(seed ^ end.wrapping_mul(0xd1b5_4a32_d192_ed03));
    random.next();
    let mut chosen: Vec<_> = (0..count)
        .map(|stretch| {
            let bound =
                |stretch: u64| (u128::from(stretch) * u128::from(end) / u128::from(count)) as u64;
            let (start, end) = (bound(stretch), bound(stretch + 1));
            start + random.below(end - start)
        })
        .collect();
    for last in (1..chosen.len()).rev() {
        chosen.swap(last, random.below(last as u64 + 1) as usize);
    }
    chosen
}

/// The generator of Steele, Lea and Flood (`SplitMix64`).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number in 0 to `end - 1`.
    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_has_one_of_each_stretch_and_is_the_same_for_a_seed() {
        let chosen = spread(1000, 10, 1);
        let mut stretches: Vec<_> = chosen.iter().map(|number| number / 100).collect();
        stretches.sort_unstable();
        assert_eq!(stretches, (0..10).collect::<Vec<_>>());
        assert_eq!(chosen, spread(1000, 10, 1));
        assert_ne!(chosen, spread(1000, 10, 2));
    }

    #[test]
    fn a_size_that_is_not_one_or_more_whole_pages_is_refused() {
        for bytes in [0, 1, PAGE as u64 + 1] {
            let sample = Sample::of_pages(bytes, 1, 1, |_, _| {});
            assert!(matches!(sample, Err(Error::Size(refused)) if refused == bytes));
        }
    }

    #[test]
    fn a_small_memory_is_sampled_whole() {
        let mut all = spread(7, 512, 3);
        all.sort_unstable();
        assert_eq!(all, (0..7).collect::<Vec<_>>());
        let mut offsets = Vec::new();
        let fill = |offset, pages: &mut [u8]| {
            offsets.push(offset);
            pages[..PAGE].fill(1);
        };
        let sample = Sample::of_pages(200 * PAGE as u64, 512, 1, fill).unwrap();
        let normal: usize = sample.packets.iter().map(|count| count.normal).sum();
        let zero: usize = sample.packets.iter().map(|count| count.zero).sum();
        assert_eq!((sample.packet_count(), normal, zero), (2, 2, 198));
        offsets.sort_unstable();
        assert_eq!(offsets, [0, PACKET_BYTES]);
    }
}
