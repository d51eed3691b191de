//! What is QATzip's own.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod members;
mod qzip;
mod support;
