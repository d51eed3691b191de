//! A codec, as the simulation sees it.

use serde::Serialize;

use crate::parameters::Speed;
use crate::workload::Workload;

/// What a codec makes of the memory, and what runs it.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub struct Codec {
    /// The codec's name in a report.
    pub name: String,
    /// What compresses and decompresses.
    pub work: Work,
    /// The memory, as the codec compresses it.
    pub workload: Workload,
}

impl Codec {
    /// A codec that makes `workload` of the memory.
    pub fn new(name: impl Into<String>, work: Work, workload: Workload) -> Self {
        Self { name: name.into(), work, workload }
    }
}

/// What compresses and decompresses pages.
#[non_exhaustive]
#[derive(Clone, Copy, Debug)]
pub enum Work {
    /// Nothing: pages are sent as they are and received in place.
    Nothing,
    /// The CPU of the channels.
    Cpu(CodecSpeed),
    /// The accelerators of each side. A page that finds all of their queues full is left to the
    /// CPU, which has this speed.
    Devices(CodecSpeed),
}

impl Work {
    /// The speed of the CPU; `None` where no page is compressed.
    pub fn speed(&self) -> Option<CodecSpeed> {
        match *self {
            Self::Nothing => None,
            Self::Cpu(speed) | Self::Devices(speed) => Some(speed),
        }
    }
}

/// Speeds of a codec on one core, in bytes of pages.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Serialize)]
pub struct CodecSpeed {
    /// Pages that are compressed.
    pub compress: Speed,
    /// Pages that are decompressed.
    pub decompress: Speed,
}

impl CodecSpeed {
    /// These speeds of both sides.
    pub const fn new(compress: Speed, decompress: Speed) -> Self {
        Self { compress, decompress }
    }
}
