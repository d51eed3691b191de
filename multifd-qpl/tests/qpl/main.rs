//! The tests of multifd-qpl: one program, so that a test can have others run with a simulated IAA.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]
#![allow(unreachable_pub, reason = "a test program exports nothing")]

mod bad_input;
mod conformance;
mod device;
mod dropped;
mod faults;
mod options;
mod pairs;
mod portable;
mod real;
mod real_matrix;
mod support;
mod window;
