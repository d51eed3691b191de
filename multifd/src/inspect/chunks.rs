//! Payloads with a chunk for each page.

use multifd_core::Compression;
use multifd_core::wire::RamPacket;

/// The pages of a payload that has a chunk for each: method QPL and UADK.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunks {
    /// Pages that come as they are.
    pub raw: u64,
    /// Pages that come compressed.
    pub compressed: u64,
    /// What is wrong with the lengths, if anything, in words.
    pub fault: Option<String>,
}

/// Bytes of a chunk's length.
pub(super) const LENGTH: usize = 4;

/// Bytes of the lengths that the packet's payload begins with.
pub(super) fn length_bytes(packet: &RamPacket<'_>) -> usize {
    match packet.compression() {
        Compression::Qpl | Compression::Uadk => {
            LENGTH * packet.pages.map_or(0, |pages| pages.normal.len())
        }
        _ => 0,
    }
}

impl Chunks {
    /// The chunks with these `lengths`, which fill `bytes` bytes.
    pub(super) fn new(
        lengths: impl Iterator<Item = usize>,
        page_bytes: usize,
        bytes: usize,
    ) -> Self {
        let mut chunks = Self { raw: 0, compressed: 0, fault: None };
        let mut sum = 0;
        for (page, length) in lengths.enumerate() {
            sum += length;
            if length == page_bytes {
                chunks.raw += 1;
            } else {
                chunks.compressed += 1;
            }
            if length == 0 || length > page_bytes {
                chunks.fault.get_or_insert_with(|| {
                    format!("page {page}'s length is {length}; 1 to {page_bytes} are possible")
                });
            }
        }
        if sum != bytes {
            chunks.fault.get_or_insert_with(|| {
                format!("the lengths of the pages add up to {sum} bytes, but {bytes} follow")
            });
        }
        chunks
    }
}
