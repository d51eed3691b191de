//! Compression with no distance above the window.

use flate2::{Compress, Compression, FlushCompress, Status};
use libdeflater::CompressionLvl;

use super::WINDOW;

/// The fastest of either library that compresses at all.
const LEVEL: i32 = 1;

/// Compresses inputs of any size.
pub(super) struct Compressor {
    /// For inputs no larger than the window, in which no distance can pass it.
    small: libdeflater::Compressor,
    /// For larger ones: libdeflate knows no other window than 32 KiB.
    large: Option<Compress>,
    /// Room for any stream: zlib-rs 0.6.8 panics at level 1 where output is short.
    stream: Vec<u8>,
}

impl Default for Compressor {
    fn default() -> Self {
        let level = CompressionLvl::new(LEVEL).expect("libdeflate has the levels 0 to 12");
        Self { small: libdeflater::Compressor::new(level), large: None, stream: Vec::new() }
    }
}

impl Compressor {
    /// Compresses `input` into `output`. Returns the bytes written; `None` where they do not fit.
    pub(super) fn compress(&mut self, input: &[u8], output: &mut [u8]) -> Option<usize> {
        if input.len() <= WINDOW {
            // Too little room is the only way in which it can fail.
            return self.small.deflate_compress(input, output).ok();
        }
        let window_bits = WINDOW.trailing_zeros() as u8;
        let deflate = self.large.get_or_insert_with(|| {
            let level = Compression::new(LEVEL.unsigned_abs());
            Compress::new_with_window_bits(level, false, window_bits)
        });
        deflate.reset();
        self.stream.resize(2 * input.len(), 0);
        let status = deflate.compress(input, &mut self.stream, FlushCompress::Finish);
        assert!(
            matches!(status, Ok(Status::StreamEnd)),
            "zlib-rs does not compress {} bytes into twice as many: {status:?}",
            input.len()
        );
        let written = deflate.total_out() as usize;
        output.get_mut(..written)?.copy_from_slice(&self.stream[..written]);
        Some(written)
    }
}
