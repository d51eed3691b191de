//! The decoder: two streams at a time, since one alone keeps a processor waiting.
//!
//! Each symbol says where the next one begins, so the bits of one stream are a chain of dependent loads. Two
//! streams in turns ([`step`]) give the processor something to do in the meantime. A stream is in a
//! [`Lane`](lane::Lane), with its input, output and codes; what is rare (blocks' headers, their ends) happens there.

mod bits;
mod code;
mod header;
mod lane;
mod step;

use lane::{Lane, Settled};
use step::Stop;

/// Why a stream is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// It is not DEFLATE, is cut short, or reaches back further than the window or to before its start.
    #[error(
        "the stream is malformed, ends before its final block does, or has a distance that reaches \
         past the window or to before the page"
    )]
    Malformed,
    /// It makes fewer bytes than the page has: so many.
    #[error("the stream inflates to {0} bytes, fewer than a page has")]
    Short(usize),
    /// It makes more bytes than the page has.
    #[error("the stream inflates to more than a page")]
    Long,
}

/// A page, and how many bytes the stream has that it was made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Decoded<'a> {
    /// The page.
    pub page: &'a [u8],
    /// The bytes of the stream, its last one included.
    pub read: usize,
    /// The bytes behind them, which were not looked at.
    pub left: usize,
}

/// Restores pages of memory, each from a DEFLATE stream of its own.
///
/// A stream must make exactly a page, and no distance in it may be above the window.
#[derive(Debug)]
pub struct Decoder {
    lanes: [Lane; 2],
    page_bytes: usize,
    window: usize,
}

impl Decoder {
    /// For pages of up to `page_bytes`, from streams whose matches reach up to `window` bytes back.
    pub fn new(page_bytes: usize, window: usize) -> Self {
        Self { lanes: std::array::from_fn(|_| Lane::new(page_bytes)), page_bytes, window }
    }

    /// Restores `page` from the stream at the start of `stream`. Returns how many bytes the stream has.
    ///
    /// [`decode_each`](Self::decode_each) is faster where there are several.
    ///
    /// # Errors
    /// See [`DecodeError`]. What is in `page` then is what was in it before.
    ///
    /// # Panics
    /// Where `page` is longer than the decoder is made for.
    pub fn decode(&mut self, stream: &[u8], page: &mut [u8]) -> Result<usize, DecodeError> {
        let mut read = Err(DecodeError::Malformed);
        self.decode_each([stream], page.len(), |_, decoded| {
            read = decoded.map(|decoded| {
                page.copy_from_slice(decoded.page);
                decoded.read
            });
        });
        read
    }

    /// Restores a page of `page_bytes` from each of `streams`, and shows it to `each`, with the stream's index.
    /// Those of a long stream may come after those of short ones behind it.
    ///
    /// # Panics
    /// Where `page_bytes` is more than the decoder is made for.
    pub fn decode_each<'s>(
        &mut self,
        streams: impl IntoIterator<Item = &'s [u8]>,
        page_bytes: usize,
        mut each: impl FnMut(usize, Result<Decoded<'_>, DecodeError>),
    ) {
        assert!(page_bytes <= self.page_bytes, "a page of {page_bytes} bytes");
        let mut streams = streams.into_iter().enumerate();
        let [first, second] = &mut self.lanes;
        loop {
            for lane in [&mut *first, &mut *second] {
                lane.fill(&mut streams, page_bytes, &mut each);
            }
            let stops = match (first.is_idle(), second.is_idle()) {
                (true, true) => return,
                (false, true) => [Some(step::alone(first, self.window)), None],
                (true, false) => [None, Some(step::alone(second, self.window))],
                (false, false) => step::both([first, second], self.window),
            };
            for (lane, stop) in [&mut *first, &mut *second].into_iter().zip(stops) {
                let error = match stop {
                    None => continue,
                    Some(Stop::BlockEnds) => {
                        lane.end_block();
                        continue;
                    }
                    Some(Stop::Malformed) => DecodeError::Malformed,
                    Some(Stop::Long) => DecodeError::Long,
                };
                lane.finish(|index, _| each(index, Err(error)));
            }
        }
    }
}

impl Lane {
    /// Takes streams up until one has symbols to decode, or there are no more.
    fn fill<'s>(
        &mut self,
        streams: &mut impl Iterator<Item = (usize, &'s [u8])>,
        page_bytes: usize,
        each: &mut impl FnMut(usize, Result<Decoded<'_>, DecodeError>),
    ) {
        loop {
            if self.is_idle() {
                let Some((index, stream)) = streams.next() else { return };
                self.start(index, stream);
            }
            match self.settle(page_bytes) {
                Ok(Settled::InBlock) => return,
                Ok(Settled::Ended { read, left }) => self.finish(|index, output| {
                    each(index, Ok(Decoded { page: &output[..page_bytes], read, left }));
                }),
                Err(error) => self.finish(|index, _| each(index, Err(error))),
            }
        }
    }
}
