//! What can go wrong, split by whose fault it is.

use std::fmt;
use std::io;

use crate::foreign::described;
use crate::page_size::PageSize;
use crate::wire::{BlockName, Compression, UnknownCompression, Uuid};

/// An error on one channel or in its set-up: what happened, and where.
///
/// [`Display`](fmt::Display) is one sentence that begins with the place, as far as it is known:
/// `channel 3, packet 17, zstd: …`.
#[derive(Debug)]
pub struct Error(Box<Inner>);

#[derive(Debug)]
struct Inner {
    kind: ErrorKind,
    place: Place,
}

/// Where an error happened, as far as it is known.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The channel's number.
    pub channel: Option<u8>,
    /// The packet's number in the source's count.
    pub packet_num: Option<u64>,
    /// The codec.
    pub method: Option<Compression>,
    /// The page's index among the normal pages of its packet.
    pub page: Option<usize>,
}

/// An error by whose fault it is.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum ErrorKind {
    /// The peer sent bytes that are not what the format or the configuration says.
    #[error(transparent)]
    Peer(#[from] PeerError),
    /// The caller asked for something that cannot be.
    #[error(transparent)]
    Usage(#[from] UsageError),
    /// A connection or a file failed.
    #[error("{doing} failed")]
    Io {
        /// What was being done, such as "reading from the channel".
        doing: &'static str,
        /// The failure itself.
        source: io::Error,
    },
    /// A codec's library or device failed, through no fault of the peer's.
    #[error("{what}")]
    Backend {
        /// What failed, in words.
        what: String,
    },
}

/// What a peer sent and must not have.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// Not a multifd channel.
    #[error(
        "a packet starts with {found:#010x}, not with multifd's magic 0x11223344: what connected is not \
         a multifd channel"
    )]
    Magic {
        /// The word in place of the magic.
        found: u32,
    },
    /// A connection that is neither a main channel nor a multifd channel.
    #[error(
        "what connected starts with {first:02x?}, not with multifd's magic 0x11223344 or \"QEVM\": {}",
        described(*.first)
    )]
    NotAMigration {
        /// Its first bytes: see [`Foreign`](crate::Foreign).
        first: [u8; 4],
    },
    /// Another version of the format.
    #[error("a packet has version {found}; only version 1 exists")]
    Version {
        /// The version in the packet.
        found: u32,
    },
    /// The channel belongs to another VM.
    #[error(
        "the channel belongs to the VM {found}, expected is {expected}: give both sides the same \
         UUID"
    )]
    Uuid {
        /// The UUID that this side was set up with.
        expected: Uuid,
        /// The UUID in the initial packet.
        found: Uuid,
    },
    /// A channel number at or past the channel count.
    #[error(
        "a channel has the number {id}, but only {channels} channels are agreed (numbers from 0): \
         set the same number of channels on both sides"
    )]
    ChannelId {
        /// The number in the initial packet.
        id: u8,
        /// The number of channels that this side was set up with.
        channels: u8,
    },
    /// Two channels with one number.
    #[error("a second channel with the number {id}")]
    DuplicateChannel {
        /// The number of both.
        id: u8,
    },
    /// Flags that the format does not define.
    #[error("a packet has the flags {flags:#x}, but {unknown:#x} are not defined")]
    Flags {
        /// The whole word.
        flags: u32,
        /// The undefined bits in it.
        unknown: u32,
    },
    /// A packet made by another codec.
    #[error(
        "a packet is compressed with {found}, but {expected} is agreed: set the same compression \
         on both sides"
    )]
    Method {
        /// The codec that this side was set up with.
        expected: Compression,
        /// The codec that the packet names.
        found: Compression,
    },
    /// More page slots than a packet has.
    #[error("pages_alloc is {found}, a packet has {page_count} page slots")]
    PagesAlloc {
        /// The field's value.
        found: u32,
        /// Page slots in a packet.
        page_count: usize,
    },
    /// More normal pages than slots.
    #[error("normal_pages is {found}, the packet has {pages_alloc} slots")]
    NormalPages {
        /// The field's value.
        found: u32,
        /// Slots of the packet.
        pages_alloc: u32,
    },
    /// More zero pages than the slots left.
    #[error("zero_pages is {found}, the normal pages leave {left} slots")]
    ZeroPages {
        /// The field's value.
        found: u32,
        /// Slots that the normal pages leave.
        left: u32,
    },
    /// A payload size outside what the codec allows for the packet's pages.
    #[error("next_packet_size is {found}, the packet's pages allow {least} to {most}")]
    PayloadSize {
        /// The field's value.
        found: u32,
        /// The least that is allowed.
        least: usize,
        /// The most that is allowed.
        most: usize,
    },
    /// A name without its NUL.
    #[error("a name has no NUL in its 256 bytes")]
    NameNotTerminated,
    /// A name that is not UTF-8.
    #[error("a name is not UTF-8")]
    NameNotUtf8,
    /// Pages of a block without a name, or a device without an id.
    #[error("a name is empty")]
    NameEmpty,
    /// A block that this side does not have.
    #[error("the packet names the RAM block '{name}', which does not exist here")]
    UnknownBlock {
        /// The name in the packet.
        name: String,
    },
    /// An offset inside a page.
    #[error("the page offset {offset:#x} is not a multiple of the page size, {page_size}")]
    OffsetMisaligned {
        /// The offset in bytes.
        offset: u64,
        /// The page size of the migration.
        page_size: PageSize,
    },
    /// A page past the end of its block.
    #[error(
        "the page offset {offset:#x} is past the end of the block '{block}' ({bytes:#x} bytes)"
    )]
    OffsetPastEnd {
        /// The offset in bytes.
        offset: u64,
        /// The block.
        block: BlockName,
        /// The block's length in bytes.
        bytes: u64,
    },
    /// A device-state packet with another flag, or the other way round.
    #[error("a device-state packet with the flags {flags:#x}; it may have 0x40 alone")]
    DeviceStateFlags {
        /// The flags word.
        flags: u32,
    },
    /// A device-state packet without data.
    #[error("the state of the device '{device}' is announced with 0 bytes")]
    DeviceStateEmpty {
        /// The device's id.
        device: BlockName,
    },
    /// Device state where the receiver takes none.
    #[error(
        "the state of the device '{device}' comes on a multifd channel, which is not supported: \
         turn multifd device state off on the source (x-migration-multifd-transfer=off)"
    )]
    DeviceStateRefused {
        /// The device's id.
        device: BlockName,
    },
    /// The channel ended inside a packet.
    #[error(
        "the channel ended in the middle of a packet: the source failed, was cancelled or went away"
    )]
    Truncated,
    /// A payload that the codec cannot decode to exactly the packet's pages.
    #[error("the payload is malformed: {what}")]
    Payload {
        /// What the decoder found.
        what: String,
    },
}

