#![doc = include_str!("../README.md")]
#![deny(unsafe_code)]

pub mod completion;
pub mod config;
pub mod counters;
pub mod descriptor;
pub mod device;
pub mod engine;
#[cfg(feature = "libaccel-config")]
mod faces;
pub mod fault;
mod locate;
#[allow(unsafe_code, reason = "system calls on the process's own memory")]
pub mod memory;
#[allow(unsafe_code, reason = "system calls on the thread's own state")]
mod thread;

pub use config::Config;
pub use device::{Device, Devices, Step, Submission};
pub use locate::library_file;
