//! The path that needs no libqpl: compression with what is built in.

use flate2::{Compress, Compression, FlushCompress, Status};
use libdeflater::CompressionLvl;
use multifd_core::{ChannelConfig, Error};

use crate::WINDOW;

/// The fastest of either library that compresses at all.
const LEVEL: i32 = 1;

/// Compresses pages of one size.
#[allow(missing_debug_implementations, reason = "the library's compressor is not Debug")]
pub(crate) enum Compressor {
    /// In pages that are no larger than the window, no distance can pass it.
    Small(libdeflater::Compressor),
    /// libdeflate knows no other window than 32 KiB, so zlib-rs does the larger ones.
    Large {
        deflate: Compress,
        /// Room for any stream: zlib-rs 0.6.8 panics at level 1 where output is short.
        stream: Box<[u8]>,
    },
}

impl Compressor {
    pub(crate) fn new(config: &ChannelConfig) -> Self {
        let page_bytes = config.page_size.bytes();
        if page_bytes <= WINDOW {
            let level = CompressionLvl::new(LEVEL).expect("libdeflate has the levels 0 to 12");
            return Self::Small(libdeflater::Compressor::new(level));
        }
        let window_bits = WINDOW.trailing_zeros() as u8;
        Self::Large {
            deflate: Compress::new_with_window_bits(
                Compression::new(LEVEL.unsigned_abs()),
                false,
                window_bits,
            ),
            stream: vec![0; 2 * page_bytes].into(),
        }
    }

    /// Compresses `page` into `chunk`. Returns the bytes written; `None` where they do not fit.
    pub(crate) fn compress(
        &mut self,
        page: &[u8],
        chunk: &mut [u8],
    ) -> Result<Option<usize>, Error> {
        match self {
            // Too little room is the only way in which it can fail.
            Self::Small(deflate) => Ok(deflate.deflate_compress(page, chunk).ok()),
            Self::Large { deflate, stream } => {
                deflate.reset();
                let status = deflate
                    .compress(page, stream, FlushCompress::Finish)
                    .map_err(|error| Error::backend(format!("zlib-rs fails: {error}")))?;
                if status != Status::StreamEnd {
                    return Err(Error::backend("zlib-rs makes more than two pages of one"));
                }
                let written = deflate.total_out() as usize;
                let Some(chunk) = chunk.get_mut(..written) else { return Ok(None) };
                chunk.copy_from_slice(&stream[..written]);
                Ok(Some(written))
            }
        }
    }
}
