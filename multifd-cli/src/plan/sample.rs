//! Packets from all over a memory, for codecs to be tried on.

use std::path::Path;

use multifd::core::PageSize;
use multifd::core::ram::{GuestPages, NormalPages, Ram, RamBlock};
use multifd::core::wire::BlockName;
use multifd_conformance::made_up::{self, Noise};

use super::workload::{PACKET_PAGES, PAGE};
use crate::failure::Failure;
use crate::mapping;

const PACKET_BYTES: u64 = PACKET_PAGES * PAGE as u64;

/// Packets, in an order that has nothing to do with that of the memory.
#[derive(Debug)]
pub(super) struct Sample {
    /// Of the whole memory.
    pub(super) bytes: u64,
    /// The normal pages of all packets, one behind the other, as a guest has them and copied.
    block: RamBlock,
    private: Vec<u8>,
    offsets: Vec<u64>,
    packets: Vec<Counts>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    normal: usize,
    zero: usize,
}

/// One packet of the sample.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packet<'a> {
    /// Its normal pages, where it has any.
    pub(super) normal: Option<NormalPages<'a>>,
    /// How many pages are zero.
    pub(super) zero: u64,
}

impl Sample {
    /// At most `count` packets of a guest's memory.
    pub(super) fn of_ram(ram: &Ram, count: u64, seed: u64) -> Result<Self, Failure> {
        if ram.page_size() != PageSize::Kib4 {
            let size = ram.page_size();
            return Err(Failure::new(format!(
                "cannot plan for pages of {size}: only memory with pages of 4 KiB is simulated"
            )));
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

    /// At most `count` packets of made-up memory.
    pub(super) fn made_up(bytes: u64, count: u64, seed: u64) -> Result<Self, Failure> {
        mapping::check_pages(Path::new("--size"), bytes)?;
        let chosen = spread(bytes.div_ceil(PACKET_BYTES), count, seed);
        let pages = chosen.into_iter().map(|index| {
            let bytes = (bytes - index * PACKET_BYTES).min(PACKET_BYTES) as usize;
            let mut pages = vec![0; bytes];
            for (page, number) in pages.chunks_mut(PAGE).zip(index * PACKET_PAGES..) {
                made_up::fill(page, seed, number);
            }
            pages
        });
        Self::new(bytes, pages)
    }

    fn new(bytes: u64, packets: impl Iterator<Item = Vec<u8>>) -> Result<Self, Failure> {
        let mut private = Vec::new();
        let mut counts = Vec::new();
        for packet in packets {
            let mut count = Counts::default();
            for page in packet.chunks(PAGE) {
                if page.iter().all(|&byte| byte == 0) {
                    count.zero += 1;
                } else {
                    count.normal += 1;
                    private.extend_from_slice(page);
                }
            }
            counts.push(count);
        }
        // A block cannot be empty.
        let room = private.len().max(PAGE) as u64;
        let block = RamBlock::new(
            BlockName::new("sample")?,
            mapping::anonymous(room).map_err(Failure::new)?,
        );
        block.write(0, &private);
        let offsets = (0..private.len() as u64).step_by(PAGE).collect();
        Ok(Self { bytes, block, private, offsets, packets: counts })
    }

    /// The block with the sampled pages.
    pub(super) fn block(&self) -> &RamBlock {
        &self.block
    }

    /// Each packet.
    pub(super) fn packets(&self) -> Result<Vec<Packet<'_>>, Failure> {
        let mut at = 0;
        let packets = self.packets.iter().map(|count| {
            let range = at..at + count.normal;
            at = range.end;
            let zero = count.zero as u64;
            if range.is_empty() {
                return Ok(Packet { normal: None, zero });
            }
            let private = &self.private[range.start * PAGE..range.end * PAGE];
            let guest = GuestPages::new(&self.block, PageSize::Kib4, &self.offsets[range])?;
            Ok(Packet { normal: Some(NormalPages::new(guest, Some(private))), zero })
        });
        packets.collect()
    }

    /// The share of sampled pages that are zero.
    pub(super) fn zero_share(&self) -> f64 {
        let zero: usize = self.packets.iter().map(|count| count.zero).sum();
        let pages: usize = self.packets.iter().map(|count| count.zero + count.normal).sum();
        zero as f64 / pages as f64
    }

    /// Packets that were looked at.
    pub(super) fn len(&self) -> usize {
        self.packets.len()
    }
}

/// `count` of the numbers below `end`, one in each of as many stretches of equal length, shuffled.
fn spread(end: u64, count: u64, seed: u64) -> Vec<u64> {
    let count = count.min(end);
    let mut noise = Noise::new(seed, end);
    let mut chosen: Vec<_> = (0..count)
        .map(|stretch| {
            let bound =
                |stretch: u64| (u128::from(stretch) * u128::from(end) / u128::from(count)) as u64;
            let (start, end) = (bound(stretch), bound(stretch + 1));
            start + noise.below(end - start)
        })
        .collect();
    for last in (1..chosen.len()).rev() {
        chosen.swap(last, noise.below(last as u64 + 1) as usize);
    }
    chosen
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
    fn a_small_memory_is_looked_at_whole() {
        let mut all = spread(7, 512, 3);
        all.sort_unstable();
        assert_eq!(all, (0..7).collect::<Vec<_>>());
        let sample = Sample::made_up(200 * PAGE as u64, 512, 1).unwrap();
        let pages: usize = sample.packets.iter().map(|count| count.normal + count.zero).sum();
        assert_eq!((sample.len(), pages), (2, 200));
    }
}
