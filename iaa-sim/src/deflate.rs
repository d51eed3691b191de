//! Compression: data becomes literals and matches, and these symbols, counted or written with the AECS's
//! codes.

mod matcher;
mod sinks;
mod symbols;

pub(crate) use matcher::Matcher;
pub(crate) use sinks::{Encoder, Statistics};
pub(crate) use symbols::{distance_base, length_base};

/// Most bytes that a match may be away: the device's history.
pub(crate) const HISTORY: usize = 4096;

/// What takes literals and matches in their order.
pub(crate) trait Sink {
    /// One byte as it is.
    fn literal(&mut self, byte: u8);

    /// A repetition of `length` bytes, 3 to 258, from `distance` bytes before, 1 to 4096.
    fn repeat(&mut self, length: usize, distance: usize);
}
