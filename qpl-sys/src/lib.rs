#![doc = include_str!("../README.md")]
#![warn(clippy::exhaustive_structs, clippy::exhaustive_enums)]

mod job;
mod library;
mod status;
mod version;

pub use job::{AuxData, Flags, Job, Operation, Path};
pub use library::{Library, OpenError, simulated_iaa};
pub use status::Status;
pub use version::Version;
