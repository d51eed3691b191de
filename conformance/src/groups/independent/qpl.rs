//! QPL's chunks by `miniz_oxide`, with no more history than the accelerator has.

use miniz_oxide::deflate::compress_to_vec;
use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::inflate_flags::{
    TINFL_FLAG_HAS_MORE_INPUT, TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF,
};
use miniz_oxide::inflate::core::{DecompressorOxide, decompress};

use super::{Implementation, Pieces};

pub(super) const MINIZ: Implementation = Implementation::Pages { decode, encode };

/// The largest distance that a stream may have, in bytes.
const WINDOW: usize = 4096;

/// Inflates one raw stream through a ring as large as the window: what reaches further back is not
/// there any more.
pub(super) fn decode(pieces: &mut Pieces<'_>) -> Result<Vec<u8>, String> {
    let mut state = Box::<DecompressorOxide>::default();
    let mut ring = [0; WINDOW];
    let mut decoded = Vec::new();
    let mut ended = false;
    for mut piece in pieces {
        while !ended {
            let at = decoded.len() % WINDOW;
            // Nothing may reach to before the start.
            let first =
                if decoded.len() < WINDOW { TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF } else { 0 };
            let flags = TINFL_FLAG_HAS_MORE_INPUT | first;
            let (status, read, written) = decompress(&mut state, piece, &mut ring, at, flags);
            piece = &piece[read..];
            decoded.extend_from_slice(&ring[at..at + written]);
            match status {
                TINFLStatus::Done => ended = true,
                TINFLStatus::HasMoreOutput => {}
                TINFLStatus::NeedsMoreInput => break,
                _ => {
                    let at = decoded.len();
                    return Err(format!(
                        "no DEFLATE stream, or a distance above {WINDOW}, after {at} bytes"
                    ));
                }
            }
        }
        if !piece.is_empty() {
            return Err(format!("bytes are left over after {}", decoded.len()));
        }
    }
    if ended { Ok(decoded) } else { Err("the stream has no end".to_owned()) }
}

/// A page has no more than the window, so no distance can pass it.
fn encode(page: &[u8]) -> Vec<u8> {
    const LEVEL: u8 = 6;
    assert!(page.len() <= WINDOW, "pages of 4 KiB");
    compress_to_vec(page, LEVEL)
}
