#![doc = include_str!("../README.md")]

#[allow(unsafe_code, reason = "it is a C library")]
mod abi;
#[allow(unsafe_code, reason = "the memory of C programs")]
mod buffers;
mod config;
mod device;
mod engine;
mod fatal;
mod fault;
mod job;
mod locate;
mod simulation;
mod software;
mod table;

pub use locate::library_file;
