//! Payloads of method uadk: what is taken is what an independent decoder makes of it.

use multifd_core::codec::PageMethods;
use multifd_uadk::Uadk;

use crate::qpl::{self, expected};
use crate::restored;

/// Runs the target on one input.
pub fn uadk(input: &[u8]) {
    let Some((&choice, payload)) = input.split_first() else { return };
    let pages = usize::from(choice % 8) + 1;
    let taken = restored(&PageMethods::new(Uadk::new()), &[payload], pages);
    let expected = expected(payload, pages, inflate);
    assert_eq!(!taken.is_empty(), expected.is_some(), "taken, and is to be taken");
    assert!(taken.first() == expected.as_ref());
}

/// The page of a chunk: a whole zlib stream with the header that each has.
fn inflate(chunk: &[u8]) -> Option<Vec<u8>> {
    let (deflate, checksum) = chunk.strip_prefix(&[0x78, 0x9c])?.split_last_chunk()?;
    // When it is fuzzed itself, miniz_oxide takes any checksum.
    qpl::inflate(deflate).filter(|page| adler32(page) == u32::from_be_bytes(*checksum))
}

/// The checksum of RFC 1950, section 9.
fn adler32(bytes: &[u8]) -> u32 {
    const BASE: u32 = 65521;
    let (low, high) = bytes.iter().fold((1, 0), |(low, high), &byte| {
        let low = (low + u32::from(byte)) % BASE;
        (low, (high + low) % BASE)
    });
    high << 16 | low
}
