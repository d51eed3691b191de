//! One engine: a descriptor in, a completion out.

use crate::completion::Completion;
use crate::descriptor::Descriptor;
use crate::memory::Memory;

/// What an engine keeps between descriptors: room to work in, nothing of their data.
#[derive(Debug, Default)]
pub struct Engine {}

impl Engine {
    /// Does what a descriptor asks for, on `memory`. The completion record is not written: its address
    /// is the caller's business, as is when it is.
    pub fn run(&mut self, descriptor: &Descriptor, memory: &impl Memory) -> Completion {
        let _ = (descriptor, memory);
        Completion { status: 0x10, ..Completion::default() }
    }
}
