//! What is against the format, or unusual.

use std::fmt;

use multifd_core::wire::{BlockName, Uuid};
use multifd_core::{Compression, PeerError};

/// Something that is against the format, or unusual, and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// Where it is.
    pub place: Place,
    /// What it is.
    pub kind: FindingKind,
}

/// A place in a migration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub struct Place {
    /// Which connection.
    pub connection: Connection,
    /// The byte of the connection, from 0: of the field where that is known, else where the packet
    /// or section starts.
    pub offset: u64,
    /// The packet's place on its channel, from 0; the initial packet is not counted.
    pub packet: Option<u64>,
    /// The packet's number in the source's count.
    pub packet_num: Option<u64>,
}

/// One of a migration's connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Connection {
    /// The main channel.
    Main,
    /// A multifd channel, by its place among them from 0, which is not always the id it gives.
    Channel(usize),
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Severity {
    /// Against the format: a destination refuses it or gets a damaged VM.
    Error,
    /// Unusual.
    Note,
}

/// What is found. The text says what is there and what should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FindingKind {
    /// Bytes that are no packet.
    #[error("{0}; the rest of the channel is not looked at")]
    Malformed(PeerError),
    /// A connection that ends in a packet.
    #[error("the channel ends within {within}, of which {missing} bytes are missing")]
    Cut {
        /// The part of the packet.
        within: &'static str,
        /// Bytes of that part that are missing.
        missing: u64,
    },
    /// An id at or past the number of channels.
    #[error("the channel has the id {id}, but there are {channels} channels: ids go from 0")]
    ChannelId {
        /// The id.
        id: u8,
        /// How many channels there are.
        channels: usize,
    },
    /// Two channels with one id.
    #[error("the channel has the id {id}, as channel {other} has")]
    RepeatedChannelId {
        /// The id of both.
        id: u8,
        /// The other one's place.
        other: usize,
    },
    /// A channel of another VM.
    #[error("the channel is of the VM {found}, but {from} is of {expected}")]
    Uuid {
        /// The UUID of the channel.
        found: Uuid,
        /// What the other UUID is from.
        from: &'static str,
        /// The UUID it should have.
        expected: Uuid,
    },
    /// A packet of another codec than those before.
    #[error("the packet is compressed with {found}, packets before with {expected}")]
    Compression {
        /// This packet's codec.
        found: Compression,
        /// The codec of those before.
        expected: Compression,
    },
    /// Device state on the channels, beside compressed pages.
    #[error("device state comes on a channel, which goes with compression none alone, not {0}")]
    DeviceStateCompression(Compression),
    /// A block that the main channel has not listed.
    #[error("the packet names the RAM block '{0}', which the main channel does not list")]
    UnknownBlock(String),
    /// A page past the end of its block.
    #[error("the page {offset:#x} is past the end of the RAM block '{block}' ({bytes:#x} bytes)")]
    OutsideBlock {
        /// The page's offset in bytes.
        offset: u64,
        /// The block.
        block: BlockName,
        /// The block's size in bytes.
        bytes: u64,
    },
    /// The lengths in a payload do not go together.
    #[error("{0}")]
    Lengths(String),
    /// A number that is not above the one before on the channel.
    #[error("packet_num is {found} after {last}: it grows along a channel")]
    NumberOrder {
        /// The packet's number.
        found: u64,
        /// The highest number before.
        last: u64,
    },
    /// A number that another channel's packet has.
    #[error("packet_num is {0}, which a packet of another channel has: all have one counter")]
    RepeatedNumber(u64),
    /// Numbers that no packet has.
    #[error(
        "{missing} packet numbers are missing, the first is {first}: packets or a channel are lost"
    )]
    MissingNumbers {
        /// How many.
        missing: u64,
        /// The first of them.
        first: u64,
    },
    /// Not as many SYNC packets as the main channel has syncs, or another channel.
    #[error("the channel has {found} SYNC packets, {from} has {expected}")]
    SyncCount {
        /// How many there are.
        found: u64,
        /// What the other number is from.
        from: &'static str,
        /// How many there should be.
        expected: u64,
    },
    /// Pages behind the last SYNC.
    #[error("{0} packets with pages come after the channel's last SYNC")]
    AfterLastSync(u64),
    /// One page on two connections in one round.
    #[error(
        "the page {offset:#x} of '{block}' came on {other} in the same round{}: which of the two \
         stays is open", more(*pages)
    )]
    TwoConnections {
        /// The first such page of the packet, its offset in bytes.
        offset: u64,
        /// Its block.
        block: BlockName,
        /// Where it came before.
        other: Connection,
        /// How many such pages the packet has.
        pages: u64,
    },
    /// Something on the main channel.
    #[error("{0}; the rest of the main channel is not looked at")]
    Main(String),
    /// Bytes behind the end of the main channel.
    #[error("{0} bytes follow the VMDESCRIPTION, which ends the stream")]
    Trailing(u64),
    /// A VMDESCRIPTION that does not say what the device state is.
    #[error("{0}")]
    Description(String),
    /// A page twice in one packet.
    #[error("the page {offset:#x} of '{block}' is in the packet twice{}", more(*pages))]
    RepeatedInPacket {
        /// The first such page of the packet, its offset in bytes.
        offset: u64,
        /// Its block.
        block: BlockName,
        /// How many such pages the packet has.
        pages: u64,
    },
    /// A page twice in one round, on one channel.
    #[error("the page {offset:#x} of '{block}' came on this channel in the same round{}",
        more(*pages))]
    RepeatedInRound {
        /// The first such page of the packet, its offset in bytes.
        offset: u64,
        /// Its block.
        block: BlockName,
        /// How many such pages the packet has.
        pages: u64,
    },
    /// A packet that says nothing.
    #[error("the packet has neither pages nor SYNC, as QEMU before 9.0 may send one")]
    Empty,
    /// A codec that is none of QEMU's.
    #[error("the codec is {0}, which no QEMU knows")]
    PrivateCodec(Compression),
    /// Something where nothing should be.
    #[error("bytes of the packet that mean nothing are not zero")]
    Unused,
    /// Pages that did not come.
    #[error("{pages} of the {of} pages of '{block}' never came")]
    NeverSent {
        /// How many pages.
        pages: u64,
        /// The block's size in pages.
        of: u64,
        /// The block.
        block: BlockName,
    },
    /// No VMDESCRIPTION.
    #[error("there is no VMDESCRIPTION: the device state cannot be told apart")]
    NoDescription,
    /// The history of a page was not kept.
    #[error("{0} pages were not checked for coming twice in a round: there are too many")]
    Untracked(u64),
}

