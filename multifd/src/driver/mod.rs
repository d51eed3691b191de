//! Machines over streams: what moves the bytes that the machines in [`core`](crate::core) want and
//! give.

mod main_channel;

pub use main_channel::{MainChannelError, MainReader, MainWriter, ReturnReader};
