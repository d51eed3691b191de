//! Decompression, the same on every path: strict in what it accepts.
//!
//! A chunk is one whole DEFLATE stream (RFC 1951) that inflates to exactly a page, with its final
//! block at its end, nothing behind that, and no distance above [`WINDOW`](crate::WINDOW). What is
//! behind it a device does not notice ([`Rest`]).

#[allow(unsafe_code, reason = "the safe crate does not say where a stream ends")]
mod libdeflate;
mod windowed;

use multifd_core::{ChannelConfig, Error};

use crate::WINDOW;

/// Restores pages of one size.
#[derive(Debug)]
pub(crate) struct Decompressor {
    inflate: Inflate,
    rest: Rest,
}

/// What becomes of a chunk that goes on behind its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rest {
    /// It is refused.
    Refused,
    /// The rest is ignored. libqpl says of a job in hardware that all of its input was used up, however
    /// much the device left; so that a page's fate does not depend on whether a device or the CPU in its
    /// place has it, the CPU does the same.
    Ignored,
}

#[derive(Debug)]
enum Inflate {
    /// In pages that are no larger than the window, a distance above it reaches to before the
    /// page, which any inflate refuses.
    Small(libdeflate::Decompressor),
    /// In larger pages it does not, and most inflates take it.
    Large(windowed::Decompressor),
}

impl Decompressor {
    pub(crate) fn new(config: &ChannelConfig, rest: Rest) -> Result<Self, Error> {
        let inflate = if config.page_size.bytes() <= WINDOW {
            Inflate::Small(libdeflate::Decompressor::new()?)
        } else {
            Inflate::Large(windowed::Decompressor::new())
        };
        Ok(Self { inflate, rest })
    }

    /// Restores `page` from `chunk`.
    pub(crate) fn decompress(&mut self, chunk: &[u8], page: &mut [u8]) -> Result<(), Error> {
        let inflated = match &mut self.inflate {
            Inflate::Small(inflate) => inflate.decompress(chunk, page),
            Inflate::Large(inflate) => inflate.decompress(chunk, page),
        };
        match inflated {
            Ok(()) => Ok(()),
            Err(Refusal::LeftOver(_)) if self.rest == Rest::Ignored => Ok(()),
            Err(refusal) => Err(refusal.of(chunk, page)),
        }
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
    /// The page is whole, and the stream ends so many bytes before the chunk.
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
