//! What is against the format, or unusual.

use std::fmt;

use multifd_core::wire::{BlockName, Uuid};
use multifd_core::{Compression, PeerError};

/// A violation of the format, or something unusual, with its place.
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
    /// A byte of the connection, from 0: where the field starts if that is known, else the packet or
    /// the section.
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
    /// A multifd channel, by its index in the order of [`Inspector::connect`]; its initial packet may
    /// give another id.
    ///
    /// [`Inspector::connect`]: super::Inspector::connect
    Channel(usize),
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Severity {
    /// A violation of the format: a destination refuses it or gets a damaged VM.
    Error,
    /// Unusual.
    Note,
}

/// What was found. The text says what is there and what should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FindingKind {
    /// Bytes that are not a valid packet.
    #[error("{0}; the rest of the channel is not inspected")]
    Malformed(PeerError),
    /// A channel that ends within a packet.
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
    #[error("the channel has the id {id}, which channel {other} also has")]
    RepeatedChannelId {
        /// The id of both.
        id: u8,
        /// The index of the other channel.
        other: usize,
    },
    /// A channel of another VM.
    #[error("the channel has the VM's UUID {found}, but {from} has {expected}")]
    Uuid {
        /// The UUID of the channel.
        found: Uuid,
        /// Where the other UUID comes from.
        from: &'static str,
        /// The UUID it should have.
        expected: Uuid,
    },
    /// A packet of another codec than earlier packets.
    #[error("the packet is compressed with {found}, earlier packets with {expected}")]
    Compression {
        /// This packet's codec.
        found: Compression,
        /// The codec of earlier packets.
        expected: Compression,
    },
    /// Device state on the channels beside compressed pages.
    #[error("device state comes on a channel, which only the codec none allows, not {0}")]
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
    /// The lengths in a payload contradict the packet or each other.
    #[error("{0}")]
    Lengths(String),
    /// A number that is not above the previous one of the channel.
    #[error("packet_num is {found} after {last}: it must grow along a channel")]
    NumberOrder {
        /// The packet's number.
        found: u64,
        /// The highest number so far.
        last: u64,
    },
    /// A number that a packet of another channel also has.
    #[error("packet_num is {0}, which another channel's packet also has: all share one counter")]
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
    /// Another number of SYNC packets than the main channel has syncs, or than another channel has.
    #[error("the channel has {found} SYNC packets, {from} has {expected}")]
    SyncCount {
        /// How many there are.
        found: u64,
        /// Where the other number comes from.
        from: &'static str,
        /// How many there should be.
        expected: u64,
    },
    /// Pages after the last SYNC.
    #[error("{0} packets with pages come after the channel's last SYNC")]
    AfterLastSync(u64),
    /// One page on two connections in one round.
    #[error(
        "the page {offset:#x} of '{block}' also came on {other} in the same round{}: which copy \
         is kept is undefined", more(*pages)
    )]
    TwoConnections {
        /// The first such page of the packet, its offset in bytes.
        offset: u64,
        /// Its block.
        block: BlockName,
        /// The connection on which it came first.
        other: Connection,
        /// How many such pages the packet has.
        pages: u64,
    },
    /// An error on the main channel.
    #[error("{0}; the rest of the main channel is not inspected")]
    Main(String),
    /// Bytes after the end of the main channel.
    #[error("{0} bytes follow the VMDESCRIPTION, which ends the stream")]
    Trailing(u64),
    /// A VMDESCRIPTION that does not match the device state.
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
    #[error("the page {offset:#x} of '{block}' came twice on this channel in one round{}",
        more(*pages))]
    RepeatedInRound {
        /// The first such page of the packet, its offset in bytes.
        offset: u64,
        /// Its block.
        block: BlockName,
        /// How many such pages the packet has.
        pages: u64,
    },
    /// A packet without pages and SYNC.
    #[error("the packet has neither pages nor SYNC; QEMU before 9.0 may send such packets")]
    Empty,
    /// A codec that QEMU does not have.
    #[error("the codec is {0}, which no QEMU knows")]
    PrivateCodec(Compression),
    /// Unused bytes that are not zero.
    #[error("unused bytes of the packet are not zero")]
    Unused,
    /// Pages that never came.
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
    #[error("there is no VMDESCRIPTION, so the device state cannot be split into devices")]
    NoDescription,
    /// Pages whose history was not kept.
    #[error("{0} pages were not checked for coming twice in a round: there are too many")]
    Untracked(u64),
}

/// How many pages there are besides the named one.
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

    /// A name for programs. It never changes.
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
