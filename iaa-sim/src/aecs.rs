//! The Analytics Engine Configuration and State (AECS): what a program gives to an operation beside
//! its data, and what an operation leaves for the next one to go on from.
//!
//! libqpl knows the places of the fields that are named as in the architecture. The others are private
//! to the device, and a program only carries them.

mod compress;
mod decompress;

pub(crate) use compress::{COMPRESS_BYTES, Code, Codes, CompressAecs};
pub(crate) use decompress::{DecompressAecs, INPUT_BITS};

/// Bytes of the AECS of a decompression.
pub(crate) const DECOMPRESS_BYTES: u32 = 0x1500;

/// Bytes of the AECS of a decompression that needs no history.
pub(crate) const WITHOUT_HISTORY_BYTES: u32 = 0x4e0;

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"))
}

fn put_u32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}
