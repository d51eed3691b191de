//! What the threads of a relay know of each other.

use std::sync::Arc;

use multifd_core::channel::PacketBuffer;
use multifd_core::wire::{InitialPacket, Pages, RamPacket};
use multifd_core::{PageSize, PeerError};

use crate::engine::Receiving;
use crate::engine::channels::Sending;
use crate::engine::queue::Queue;
use crate::engine::return_path::ReturnPath;
use crate::error::Error;
use crate::stream::BlockInfo;

/// What the threads of a relay know of each other.
pub(super) type State = Receiving<Relaying>;

/// What a relay's threads know beyond a receiving side's.
#[derive(Debug)]
pub(super) struct Relaying {
    /// The VM, from when the main channel has announced it.
    pub(super) vm: Option<Arc<Vm>>,
    /// As what the channels to the destination have been announced.
    pub(super) announced: Option<InitialPacket>,
    /// Packets on their way from the receiving to the sending channels.
    pub(super) queue: Queue<PacketBuffer>,
    /// Buffers that nobody uses. There are never more buffers than channels on both sides and
    /// places in the queue.
    pub(super) spares: Vec<PacketBuffer>,
    pub(super) return_path: ReturnPath,
    /// What the destination has refused the migration with, if nothing had failed before. The source,
    /// which is told of it, may leave before this side has stopped for it.
    pub(super) refused: Option<u32>,
    /// The destination's confirmation has not been passed on: the source does not know of it.
    pub(super) source_untold: bool,
    /// The main channel has been passed on to its end.
    pub(super) main_over: bool,
}

/// What the source has said of its VM.
#[derive(Debug)]
pub(super) struct Vm {
    pub(super) page_size: PageSize,
    pub(super) blocks: Vec<BlockInfo>,
}

impl Relaying {
    pub(super) fn new(to_channels: u8) -> Self {
        Self {
            vm: None,
            announced: None,
            queue: Queue::new(to_channels),
            spares: Vec::new(),
            return_path: ReturnPath::default(),
            refused: None,
            source_untold: false,
            main_over: false,
        }
    }

    /// The destination has said that it has everything. The source, of which not everything may have
    /// been passed on, would believe it: it is not to hear of what is an error here.
    pub(super) fn confirm(&mut self) -> Result<(), Error> {
        self.return_path.confirm()?;
        self.source_untold = true;
        Ok(())
    }

    /// Whether the destination has everything, and the source has been told.
    pub(super) fn is_told(&self) -> bool {
        self.return_path.is_confirmed() && !self.source_untold
    }

    /// Queues what is in `buffer`, if there is room and every sending channel has passed the last
    /// sync: no page may overtake one of the round before.
    pub(super) fn pass_on(&mut self, buffer: &mut Option<PacketBuffer>) -> Option<()> {
        if !self.queue.all_synced() {
            return None;
        }
        self.queue.push(buffer)
    }
}

impl State {
    /// Checks that every channel that has begun is what has been announced to the destination, which was
    /// done as soon as one spoke.
    pub(super) fn check_announced(&self) -> Result<(), Error> {
        let connections = &self.connections;
        let digests = connections.begun_announce_digests().ok_or(Error::MixedDigests)?;
        let is_it = |announced: InitialPacket| {
            connections.begun_uuid() == Some(announced.uuid) && announced.digests == digests
        };
        if self.more.announced.is_some_and(is_it) { Ok(()) } else { Err(Error::Forestalled) }
    }

    /// Has every sending channel sync, and the receiving ones go on, if all of these are at their
    /// SYNC: then every page before it has been queued.
    pub(super) fn pass_sync(&mut self) -> Option<Result<(), Error>> {
        let passed = self.pass()?;
        if passed.is_ok() {
            self.more.queue.ask_sync();
        }
        Some(passed)
    }
}

impl Sending for State {
    type Batch = PacketBuffer;

    fn queue(&mut self) -> &mut Queue<PacketBuffer> {
        &mut self.more.queue
    }

    fn give_back(&mut self, buffer: PacketBuffer) {
        self.more.spares.push(buffer);
    }
}

impl AsRef<ReturnPath> for State {
    fn as_ref(&self) -> &ReturnPath {
        &self.more.return_path
    }
}

impl Vm {
    /// Checks that the VM has the pages of a packet.
    pub(super) fn check(&self, packet: &RamPacket<'_>) -> Result<(), PeerError> {
        packet.pages.map_or(Ok(()), |pages| self.check_pages(&pages))
    }

    fn check_pages(&self, pages: &Pages<'_>) -> Result<(), PeerError> {
        let name = pages.block;
        let block = self.blocks.iter().find(|block| block.name.as_str() == name);
        let block = block.ok_or_else(|| PeerError::UnknownBlock { name: name.to_owned() })?;
        // Both are multiples of the page size, so a page that starts inside also ends inside.
        let mut offsets = pages.normal.iter().chain(pages.zero).map(|offset| offset.get());
        match offsets.find(|&offset| offset >= block.bytes) {
            None => Ok(()),
            Some(offset) => {
                let (block, bytes) = (block.name.clone(), block.bytes);
                Err(PeerError::OffsetPastEnd { offset, block, bytes })
            }
        }
    }
}
