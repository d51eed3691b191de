//! Inspections of recordings out of real QEMUs: whole, broken on purpose, and at random.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod broken_channels;
mod broken_main;
mod random;
mod streams;
mod whole;
