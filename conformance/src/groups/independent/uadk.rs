//! UADK's chunks by `miniz_oxide`: zlib streams with no more history than the accelerator has.

use miniz_oxide::deflate::compress_to_vec_zlib;
use miniz_oxide::inflate::decompress_to_vec_zlib;

use super::{Implementation, Pieces, qpl};

pub(super) const MINIZ: Implementation = Implementation::Pages { decode, encode };

/// What every stream begins with, and how long the Adler-32 at its end is.
const HEADER: [u8; 2] = [0x78, 0x9c];
const TRAILER: usize = 4;

fn decode(pieces: &mut Pieces<'_>) -> Result<Vec<u8>, String> {
    let chunk = pieces.collect::<Vec<_>>().concat();
    let deflate = chunk
        .strip_prefix(&HEADER)
        .and_then(|rest| rest.len().checked_sub(TRAILER).map(|count| &rest[..count]))
        .ok_or_else(|| format!("{} bytes, or without the header {HEADER:02x?}", chunk.len()))?;
    // That no distance is too large, and nothing is left over.
    qpl::decode(&mut std::iter::once(deflate))?;
    // That the Adler-32 is the page's.
    decompress_to_vec_zlib(&chunk).map_err(|error| error.to_string())
}

/// A page has no more than the window, so no distance can pass it.
fn encode(page: &[u8]) -> Vec<u8> {
    const LEVEL: u8 = 6;
    let chunk = compress_to_vec_zlib(page, LEVEL);
    assert!(chunk.starts_with(&HEADER), "the header of level 6");
    chunk
}
