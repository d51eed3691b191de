//! A packet's pages between two channels.

use vm_memory::MmapRegion;

use crate::error::Error;
use crate::page_size::{PACKET_BYTES, PageSize};
use crate::ram::{GuestPages, RamBlock, ZEROS};
use crate::wire::{BlockName, Pages};

/// The pages of one packet, in memory of their own: what a relay takes from one channel and puts
/// on another, without the VM's RAM.
///
/// [`RecvMachine::place`](super::RecvMachine::place) takes it to be filled,
/// [`SendMachine::buffer`](super::SendMachine::buffer) to send what it holds. Its memory,
/// 512 KiB, is reused from packet to packet.
#[derive(Debug)]
pub struct PacketBuffer {
    /// The content of the normal pages, one behind the other.
    memory: RamBlock,
    page_size: PageSize,
    /// Where in `memory` each page slot is.
    slots: Box<[u64]>,
    /// The block that the pages are of; `None` before the first packet with pages.
    block: Option<BlockName>,
    /// The offsets of the pages in their block: the normal ones, then the zero ones.
    offsets: Vec<u64>,
    normal: usize,
}

impl PacketBuffer {
    /// An empty buffer for pages of `page_size`.
    ///
    /// # Errors
    /// Where there is no memory.
    pub fn new(page_size: PageSize) -> Result<Self, Error> {
        let memory = MmapRegion::<()>::new(PACKET_BYTES)
            .map_err(|error| Error::backend(format!("no memory for a packet's pages: {error}")))?;
        let slots = (0..page_size.page_count()).map(|slot| (slot * page_size.bytes()) as u64);
        Ok(Self {
            memory: RamBlock::new(BlockName::new("packet")?, memory),
            page_size,
            slots: slots.collect(),
            block: None,
            offsets: Vec::with_capacity(page_size.page_count()),
            normal: 0,
        })
    }

    /// The size of a page.
    pub(super) fn page_size(&self) -> PageSize {
        self.page_size
    }

    /// Whether it holds no page.
    pub fn is_empty(&self) -> bool {
        self.offsets.is_empty()
    }

    /// Lets go of its pages.
    pub(super) fn clear(&mut self) {
        self.offsets.clear();
        self.normal = 0;
    }

    /// Takes note of a packet's pages, in an empty buffer. The content of the normal ones is the caller's to write.
    pub(super) fn set(&mut self, pages: &Pages<'_>) -> Result<(), Error> {
        self.normal = pages.normal.len();
        self.offsets.extend(pages.normal.iter().chain(pages.zero).map(|offset| offset.get()));
        // Most packets are of the block of the one before.
        if self.block.as_ref().is_none_or(|block| block.as_str() != pages.block) {
            self.block = Some(BlockName::new(pages.block)?);
        }
        Ok(())
    }

    /// Has those zero pages sent as normal ones that `is_normal` says, of their block and offset.
    pub(super) fn take_zero_as_normal(&mut self, is_normal: impl Fn(&BlockName, u64) -> bool) {
        let Some(block) = &self.block else { return };
        for at in self.normal..self.offsets.len() {
            if is_normal(block, self.offsets[at]) {
                self.offsets.swap(self.normal, at);
                self.memory.write(self.slots[self.normal], &ZEROS[..self.page_size.bytes()]);
                self.normal += 1;
            }
        }
    }

    /// The block of the pages; `None` where no packet with pages has come yet.
    pub(super) fn block(&self) -> Option<&BlockName> {
        self.block.as_ref()
    }

    /// The offsets of the normal pages in their block, and of the zero pages.
    pub(super) fn offsets(&self) -> [&[u64]; 2] {
        let (normal, zero) = self.offsets.split_at(self.normal);
        [normal, zero]
    }

    /// The memory of the normal pages, in the packet's order.
    pub(super) fn normal_pages(&self) -> GuestPages<'_> {
        GuestPages::found(&self.memory, self.page_size, &self.slots[..self.normal])
    }
}
