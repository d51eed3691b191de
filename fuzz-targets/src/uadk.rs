//! Payloads of method uadk: what is taken is what an independent decoder makes of it.

use miniz_oxide::inflate::core::inflate_flags;
use multifd_core::codec::PageMethods;
use multifd_uadk::Uadk;

use crate::qpl::{expected, inflate_with};
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
    let flags =
        inflate_flags::TINFL_FLAG_PARSE_ZLIB_HEADER | inflate_flags::TINFL_FLAG_COMPUTE_ADLER32;
    chunk.starts_with(&[0x78, 0x9c]).then(|| inflate_with(flags, chunk)).flatten()
}
