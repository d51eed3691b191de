#![doc = include_str!("../README.md")]
#![deny(unsafe_code)]

mod counts;
mod hardware;
mod inflate;
#[allow(unsafe_code, reason = "libqpl is a C library")]
mod job;
mod methods;
mod options;
mod path;
mod portable;
mod recv;
mod send;
mod software;

use multifd_core::MethodDescriptor;

pub use options::{Numa, Options, UnknownNuma};
pub use path::{Path, UnknownPath};

/// Method QPL, on the best path that works here: [`Path::Auto`].
pub const DESCRIPTOR: MethodDescriptor = Path::Auto.descriptor();

multifd_core::inventory::submit! { DESCRIPTOR }

/// The largest distance of a match, in bytes: the accelerator has no more history, and refuses a
/// stream that reaches further. It holds for every page size.
pub const WINDOW: usize = 4096;
