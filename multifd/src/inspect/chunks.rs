//! Payloads with a chunk for each page.

use multifd_core::wire::RamPacket;
use multifd_core::{Compression, PageSize};

/// The pages of a payload that has a chunk for each: codecs QPL and UADK.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chunks {
    /// Pages that come as they are.
    pub(super) raw: u64,
    /// What is wrong with the lengths, in words.
    pub(super) fault: Option<String>,
}

/// Bytes of a chunk's length.
const LENGTH: usize = 4;

/// Bytes of the lengths that the packet's payload starts with.
pub(super) fn length_bytes(packet: &RamPacket<'_>) -> usize {
    match packet.compression() {
        Compression::Qpl | Compression::Uadk => {
            LENGTH * packet.pages.map_or(0, |pages| pages.normal.len())
        }
        _ => 0,
    }
}

impl Chunks {
    /// The chunks of `packet`, whose payload starts with `lengths`. `None` where the codec has
    /// none, or the packet no payload.
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
                    format!("page {page}'s length is {length}; 1 to {page_bytes} are possible")
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
