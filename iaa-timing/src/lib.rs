#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod device;
mod engines;
mod speed;
mod turns;

pub use device::Device;
pub use engines::Engines;
pub use speed::{Speed, Time};
pub use turns::Turns;
