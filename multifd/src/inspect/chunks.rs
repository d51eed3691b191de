//! Payloads with a chunk for each page.

use multifd_core::wire::RamPacket;
use multifd_core::{Compression, PageSize};

/// The chunks of a payload that has one for each page: codecs QPL and UADK.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chunks {
    /// Pages that are not compressed.
    pub(super) raw: u64,
    /// What is wrong with the lengths, if anything.
    pub(super) fault: Option<String>,
}

/// Bytes of the field with a chunk's length.
const LENGTH: usize = 4;

/// The size in bytes of the lengths at the start of the packet's payload; 0 for other codecs.
pub(super) fn length_bytes(packet: &RamPacket<'_>) -> usize {
    match packet.compression() {
        Compression::Qpl | Compression::Uadk => {
            LENGTH * packet.pages.map_or(0, |pages| pages.normal.len())
        }
        _ => 0,
    }
}

impl Chunks {
    /// The chunks of `packet`, whose payload starts with `lengths`. `None` if the codec has no
    /// chunks or the packet no payload.
    pub(super) fn new(packet: &RamPacket<'_>, lengths: &[u8], page_size: PageSize) -> Option<Self> {
        let lengths = lengths.get(..length_bytes(packet)).filter(|lengths| !lengths.is_empty())?;
        let follow = (packet.payload_bytes - lengths.len()) as u64;
        let page_bytes = page_size.bytes() as u64;
        let mut chunks = Self { raw: 0, fault: None };
        let mut sum: u64 = 0;
        for (page, length) in lengths.chunks_exact(LENGTH).enumerate() {
            let length = length.iter().fold(0, |length, &byte| length << 8 | u64::from(byte));
            sum += length;
            chunks.raw += u64::from(length == page_bytes);
            if length == 0 || length > page_bytes {
                chunks.fault.get_or_insert_with(|| {
                    format!("page {page}'s length is {length}; it must be 1 to {page_bytes}")
                });
            }
        }
        if sum != follow {
            chunks.fault.get_or_insert_with(|| {
                format!("the lengths of the pages add up to {sum} bytes, but {follow} follow")
            });
        }
        Some(chunks)
    }
}
