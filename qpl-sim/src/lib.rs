#![doc = include_str!("../README.md")]

#[allow(unsafe_code, reason = "it is a C library")]
mod abi;
mod at_once;
#[allow(unsafe_code, reason = "the memory of C programs")]
mod buffers;
mod config;
mod ending;
mod fatal;
mod hardware;
mod job;
mod locate;
mod refusals;
mod simulation;
mod software;
mod table;

pub use locate::library_file;
