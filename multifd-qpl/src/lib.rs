#![doc = include_str!("../README.md")]
#![deny(unsafe_code)]
#![warn(clippy::exhaustive_structs, clippy::exhaustive_enums)]

mod counts;
mod engine;
mod hardware;
mod inflate;
#[allow(unsafe_code, reason = "libqpl is a C library")]
mod job;
mod methods;
mod options;
mod path;
mod recv;
mod send;
mod software;

pub use methods::Qpl;
pub use page_deflate::{Level, UnknownLevel};

pub use options::{Numa, Options, UnknownNuma};
pub use path::{Path, UnknownPath};

/// The largest distance of a match, in bytes: the accelerator has no more history, and refuses a
/// stream that reaches further. It holds for every page size.
pub const WINDOW: usize = 4096;
