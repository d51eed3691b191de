//! Payloads of method qpl, by what is built in: what is taken is what an independent decoder makes of it.

use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress, inflate_flags};
use multifd::qpl::{Options, Path, Qpl};

use crate::restored;

const PAGE: usize = 4096;

/// Runs the target on one input.
pub fn qpl(input: &[u8]) {
    let Some((&choice, payload)) = input.split_first() else { return };
    let pages = usize::from(choice % 8) + 1;
    let codec = Qpl::new(Options::new(Path::Portable));
    let taken = restored(&codec, &[payload], pages);
    let expected = expected(payload, pages, inflate);
    match (taken.first(), expected) {
        (Some(taken), Some(expected)) => assert!(*taken == expected),
        (None, None) => {}
        (taken, _) => panic!("taken: {}", taken.is_some()),
    }
}

/// The pages of a payload (lengths, then chunks) as an independent decoder has them, which makes a chunk's page
/// by `inflate`; none where it has to be refused.
pub(crate) fn expected(
    payload: &[u8],
    pages: usize,
    inflate: fn(&[u8]) -> Option<Vec<u8>>,
) -> Option<Vec<u8>> {
    let mut restored = Vec::new();
    for chunk in chunks(payload, pages)? {
        match chunk.len() {
            PAGE => restored.extend_from_slice(chunk),
            _ => restored.extend(inflate(chunk)?),
        }
    }
    Some(restored)
}

/// The page that an independent decoder makes of a whole stream of DEFLATE.
pub(crate) fn inflate(stream: &[u8]) -> Option<Vec<u8>> {
    let mut page = vec![0; PAGE];
    let flags = inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
    let done = decompress(&mut DecompressorOxide::new(), stream, &mut page, 0, flags);
    (done == (TINFLStatus::Done, stream.len(), PAGE)).then_some(page)
}

fn chunks(payload: &[u8], pages: usize) -> Option<Vec<&[u8]>> {
    let (lengths, mut rest) = payload.split_at_checked(4 * pages)?;
    let mut chunks = Vec::new();
    for length in lengths.chunks(4) {
        let length = u32::from_be_bytes(length.try_into().ok()?) as usize;
        let (chunk, behind) = rest.split_at_checked(length).filter(|_| length <= PAGE)?;
        chunks.push(chunk);
        rest = behind;
    }
    rest.is_empty().then_some(chunks)
}
