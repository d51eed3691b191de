//! A codec, as far as a plan looks at it.

use super::parameters::CodecSpeed;
use super::workload::Workload;

/// What a codec makes of the memory, and what works for it.
#[derive(Clone, Debug)]
pub(super) struct Codec {
    pub(super) name: String,
    pub(super) work: Work,
    pub(super) workload: Workload,
    /// Where its figures come from, for people.
    pub(super) origin: String,
}

/// What compresses and decompresses.
#[derive(Clone, Copy, Debug)]
pub(super) enum Work {
    /// Pages go as they are.
    Nothing,
    /// The channels' own CPU.
    Cpu(CodecSpeed),
    /// Accelerators; the CPU where their queues are full.
    Devices { fallback: CodecSpeed },
}
