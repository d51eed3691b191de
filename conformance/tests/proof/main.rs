//! The suite proves itself: codecs that are right pass it, and each that is broken in one way is
//! caught by the group that is meant for it.

mod broken;
mod conforming;
mod prefixed;
mod qpl;
mod rle;

mod zlib;
mod zstd;
