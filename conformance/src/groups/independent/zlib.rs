//! zlib by `miniz_oxide`.

use miniz_oxide::deflate::core::{CompressorOxide, create_comp_flags_from_zip_params};
use miniz_oxide::deflate::stream::deflate;
use miniz_oxide::inflate::stream::{InflateState, inflate};
use miniz_oxide::{DataFormat, MZError, MZFlush, MZStatus};

use super::{CHUNK, Implementation, Pieces};

pub(super) const MINIZ: Implementation = Implementation::Stream {
    decode,
    encode,
    // A sync flush ends with an empty stored block.
    flush: &[0x00, 0x00, 0xff, 0xff],
};

fn decode(pieces: &mut Pieces<'_>) -> Result<Vec<u8>, String> {
    let mut state = InflateState::new_boxed(DataFormat::Zlib);
    let mut decoded = Vec::new();
    let mut buffer = vec![0; 32 << 10];
    for mut piece in pieces {
        loop {
            let step = inflate(&mut state, piece, &mut buffer, MZFlush::None);
            piece = &piece[step.bytes_consumed..];
            decoded.extend_from_slice(&buffer[..step.bytes_written]);
            match step.status {
                Ok(MZStatus::Ok) if step.bytes_consumed + step.bytes_written > 0 => {}
                Ok(MZStatus::Ok) | Err(MZError::Buf) => break,
                other => return Err(format!("{other:?} after {} bytes", decoded.len())),
            }
        }
        if !piece.is_empty() {
            return Err(format!("no progress after {} bytes", decoded.len()));
        }
    }
    Ok(decoded)
}

fn encode(pages: &[u8]) -> Vec<Vec<u8>> {
    const LEVEL: i32 = 6;
    const WINDOW_BITS: i32 = 15;
    const STRATEGY: i32 = 0;
    let flags = create_comp_flags_from_zip_params(LEVEL, WINDOW_BITS, STRATEGY);
    let mut compressor = Box::new(CompressorOxide::new(flags));
    let mut encode_chunk = |chunk: &[u8]| {
        let mut payload = vec![0; 2 * CHUNK];
        let step = deflate(&mut compressor, chunk, &mut payload, MZFlush::Sync);
        assert!(step.bytes_consumed == chunk.len(), "twice the size holds any payload");
        payload.truncate(step.bytes_written);
        payload
    };
    pages.chunks(CHUNK).map(&mut encode_chunk).collect()
}
