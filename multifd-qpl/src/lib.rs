#![doc = include_str!("../README.md")]
#![deny(unsafe_code)]

mod codec;
mod inflate;
mod path;
mod portable;
mod software;

use multifd_core::MethodDescriptor;

pub use path::Path;

/// Method QPL, on the best path that works here: [`Path::Auto`].
pub const DESCRIPTOR: MethodDescriptor = Path::Auto.descriptor();

multifd_core::inventory::submit! { DESCRIPTOR }

/// The largest distance of a match, in bytes: the accelerator has no more history, and refuses a
/// stream that reaches further. It holds for every page size.
pub const WINDOW: usize = 4096;
