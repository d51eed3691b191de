//! Migrations over TLS in this process.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[path = "../common/mod.rs"]
mod common;

mod authority;
mod ends;
mod folders;
mod hanging;
mod kernel;
mod migrate;
mod peer;
mod refused;