/// How many pages there are beside the one named.
fn more(pages: u64) -> String {
    match pages {
        0 | 1 => String::new(),
        pages => format!(", and {} more with it", pages - 1),
    }
}

impl FindingKind {
    /// How bad it is.
    pub fn severity(&self) -> Severity {
        match self {
            Self::RepeatedInPacket { .. }
            | Self::RepeatedInRound { .. }
            | Self::Empty
            | Self::PrivateCodec(_)
            | Self::Unused
            | Self::NeverSent { .. }
            | Self::NoDescription
            | Self::Untracked(_) => Severity::Note,
            _ => Severity::Error,
        }
    }

    /// A name for it that does not change, for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "malformed",
            Self::Cut { .. } => "cut",
            Self::ChannelId { .. } => "channel-id",
            Self::RepeatedChannelId { .. } => "repeated-channel-id",
            Self::Uuid { .. } => "uuid",
            Self::Compression { .. } => "compression",
            Self::DeviceStateCompression(_) => "device-state-compression",
            Self::UnknownBlock(_) => "unknown-block",
            Self::OutsideBlock { .. } => "outside-block",
            Self::Lengths(_) => "lengths",
            Self::NumberOrder { .. } => "number-order",
            Self::RepeatedNumber(_) => "repeated-number",
            Self::MissingNumbers { .. } => "missing-numbers",
            Self::SyncCount { .. } => "sync-count",
            Self::AfterLastSync(_) => "after-last-sync",
            Self::TwoConnections { .. } => "two-connections",
            Self::Main(_) => "main",
            Self::Trailing(_) => "trailing",
            Self::Description(_) => "description",
            Self::RepeatedInPacket { .. } => "repeated-in-packet",
            Self::RepeatedInRound { .. } => "repeated-in-round",
            Self::Empty => "empty",
            Self::PrivateCodec(_) => "private-codec",
            Self::Unused => "unused",
            Self::NeverSent { .. } => "never-sent",
            Self::NoDescription => "no-description",
            Self::Untracked(_) => "untracked",
        }
    }
}

impl fmt::Display for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Main => f.pad("main channel"),
            Self::Channel(number) => f.pad(&format!("channel {number}")),
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Error => "error",
            Self::Note => "note",
        })
    }
}

/// `channel 1, byte 2752, packet 2 (packet_num 5)`.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, byte {}", self.connection, self.offset)?;
        if let Some(packet) = self.packet {
            write!(f, ", packet {packet}")?;
        }
        if let Some(number) = self.packet_num {
            write!(f, " (packet_num {number})")?;
        }
        Ok(())
    }
}

/// `error: channel 1, byte 2752, packet 2: …`.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.kind.severity(), self.place, self.kind)
    }
}
