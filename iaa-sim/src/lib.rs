#![doc = include_str!("../README.md")]
#![deny(unsafe_code)]

mod aecs;
mod bits;
mod checksum;
pub mod completion;
mod deflate;
pub mod descriptor;
pub mod engine;
mod inflate;
#[allow(unsafe_code, reason = "system calls on the process's own memory")]
pub mod memory;
mod operation;
pub mod status;
