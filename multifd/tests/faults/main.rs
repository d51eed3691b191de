//! Whole migrations, each of which one thing goes wrong in, and what has to hold after it: see
//! `docs/faults.md`. `MULTIFD_FAULTS=full` runs all of them, `MULTIFD_FAULT=…` one again.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[path = "../tls/authority.rs"]
#[allow(dead_code, reason = "a part of it is used here")]
mod authority;
#[path = "../common/mod.rs"]
mod common;

mod case;
mod codec;
mod guest;
mod kinds;
mod line;
mod memory;
mod migration;
mod oracle;
mod places;
mod run;
mod way;
