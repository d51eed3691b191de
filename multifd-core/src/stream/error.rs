//! What can be wrong with a stream.

use crate::PageSize;
use crate::foreign::{TOKEN, described};
use crate::wire::BlockName;

/// What is wrong with a stream, and where in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind} (byte {offset} of the stream)")]
#[non_exhaustive]
pub struct StreamError {
    /// Where the section, word or message starts that was refused; where the stream ended for
    /// [`Truncated`](StreamErrorKind::Truncated); where it should have ended for
    /// [`Trailing`](StreamErrorKind::Trailing). In bytes from the start of the stream.
    pub offset: u64,
    /// What is wrong.
    pub kind: StreamErrorKind,
}

impl StreamError {
    /// Whether the return path starts with an alert of TLS: the destination speaks TLS, and has
    /// understood nothing of the migration.
    pub fn is_tls_alert(&self) -> bool {
        self.offset == 0 && self.kind == StreamErrorKind::UnknownMessage(TLS_ALERT)
    }

    /// Whether the return path starts as the hello of a connection with a token does: the destination
    /// wants one, and has taken nothing of the migration.
    pub fn is_token_wanted(&self) -> bool {
        self.offset == 0 && self.kind == StreamErrorKind::UnknownMessage(TOKEN_HELLO)
    }
}

