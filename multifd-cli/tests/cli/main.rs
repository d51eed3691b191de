//! The program as a user runs it.

#![allow(clippy::unwrap_used, reason = "a test that panics fails")]

mod bad_input;
mod cancel;
mod cloud_hypervisor;
mod common;
mod cpu;
mod decode;
mod demo;
mod doctor;
mod inspect;
mod outcome;
#[path = "../../../multifd/tests/cloud_hypervisor/peer.rs"]
#[allow(dead_code, reason = "the library's tests use the rest")]
mod peer;
mod places;
mod plan;
mod program;
mod qpl;
mod relay;
mod scene;
mod send_recv;
mod serve;
mod show;
mod strangers;
mod terminal;
mod tls;
mod token;
