#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![warn(clippy::exhaustive_enums, clippy::exhaustive_structs)]

mod bottleneck;
mod codec;
mod error;
mod measure;
mod migration;
mod parameters;
mod preset;
mod sample;
mod simulation;
mod workload;

pub use bottleneck::Resource;
pub use codec::{Codec, CodecSpeed, Work};
pub use error::Error;
pub use measure::{Measured, measure};
pub use migration::{Live, Outcome, simulate};
pub use parameters::{CpuFigures, DeviceFigures, LinkFigures, Parameters, Speed};
pub use preset::{Preset, XEON_4TH_GEN_64G};
pub use sample::Sample;
pub use simulation::{SideTally, Tally};
pub use workload::{MAX_BYTES, Workload};