/// What is wrong with a stream.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StreamErrorKind {
    /// The stream ended too early.
    #[error("the stream ends within {what}: the other side failed, was cancelled or went away")]
    Truncated {
        /// What was being read.
        what: &'static str,
    },
    /// The first four bytes are not `QEVM`.
    #[error("the stream starts with {0:02x?} and not with \"QEVM\": {what}", what = described(*.0))]
    Magic([u8; 4]),
    /// The stream is of another version than 3.
    #[error("version {0} of the migration stream is not supported, only version 3 is")]
    Version(u32),
    /// A length that the format does not allow, or that is beyond what is accepted.
    #[error("the length of {what} is {length}, but has to be {allowed}")]
    Length {
        /// What has the length.
        what: &'static str,
        /// The length that was claimed.
        length: u64,
        /// What would have been right.
        allowed: &'static str,
    },
    /// A name that is empty, not UTF-8 or has a NUL.
    #[error("{what} is empty, not UTF-8 or has a NUL in it")]
    Name {
        /// What the name is of.
        what: &'static str,
    },
    /// A subsection of CONFIGURATION whose length is not known, so that it cannot be passed over.
    #[error("CONFIGURATION has the unknown subsection {0:?}, which cannot be passed over")]
    UnknownSubsection(String),
    /// A subsection of CONFIGURATION that came already.
    #[error("CONFIGURATION has the subsection {0:?} twice")]
    RepeatedSubsection(&'static str),
    /// What the VMDESCRIPTION says of the RAM is not what a source of this project writes.
    #[error("the digests in the VMDESCRIPTION are malformed, or not one for each RAM block")]
    Digests,
    /// The source's pages are smaller than 4 KiB or larger than 64 KiB.
    #[error(
        "the source's pages are 2^{0} bytes{small}, but only 4, 16 and 64 KiB are supported",
        small = if *.0 < 12 { ", less than 4 KiB" } else { "" }
    )]
    PageBits(u32),
    /// The source's pages are not of the size that the caller expects.
    #[error("the source's pages are {found} but the destination's are {expected}")]
    PageSizeMismatch {
        /// The destination's page size.
        expected: PageSize,
        /// The source's page size.
        found: PageSize,
    },
    /// A byte that starts no section.
    #[error("no section starts with {0:#04x}")]
    UnknownSection(u8),
    /// Something that may not come here. The text is the whole sentence.
    #[error("{0}")]
    Misplaced(&'static str),
    /// A section other than `ram` that is sent in parts. Its body has no length.
    #[error("the section {0:?} is sent in parts, which is only supported for \"ram\": {how}", how = remedy(.0))]
    ForeignSection(String),
    /// A version of the `ram` section other than 4.
    #[error("version {0} of the ram section is not supported, only version 4 is")]
    RamVersion(u32),
    /// A section id that is not the `ram` section's.
    #[error("{what} has the section id {found}, but the ram section's is {expected}")]
    SectionId {
        /// What carries the id.
        what: &'static str,
        /// The id it has.
        found: u32,
        /// The id that START gave.
        expected: u32,
    },
    /// A command that belongs to a kind of migration that is not supported.
    #[error("command {number} ({name}) is not supported: turn {capability} off on the source")]
    UnsupportedCommand {
        /// Its number.
        number: u16,
        /// Its name.
        name: &'static str,
        /// The capability that sends it.
        capability: &'static str,
    },
    /// A command that does not exist.
    #[error("command {0} is unknown")]
    UnknownCommand(u16),
    /// A capability that changes the format.
    #[error("the capability {0} is not supported: turn it off on the source")]
    UnsupportedCapability(&'static str),
    /// More RAM blocks than are accepted.
    #[error("there are more than {limit} RAM blocks")]
    TooManyBlocks {
        /// How many are accepted.
        limit: usize,
    },
    /// Two RAM blocks of one name.
    #[error("there are two RAM blocks named {0:?}")]
    RepeatedBlock(BlockName),
    /// A RAM block whose size is 0 or not a multiple of the page size.
    #[error("RAM block {name:?} has {bytes} bytes, which are not one or more pages of {page_size}")]
    BlockSize {
        /// The block.
        name: BlockName,
        /// Its used length.
        bytes: u64,
        /// The page size.
        page_size: PageSize,
    },
    /// A RAM block whose memory is said to be made of pages of an impossible size.
    #[error("RAM block {name:?} is made of pages of {bytes} bytes, which no memory is")]
    BlockPageSize {
        /// The block.
        name: BlockName,
        /// The size that is claimed.
        bytes: u64,
    },
    /// A file that a source wrote with the capability mapped-ram.
    #[error(
        "this is a file in the mapped-ram format, not a migration over connections: turn the \
         capability mapped-ram off on the source and migrate to a socket"
    )]
    MappedRam,
    /// A stream that is expected to be of a mapped-ram file, and is another one.
    #[error(
        "this is not a file in the mapped-ram format, which QEMU 9.0 and later write with the capability mapped-ram"
    )]
    NotMappedRam,
    /// A RAM block of a mapped-ram file whose header is of another version than 1.
    #[error(
        "version {0} of a RAM block's header in a mapped-ram file is not supported, only version 1 is"
    )]
    MappedRamVersion(u32),
    /// A RAM block of a mapped-ram file with pages of another size.
    #[error(
        "a RAM block of a mapped-ram file has pages of {found} bytes, but those of this machine are {expected}"
    )]
    MappedRamPageSize {
        /// The size that its header has.
        found: u64,
        /// The page size of the stream.
        expected: PageSize,
    },
    /// A RAM block of a mapped-ram file whose parts are not behind each other.
    #[error(
        "RAM block {name:?} of a mapped-ram file has its bitmap at {bitmap_offset:#x} and its pages at \
         {pages_offset:#x}: they overlap each other or what is before them, or are not where pages can be"
    )]
    MappedRamPlace {
        /// The block.
        name: BlockName,
        /// Where in the file its bitmap is said to be.
        bitmap_offset: u64,
        /// Where in the file its pages are said to be.
        pages_offset: u64,
    },
    /// The RAM blocks are not as large together as the list said.
    #[error("the RAM blocks up to {name:?} pass the {total} bytes that were announced")]
    BlockTotal {
        /// The block with which the announced sum is passed.
        name: BlockName,
        /// The announced sum.
        total: u64,
    },
    /// A page with a flag of the field's that multifd excludes.
    #[error("a word of the ram section has the flag {name}, which is not supported: {remedy}")]
    UnsupportedFlag {
        /// Its name.
        name: &'static str,
        /// What to do about it.
        remedy: &'static str,
    },
    /// Flags that do not exist.
    #[error("a word of the ram section has the unknown flags {0:#x}")]
    UnknownFlags(u64),
    /// Flags that exclude each other, or an address beside a flag that has none.
    #[error("{0:#018x} is not a word of the ram section: its flags and address do not go together")]
    Word(u64),
    /// A page of the same block as the last one, but there was none.
    #[error("a page is said to be in the same RAM block as the one before, but is the first")]
    NoLastBlock,
    /// A page of a RAM block that is not in the list.
    #[error("a page is in the RAM block {0:?}, which is not in the list")]
    UnknownBlock(String),
    /// A page past the end of its RAM block.
    #[error("a page is at {offset:#x} of RAM block {block:?}, which has only {bytes:#x} bytes")]
    PageOutsideBlock {
        /// The block.
        block: BlockName,
        /// The page's offset in it.
        offset: u64,
        /// The block's used length.
        bytes: u64,
    },
    /// A zero page that is not filled with zeros.
    #[error("a zero page is filled with {0:#04x} and not with 0")]
    Fill(u8),
    /// More device state than the caller accepts.
    #[error("the device state has more than the {limit} bytes that are accepted: raise the limit")]
    DeviceStateTooLarge {
        /// How much is accepted.
        limit: usize,
    },
    /// More early state than the caller accepts.
    #[error(
        "the devices' state before the RAM has more than the {limit} bytes that are accepted, or \
         the source sends no FOOTERs"
    )]
    EarlyStateTooLarge {
        /// How much is accepted.
        limit: usize,
    },
    /// Something behind the end of the stream.
    #[error("{bytes} bytes follow the VMDESCRIPTION, which ends the stream")]
    Trailing {
        /// How many bytes.
        bytes: usize,
    },
    /// A message of the return path that does not exist or is not supported.
    #[error("message {0} of the return path is not supported{hint}", hint = hint(*.0))]
    UnknownMessage(u16),
    /// The caller asked for what cannot be; the text says what.
    #[error("{0}")]
    Misuse(&'static str),
}

/// The first bytes of an alert of any version of TLS, as those of a message.
const TLS_ALERT: u16 = 0x1503;

/// The first bytes of a token's hello, as those of a message.
const TOKEN_HELLO: u16 = u16::from_be_bytes([TOKEN[0], TOKEN[1]]);

/// What is known of a message that is none.
fn hint(message: u16) -> &'static str {
    match message {
        TLS_ALERT => {
            ": it is an alert of TLS: the destination speaks TLS, so turn it on here, too (multifd's \
             --tls-creds), or off there"
        }
        TOKEN_HELLO => {
            ": the destination wants a token, and there is none here: give both sides the same file \
             (multifd's --token-file), or leave it off there"
        }
        _ => "",
    }
}

/// What to do about a section that is sent in parts.
fn remedy(section: &str) -> &'static str {
    match section {
        "dirty-bitmap" => {
            "remove the dirty bitmaps, or turn the capability dirty-bitmaps off on the source"
        }
        name if name.ends_with("htab") => {
            "it is the hash page table of a POWER guest, which cannot be migrated by multifd here; \
             a guest with a radix page table has none"
        }
        "vfio" | "block" => "remove the device or the capability that sends it on the source",
        _ => "turn off what sends it on the source (a VFIO device, …)",
    }
}
