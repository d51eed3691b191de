#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod error;
pub mod firmware;
pub mod guest;
pub mod libvirt;
pub mod matrix;
pub mod program;
pub mod qemu;
mod wait;

pub use error::Error;
