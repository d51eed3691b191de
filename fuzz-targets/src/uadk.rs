//! Payloads of method uadk: what is taken is what an independent decoder makes of it.

use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress, inflate_flags};
use multifd_core::codec::PageMethods;
use multifd_uadk::Uadk;

use crate::qpl::chunks;
use crate::restored;

const PAGE: usize = 4096;

/// Runs the target on one input.
pub fn uadk(input: &[u8]) {
    let Some((&choice, payload)) = input.split_first() else { return };
    let pages = usize::from(choice % 8) + 1;
    let taken = restored(&PageMethods::new(Uadk::new()), &[payload], pages);
    let expected = expected(payload, pages);
    assert_eq!(!taken.is_empty(), expected.is_some(), "taken, and is to be taken");
    assert!(taken.first() == expected.as_ref());
}

/// The pages of a payload as an independent decoder has them; none where it has to be refused.
fn expected(payload: &[u8], pages: usize) -> Option<Vec<u8>> {
    let mut restored = Vec::new();
    for chunk in chunks(payload, pages)? {
        match chunk.len() {
            0 => return None,
            PAGE => restored.extend_from_slice(chunk),
            _ => restored.extend(inflate(chunk)?),
        }
    }
    Some(restored)
}

/// The page of a chunk: a whole zlib stream with the header that each has.
fn inflate(chunk: &[u8]) -> Option<Vec<u8>> {
    let mut page = vec![0; PAGE];
    let flags = inflate_flags::TINFL_FLAG_PARSE_ZLIB_HEADER
        | inflate_flags::TINFL_FLAG_COMPUTE_ADLER32
        | inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
    let done = decompress(&mut DecompressorOxide::new(), chunk, &mut page, 0, flags);
    let is_right =
        chunk.starts_with(&[0x78, 0x9c]) && done == (TINFLStatus::Done, chunk.len(), PAGE);
    is_right.then_some(page)
}
