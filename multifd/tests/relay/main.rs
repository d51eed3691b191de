//! A relay between two sides.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![allow(clippy::print_stdout, reason = "a measured process reports on its stdout")]

#[path = "../common/mod.rs"]
mod common;

mod barrier;
mod failure;
mod memory;
mod migrate;
mod postcopy;
mod recordings;
mod support;
mod taps;
