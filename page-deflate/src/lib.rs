#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![warn(clippy::exhaustive_structs, clippy::exhaustive_enums)]

mod decode;
mod encode;
mod symbols;

pub use decode::{DecodeError, Decoded, Decoder};
pub use encode::{Encoder, Level, UnknownLevel};

/// The largest distance of a match that DEFLATE has, in bytes (RFC 1951, section 2).
pub const LARGEST_WINDOW: usize = 32 << 10;

/// Bytes that nothing can be said about.
#[cfg(test)]
fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    std::iter::repeat_with(next).take(bytes).collect()
}
