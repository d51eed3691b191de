//! Where the threads of a relay meet.

use std::sync::Arc;

use multifd_core::channel::PacketBuffer;
use multifd_core::wire::{BlockName, Pages, RamPacket};
use multifd_core::{PageSize, PeerError};

use crate::destination::state::State as Incoming;
use crate::error::Error;
use crate::source::queue::Queue;
use crate::stream::BlockInfo;

/// What the threads of a relay know of each other.
///
/// The main thread and the receiving channels wait as a session's main thread, the sending channels
/// as its channels.
#[derive(Debug)]
pub(super) struct State {
    incoming: Incoming,
    vm: Option<Arc<Vm>>,
    /// Packets on their way from the receiving to the sending channels.
    pub(super) queue: Queue<PacketBuffer>,
    /// Buffers that nobody uses. There are never more buffers than channels on both sides and
    /// places in the queue.
    spares: Vec<PacketBuffer>,
    pub(super) answers: Answers,
    /// The source has opened the return path.
    pub(super) return_path: bool,
    /// The main channel has been forwarded to its end.
    pub(super) main_over: bool,
}

/// What the destination has said on the return path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Answers {
    /// Nothing yet.
    #[default]
    Open,
    /// That it has everything.
    Confirmed,
    /// Nothing, and it has closed.
    Closed,
}

/// What the source has said of its VM.
#[derive(Debug)]
pub(super) struct Vm {
    pub(super) page_size: PageSize,
    pub(super) blocks: Vec<BlockInfo>,
}

impl State {
    /// The state of a relay from `from_channels` to `to_channels` channels.
    pub(super) fn new(from_channels: u8, to_channels: u8) -> Self {
        Self {
            incoming: Incoming::new(from_channels, None),
            vm: None,
            queue: Queue::new(to_channels.into()),
            spares: Vec::new(),
            answers: Answers::default(),
            return_path: false,
            main_over: false,
        }
    }

    pub(super) fn set_vm(&mut self, vm: &Arc<Vm>) {
        self.vm = Some(Arc::clone(vm));
    }

    pub(super) fn vm(&self) -> Option<Arc<Vm>> {
        self.vm.clone()
    }

    /// Queues what is in `buffer`, if there is room and every sending channel has passed the last
    /// sync: no page may overtake one of the round before. `buffer` is then a spare one, or none.
    pub(super) fn pass_on(&mut self, buffer: &mut Option<PacketBuffer>) -> Option<()> {
        if !self.queue.all_synced() {
            return None;
        }
        self.queue.push(buffer)?;
        *buffer = self.spares.pop();
        Some(())
    }

    /// A buffer whose packet has been sent.
    pub(super) fn give_back(&mut self, buffer: PacketBuffer) {
        self.spares.push(buffer);
    }

    /// Has every sending channel sync, and the receiving ones go on, if all of these are at their
    /// SYNC: then every page before it has been queued.
    pub(super) fn pass_sync(&mut self) -> Option<Result<(), Error>> {
        let passed = self.incoming.pass_sync()?;
        if passed.is_ok() {
            self.queue.ask_sync();
        }
        Some(passed)
    }
}

impl AsRef<Incoming> for State {
    fn as_ref(&self) -> &Incoming {
        &self.incoming
    }
}

impl AsMut<Incoming> for State {
    fn as_mut(&mut self) -> &mut Incoming {
        &mut self.incoming
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
                let name = BlockName::new(name).map_err(|_| PeerError::NameEmpty)?;
                Err(PeerError::OffsetPastEnd { offset, block: name, bytes: block.bytes })
            }
        }
    }
}
