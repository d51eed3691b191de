//! The guest that is migrated: some 200 pages, what it writes between two rounds, and its device state.

use std::sync::{Arc, LazyLock};

use multifd::PageSet;
use multifd::core::PageSize;
use multifd::core::ram::{BlockMemory, Ram, RamBlock};
use multifd::core::vm_memory::MmapRegion;
use multifd::core::wire::BlockName;
use multifd::stream::FullSection;

use crate::common::content;

pub(crate) const PAGE: usize = 4096;

/// The blocks, with their pages.
const BLOCKS: [(&str, usize); 3] = [("pc.ram", 160), ("/rom@etc/acpi/tables", 8), ("vga", 32)];

/// What is written in each round: a block, a page of it, and what kind of page it becomes.
const WRITES: [&[(usize, usize, u8)]; 2] = [
    &[(0, 1, 1), (0, 3, 0), (0, 77, 2), (0, 90, 1), (0, 158, 2), (2, 0, 1), (2, 31, 0)],
    &[(0, 1, 2), (0, 0, 1), (0, 12, 2), (1, 5, 1), (2, 31, 1)],
];

/// Rounds before the last.
pub(crate) const ROUNDS: usize = WRITES.len();

/// A guest, and what its memory should hold.
#[derive(Debug)]
pub(crate) struct Guest {
    pub(crate) ram: Arc<Ram>,
    expected: Vec<Vec<u8>>,
}

impl Guest {
    pub(crate) fn new() -> Self {
        Self::in_memory(|region| region)
    }

    /// A guest whose memory is behind what `wrap` makes of it.
    pub(crate) fn in_memory<M: BlockMemory + 'static>(wrap: impl Fn(MmapRegion<()>) -> M) -> Self {
        static INITIAL: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
            let block = |(block, (_, pages)): (usize, (&str, usize))| {
                (0..pages).flat_map(|at| page(block, at, (at % 3) as u8)).collect()
            };
            BLOCKS.into_iter().enumerate().map(block).collect()
        });
        let expected = INITIAL.clone();
        let blocks = BLOCKS.iter().zip(&expected).map(|((name, _), bytes)| {
            let memory = MmapRegion::new(bytes.len()).unwrap();
            BlockMemory::slice(&memory, 0, bytes.len()).unwrap().copy_from(&bytes[..]);
            RamBlock::new(BlockName::new(name).unwrap(), wrap(memory))
        });
        let ram = Arc::new(Ram::new(PageSize::Kib4, blocks).unwrap());
        Self { ram, expected }
    }

    /// What the guest writes while the round runs: the pages of the next.
    pub(crate) fn write(&mut self, round: usize) -> PageSet {
        let mut dirty = PageSet::none(&self.ram);
        for &(block, at, kind) in WRITES[round] {
            let bytes = page(block, at, kind);
            self.ram.blocks()[block].write((at * PAGE) as u64, &bytes);
            self.expected[block][at * PAGE..][..PAGE].copy_from_slice(&bytes);
            dirty.insert(block, (at * PAGE) as u64).unwrap();
        }
        dirty
    }

    /// Whether `ram` has the guest's blocks and what they should hold.
    pub(crate) fn is_in(&self, ram: &Ram) -> Result<(), String> {
        if ram.blocks().len() != BLOCKS.len() {
            return Err(format!("{} blocks", ram.blocks().len()));
        }
        for ((name, _), expected) in BLOCKS.iter().zip(&self.expected) {
            let block = ram.block(name).ok_or_else(|| format!("no block {name}"))?;
            if block.bytes() != expected.len() as u64 {
                return Err(format!("{name} has {} bytes", block.bytes()));
            }
            let there = content(ram, name);
            if there != *expected {
                let at = there.iter().zip(expected).position(|(there, own)| there != own);
                return Err(format!("{name} differs from byte {at:x?} on"));
            }
        }
        Ok(())
    }
}

/// A page: zero, noise or text by its kind.
fn page(block: usize, at: usize, kind: u8) -> Vec<u8> {
    let mut state = (block as u64) << 40 | (at as u64) << 8 | u64::from(kind);
    let mut byte = |index: usize| match kind {
        0 => 0,
        1 => {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        }
        _ => b"migrate "[index % 8] ^ (at as u8 >> 3),
    };
    (0..PAGE).map(&mut byte).collect()
}

/// What the devices hold.
pub(crate) fn device_state() -> Vec<u8> {
    let body: Vec<u8> = (0..60_u8).map(|byte| byte.wrapping_mul(77)).collect();
    FullSection { name: "vcpu", version: 1, body: &body }.to_device_state(PageSize::Kib4).unwrap()
}
