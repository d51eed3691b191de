//! What source, destination and relay have in common.

#![cfg_attr(not(test), allow(dead_code, reason = "moved onto in the next commits"))]

pub(crate) mod barrier;
pub(crate) mod connections;
pub(crate) mod queue;
pub(crate) mod return_path;
pub(crate) mod session;
