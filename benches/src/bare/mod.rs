//! The bare libraries, driven page by page as a plain user would, without framework and without
//! checks beyond the library's own.

pub mod device;
pub mod isal;
mod library;
pub mod qpl;
pub mod zlib;
pub mod zlib_ng;
pub mod zstd;

use crate::Guest;
use crate::guest::{PAGE_BYTES, Packet};

/// What a bare library decompresses to: plain memory, as large as the guest's.
#[derive(Debug)]
pub struct Memory {
    bytes: Vec<u8>,
}

impl Memory {
    /// Memory for the pages of `guest`.
    pub fn new(guest: &Guest) -> Self {
        Self { bytes: vec![0xa5; guest.bytes().len()] }
    }

    fn page(&mut self, offset: u64) -> &mut [u8] {
        &mut self.bytes[offset as usize..][..PAGE_BYTES]
    }

    /// Checks that the pages of `packets` have arrived.
    ///
    /// # Panics
    /// Where one has not.
    pub fn check(&mut self, packets: &[Packet<'_>]) {
        for packet in packets {
            let private = packet.private.chunks_exact(PAGE_BYTES);
            for (&offset, page) in packet.guest.offsets().iter().zip(private) {
                assert!(self.page(offset) == page, "the page at {offset:#x} has not arrived");
            }
        }
    }
}