/// What a caller asked for and cannot have.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UsageError {
    /// A codec that the registry does not hold.
    #[error("no codec is registered for '{wanted}'; registered are: {registered}; {how}")]
    NotRegistered {
        /// The codec asked for.
        wanted: String,
        /// The names of those there are.
        registered: String,
        /// What to do so that it is.
        how: &'static str,
    },
    /// Two codecs with one name or one value of the compression field.
    #[error("two codecs are registered as '{name}' ({compression})")]
    RegisteredTwice {
        /// The name of the second.
        name: &'static str,
        /// The value of both, or of the second where the names collide.
        compression: Compression,
    },
    /// A registered codec that cannot work here.
    #[error("{name} is not available: {reason}")]
    NotAvailable {
        /// The codec's name.
        name: &'static str,
        /// Why, in words a person can act on.
        reason: String,
    },
    /// A channel that has failed before.
    #[error("the channel has failed before and can only be dropped")]
    ChannelFailed,
    /// Memory for pages of another size than the channel's.
    #[error("the channel has pages of {channel}, the memory for them has pages of {given}")]
    TargetPageSize {
        /// The size of the channel's pages.
        channel: PageSize,
        /// The size of a page in the memory.
        given: PageSize,
    },
    /// A call that does not fit what a channel is doing.
    #[error("the channel is busy with something else: {call} was called out of turn")]
    OutOfTurn {
        /// The call.
        call: &'static str,
    },
    /// A text that does not name a codec.
    #[error(transparent)]
    UnknownCompression(#[from] UnknownCompression),
    /// A level that the codec does not have.
    #[error("{method} has no level {level}; its levels are {least} to {most}")]
    Level {
        /// The codec.
        method: Compression,
        /// The level asked for.
        level: i32,
        /// The lowest level.
        least: i32,
        /// The highest level.
        most: i32,
    },
    /// A level for a codec that has none.
    #[error("{method} has no levels, but level {level} was asked for")]
    NoLevels {
        /// The codec.
        method: Compression,
        /// The level asked for.
        level: i32,
    },
    /// A block name that the format cannot carry.
    #[error("'{name}' cannot name a RAM block: 1 to 255 bytes without NUL")]
    BlockName {
        /// The name.
        name: String,
    },
    /// Two blocks with one name.
    #[error("two RAM blocks are called '{name}'")]
    BlockTwice {
        /// The name of both.
        name: BlockName,
    },
    /// A block that is empty or holds a part of a page.
    #[error("the RAM block '{name}' has {bytes} bytes: not a multiple of {page_size}, or none")]
    BlockSize {
        /// The block.
        name: BlockName,
        /// Its length in bytes.
        bytes: u64,
        /// The page size of the migration.
        page_size: PageSize,
    },
    /// A page offset that the block does not have.
    #[error("the RAM block '{name}' has no page at offset {offset:#x}")]
    NoSuchPage {
        /// The block.
        name: BlockName,
        /// The offset in bytes.
        offset: u64,
    },
    /// More pages than a packet has slots, or none.
    #[error("a batch of {pages} pages; a packet holds 1 to {page_count}")]
    BatchSize {
        /// Pages in the batch.
        pages: usize,
        /// Page slots in a packet.
        page_count: usize,
    },
}

