//! Decompression, the same on every path: strict in what it accepts.
//!
//! A chunk is one whole DEFLATE stream (RFC 1951) that inflates to exactly a page, with its final
//! block at its end, nothing behind that, and no distance above [`WINDOW`](crate::WINDOW).

#[allow(unsafe_code, reason = "the safe crate does not say where a stream ends")]
mod libdeflate;
mod windowed;

use multifd_core::{ChannelConfig, Error};

use crate::WINDOW;

/// Restores pages of one size.
#[derive(Debug)]
pub(crate) enum Decompressor {
    /// In pages that are no larger than the window, a distance above it reaches to before the
    /// page, which any inflate refuses.
    Small(libdeflate::Decompressor),
    /// In larger pages it does not, and most inflates take it.
    Large(windowed::Decompressor),
}

impl Decompressor {
    pub(crate) fn new(config: &ChannelConfig) -> Result<Self, Error> {
        if config.page_size.bytes() <= WINDOW {
            libdeflate::Decompressor::new().map(Self::Small)
        } else {
            Ok(Self::Large(windowed::Decompressor::new()))
        }
    }

    /// Restores `page` from `chunk`.
    pub(crate) fn decompress(&mut self, chunk: &[u8], page: &mut [u8]) -> Result<(), Error> {
        let inflated = match self {
            Self::Small(inflate) => inflate.decompress(chunk, page),
            Self::Large(inflate) => inflate.decompress(chunk, page),
        };
        inflated.map_err(|refusal| refusal.of(chunk, page))
    }
}

/// Why a chunk is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    Malformed,
    /// The stream inflates to so many bytes.
    Short(usize),
    /// The stream inflates to more than a page.
    Long,
    /// The stream ends so many bytes before the chunk.
    LeftOver(usize),
}

impl Refusal {
    fn of(self, chunk: &[u8], page: &[u8]) -> Error {
        let (chunk, page) = (chunk.len(), page.len());
        Error::payload(match self {
            Self::Malformed => format!(
                "a chunk of {chunk} bytes is not a valid DEFLATE stream: it is malformed, ends before its \
                 final block does, or has a distance that reaches past {WINDOW} bytes or to before \
                 the page"
            ),
            Self::Short(bytes) => {
                format!("a chunk inflates to {bytes} bytes, a page has {page}")
            }
            Self::Long => format!("a chunk inflates to more than a page's {page} bytes"),
            Self::LeftOver(bytes) => {
                format!("a chunk of {chunk} bytes goes on for {bytes} bytes after its stream")
            }
        })
    }
}
