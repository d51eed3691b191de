#![doc = include_str!("../README.md")]
#![deny(unsafe_code)]

mod aecs;
mod bits;
mod checksum;
pub mod completion;
pub mod config;
pub mod counters;
mod deflate;
pub mod descriptor;
pub mod device;
pub mod engine;
#[cfg(feature = "libaccel-config")]
mod faces;
pub mod fault;
mod inflate;
mod locate;
#[allow(unsafe_code, reason = "system calls on the process's own memory")]
pub mod memory;
mod operation;
pub mod status;
#[allow(unsafe_code, reason = "system calls on the thread's own state")]
mod thread;

pub use config::Config;
pub use device::{Device, Devices, Step, Submission};
#[doc(hidden)]
pub use locate::built;
pub use locate::library_file;
