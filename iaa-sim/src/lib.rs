#![doc = include_str!("../README.md")]
#![deny(unsafe_code)]

pub mod completion;
pub mod descriptor;
pub mod engine;
#[allow(unsafe_code, reason = "system calls on the process's own memory")]
pub mod memory;
