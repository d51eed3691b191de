//! Decompression, the same on every path: strict in what it accepts.
//!
//! A chunk is one whole DEFLATE stream (RFC 1951) that inflates to exactly a page, with its final
//! block at its end, nothing behind that, and no distance above [`WINDOW`]. What is behind it a device
//! does not notice ([`Rest`]).

use multifd_core::{ChannelConfig, Error};
use page_deflate::{DecodeError, Decoded, Decoder};

use crate::WINDOW;

/// Restores pages of one size.
#[derive(Debug)]
pub(crate) struct Decompressor {
    decoder: Decoder,
    page_bytes: usize,
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

impl Decompressor {
    pub(crate) fn new(config: &ChannelConfig, rest: Rest) -> Self {
        let page_bytes = config.page_size.bytes();
        Self { decoder: Decoder::new(page_bytes, WINDOW), page_bytes, rest }
    }

    /// Restores `page` from `chunk`.
    pub(crate) fn decompress(&mut self, chunk: &[u8], page: &mut [u8]) -> Result<(), Error> {
        let refused = match self.decoder.decode(chunk, page) {
            Ok(read) => self.rest.refuses(chunk.len() - read),
            Err(error) => Some(Refusal::Stream(error)),
        };
        refused.map_or(Ok(()), |refusal| Err(refusal.of(chunk, page.len())))
    }

    /// Restores the page of each chunk, and shows it to `each` with the chunk's index.
    ///
    /// # Errors
    /// The first chunk that is not taken, by its index, and why.
    pub(crate) fn decompress_each<'c>(
        &mut self,
        chunks: impl Iterator<Item = &'c [u8]> + Clone,
        mut each: impl FnMut(usize, &[u8]),
    ) -> Result<(), (usize, Error)> {
        let mut first: Option<(usize, Refusal)> = None;
        self.decoder.decode_each(chunks.clone(), self.page_bytes, |index, decoded| {
            let refused = match decoded {
                Ok(Decoded { page, left, .. }) => {
                    each(index, page);
                    self.rest.refuses(left)
                }
                Err(error) => Some(Refusal::Stream(error)),
            };
            // They come nearly in order, but not quite.
            if let Some(refusal) = refused {
                if first.is_none_or(|(at, _)| index < at) {
                    first = Some((index, refusal));
                }
            }
        });
        match first {
            None => Ok(()),
            Some((index, refusal)) => {
                let chunk = chunks.into_iter().nth(index).unwrap_or_default();
                Err((index, refusal.of(chunk, self.page_bytes)))
            }
        }
    }
}

impl Rest {
    fn refuses(self, left: usize) -> Option<Refusal> {
        (self == Self::Refused && left > 0).then_some(Refusal::LeftOver(left))
    }
}

/// Why a chunk is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    Stream(DecodeError),
    /// The page is whole, and the stream ends so many bytes before the chunk.
    LeftOver(usize),
}

impl Refusal {
    fn of(self, chunk: &[u8], page_bytes: usize) -> Error {
        let chunk = chunk.len();
        Error::payload(match self {
            Self::Stream(DecodeError::Short(bytes)) => {
                format!("a chunk inflates to {bytes} bytes, a page has {page_bytes}")
            }
            Self::Stream(DecodeError::Long) => {
                format!("a chunk inflates to more than a page's {page_bytes} bytes")
            }
            Self::Stream(_) => format!(
                "a chunk of {chunk} bytes is not a valid DEFLATE stream: it is malformed, ends before its \
                 final block does, or has a distance that reaches past {WINDOW} bytes or to before \
                 the page"
            ),
            Self::LeftOver(bytes) => {
                format!("a chunk of {chunk} bytes goes on for {bytes} bytes after its stream")
            }
        })
    }
}
