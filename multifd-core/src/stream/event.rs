//! What the main channel says.

use super::{BlockInfo, Configuration, MappedBlock, PostcopyAdvise, SyncForm};
use crate::PageSize;

/// What a decoder expects and accepts.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// The page size that the source must have. `None` takes what CONFIGURATION says, or 4 KiB.
    pub page_size: Option<PageSize>,
    /// The most bytes of device state. 256 MiB unless said otherwise.
    pub device_state: usize,
    /// The most bytes of all [`MainEvent::EarlyState`] together. 64 MiB unless said otherwise.
    pub early_state: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { page_size: None, device_state: 256 << 20, early_state: 64 << 20 }
    }
}

/// What the main channel says. A [`MainDecoder`](super::MainDecoder) gives the events in this
/// order:
///
/// `Configuration`; `RamStart`, `Sync`; any number of `ZeroPage`, `Page`, `Sync` with a `BodyEnd`
/// after each PART; the same for END, whose `BodyEnd` is the last one; `DeviceState`.
/// `OpenReturnPath`, `Ping`, `PostcopyAdvise` and `SwitchoverStart` come between any two sections
/// before `DeviceState`, and so does `EarlyState` before END.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MainEvent {
    /// The header was right, and the stream is of this machine. Always the first.
    Configuration(Configuration),
    /// The source waits for answers on the return path ([`ReturnMessage`](super::ReturnMessage)).
    OpenReturnPath,
    /// The source asks for a [`Pong`](super::ReturnMessage::Pong) with the same number.
    Ping(u32),
    /// The source may want to switch to postcopy later.
    PostcopyAdvise(PostcopyAdvise),
    /// A section that comes before the pages, byte for byte with its FOOTER: the FULL section of a
    /// device that sends its state early, or the START of dirty-bitmap without bitmaps. QEMU 10.0
    /// sends them between START and the first PART, QEMU 11.1 before START. A section's end shows in
    /// the bytes behind it.
    EarlyState(Vec<u8>),
    /// The source has switched to postcopy: the guest goes on at the destination while its pages still
    /// come, here and no longer on the multifd channels. Only from a decoder that is
    /// [`passing_postcopy`](super::MainDecoder::passing_postcopy), and its last event; others refuse
    /// the command.
    Postcopy,
    /// The guest has stopped; the last round is next. QEMU 10.0 and later, newer machine types.
    SwitchoverStart,
    /// Where a RAM block is in a file, from a decoder of [mapped-ram](super::MainDecoder::of_mapped_ram) alone, for each
    /// block before `RamStart`. The stream [goes on](super::MainDecoder::continue_at) at the block's
    /// [`end`](MappedBlock::end).
    MappedBlock(MappedBlock),
    /// The RAM that will come. A [`Sync`](Self::Sync) follows.
    RamStart {
        /// The number by which the ram section goes in this stream.
        section_id: u32,
        /// Its instance; 0 from QEMU.
        instance_id: u32,
        /// The RAM blocks. At least one, no two of one name.
        blocks: Vec<BlockInfo>,
        /// How this stream says [`Sync`](Self::Sync).
        sync: SyncForm,
    },
    /// Wait here until every multifd channel is at its next SYNC, then let all go on.
    Sync,
    /// A page that is all zero.
    ZeroPage {
        /// Its block, as an index into the list of `RamStart`.
        block: usize,
        /// Where in the block: a multiple of the page size, inside.
        offset: u64,
    },
    /// A page that comes on the main channel itself. With multifd that is rare.
    Page {
        /// Its block, as an index into the list of `RamStart`.
        block: usize,
        /// Where in the block: a multiple of the page size, inside.
        offset: u64,
        /// The page.
        data: Box<[u8]>,
    },
    /// The end of a PART or of END. With [`SyncForm::Flush`] that is not the end of a round.
    BodyEnd {
        /// It was END: no page comes after it.
        last: bool,
    },
    /// A piece of the device state, from a decoder that is
    /// [`giving_device_state_in_pieces`](super::MainDecoder::giving_device_state_in_pieces). All pieces
    /// together are the device state; its end is known only with [`DeviceState`](Self::DeviceState),
    /// which then is empty.
    DeviceStatePiece(Vec<u8>),
    /// The device state, byte for byte: FULL sections, EOF and, unless the source suppresses it,
    /// VMDESCRIPTION. Without devices only the latter. The stream is complete.
    DeviceState(Vec<u8>),
}
