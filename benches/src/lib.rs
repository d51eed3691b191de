#![doc = include_str!("../README.md")]

pub mod bare;
mod channel;
mod cpu;
mod guest;
mod load;

pub use channel::{Destination, Payloads, Receiver, Sender};
pub use cpu::{cpu_time, cpu_time_around_a_pause};
pub use guest::{Guest, PACKET_PAGES, PAGE_BYTES, PAGE_SIZE, Packet};
pub use load::{load, mark_if_busy, mark_if_busy_above};

// Nothing else mentions these crates, and a crate that nothing mentions registers no codec.
use multifd_lz4 as _;
use multifd_qatzip as _;
use multifd_qpl as _;
use multifd_uadk as _;
use multifd_zlib as _;
use multifd_zstd as _;