impl Error {
    /// The error by whose fault it is.
    pub fn kind(&self) -> &ErrorKind {
        &self.0.kind
    }

    /// Where it happened, as far as it is known.
    pub fn place(&self) -> Place {
        self.0.place
    }

    /// A payload that the codec cannot decode to exactly the packet's pages.
    pub fn payload(what: impl Into<String>) -> Self {
        PeerError::Payload { what: what.into() }.into()
    }

    /// A failure of a codec's library or device.
    pub fn backend(what: impl Into<String>) -> Self {
        ErrorKind::Backend { what: what.into() }.into()
    }

    /// A failure of a connection or file while `doing` something.
    pub fn io(doing: &'static str, source: io::Error) -> Self {
        ErrorKind::Io { doing, source }.into()
    }

    /// A failure to read from a channel.
    pub fn reading(source: io::Error) -> Self {
        Self::io("reading from the channel", source)
    }

    /// A failure to write to a channel.
    pub fn writing(source: io::Error) -> Self {
        Self::io("writing to the channel", source)
    }

    /// The same error with the channel, where none is set yet.
    #[must_use]
    pub fn on_channel(mut self, channel: u8) -> Self {
        self.0.place.channel.get_or_insert(channel);
        self
    }

    /// The same error with the packet's number, where none is set yet.
    #[must_use]
    pub fn in_packet(mut self, packet_num: u64) -> Self {
        self.0.place.packet_num.get_or_insert(packet_num);
        self
    }

    /// The same error with the codec, where none is set yet.
    #[must_use]
    pub fn with_method(mut self, method: Compression) -> Self {
        self.0.place.method.get_or_insert(method);
        self
    }

    /// The same error with the page's index in its packet, where none is set yet.
    #[must_use]
    pub fn at_page(mut self, page: usize) -> Self {
        self.0.place.page.get_or_insert(page);
        self
    }
}

impl<K: Into<ErrorKind>> From<K> for Error {
    fn from(kind: K) -> Self {
        Self(Box::new(Inner { kind: kind.into(), place: Place::default() }))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Place { channel, packet_num, method, page } = self.0.place;
        let mut separator = "";
        let mut part = |f: &mut fmt::Formatter<'_>, text: fmt::Arguments<'_>| {
            write!(f, "{}{text}", std::mem::replace(&mut separator, ", "))
        };
        if let Some(channel) = channel {
            part(f, format_args!("channel {channel}"))?;
        }
        if let Some(packet_num) = packet_num {
            part(f, format_args!("packet {packet_num}"))?;
        }
        if let Some(page) = page {
            part(f, format_args!("page {page}"))?;
        }
        if let Some(method) = method {
            part(f, format_args!("{method}"))?;
        }
        if !separator.is_empty() {
            f.write_str(": ")?;
        }
        self.0.kind.fmt(f)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.kind.source()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_where_it_happened_and_what() {
        let error = Error::payload("3 bytes are left over")
            .at_page(4)
            .in_packet(17)
            .on_channel(3)
            .with_method(Compression::Zstd);
        assert_eq!(
            error.to_string(),
            "channel 3, packet 17, page 4, zstd: the payload is malformed: 3 bytes are left over"
        );
        assert_eq!(Error::from(PeerError::NameEmpty).to_string(), "a name is empty");
    }

    #[test]
    fn the_place_nearest_to_the_failure_stands() {
        let error = Error::from(PeerError::Truncated).on_channel(1).on_channel(2);
        assert_eq!(error.place().channel, Some(1));
    }
}
