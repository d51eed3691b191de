//! One engine: a descriptor in, a completion out.
//!
//! The operations are those of IAA 1.0 that work on DEFLATE: no-operation (opcode 0), decompress (0x42) and
//! compress (0x43). A descriptor that an engine cannot or must not do is refused by its status, before any memory
//! is touched. Then the AECS and source 1 are read, all of them; then the output is written, then the AECS.

mod compress;
mod decompress;

use crate::aecs::DECOMPRESS_BYTES;
use crate::completion::Completion;
use crate::deflate::Matcher;
use crate::descriptor::Descriptor;
use crate::inflate::{Inflater, Output};
use crate::memory::{Memory, PageFault};
use crate::operation::{Operation, Refusal, Span};
use crate::status::{DataError, Status};

/// The largest transfer of a new engine, in bytes.
pub const LARGEST_TRANSFER: u32 = 2 << 20;

/// What an engine keeps between descriptors: room to work in, nothing of their data.
#[derive(Debug)]
pub struct Engine {
    largest: u32,
    aecs: Vec<u8>,
    source: Vec<u8>,
    output: Vec<u8>,
    matcher: Matcher,
    inflater: Inflater,
    inflated: Output,
    history: Vec<u8>,
}

impl Engine {
    /// An engine whose descriptors may move so many bytes, by source 1 and by the destination each.
    #[must_use]
    pub fn with_largest_transfer(bytes: u32) -> Self {
        Self {
            largest: bytes,
            aecs: vec![0; DECOMPRESS_BYTES as usize],
            source: Vec::new(),
            output: Vec::new(),
            matcher: Matcher::default(),
            inflater: Inflater::default(),
            inflated: Output::default(),
            history: Vec::new(),
        }
    }

    /// Does what a descriptor asks for, on `memory`. The completion record is not written: its address
    /// is the caller's business, as is when it is.
    pub fn run(&mut self, descriptor: &Descriptor, memory: &impl Memory) -> Completion {
        let operation = match Operation::parse(descriptor, self.largest) {
            Ok(operation) => operation,
            Err(refusal) => return refusal.into(),
        };
        let done = match operation {
            Operation::Nothing => Ok(status(Status::Success)),
            Operation::Compress(compress) => self.compress(&compress, memory),
            Operation::Decompress(decompress) => self.decompress(&decompress, memory),
        };
        done.unwrap_or_else(Completion::from)
    }

    /// Appends source 1 to what is in the source's buffer.
    fn read_source(&mut self, span: Span, memory: &impl Memory) -> Result<(), Failure> {
        let from = self.source.len();
        self.source.resize(from + span.bytes as usize, 0);
        memory.read(span.address, &mut self.source[from..]).map_err(Failure::Read)
    }
}

impl Default for Engine {
    fn default() -> Self {
        Self::with_largest_transfer(LARGEST_TRANSFER)
    }
}

/// Why an operation ended early.
#[derive(Debug)]
enum Failure {
    Read(PageFault),
    Write(PageFault),
    Data(DataError),
}

impl From<DataError> for Failure {
    fn from(error: DataError) -> Self {
        Self::Data(error)
    }
}

fn status(status: Status) -> Completion {
    Completion { status: status as u8, ..Completion::default() }
}

impl From<Refusal> for Completion {
    fn from(refusal: Refusal) -> Self {
        Self { invalid_flags: refusal.flags, ..status(refusal.status) }
    }
}

impl From<Failure> for Completion {
    fn from(failure: Failure) -> Self {
        let fault = |kind, fault: PageFault| Self {
            fault_info: 1,
            fault_address: fault.address,
            ..status(kind)
        };
        match failure {
            Failure::Read(page) => fault(Status::ReadPageFault, page),
            Failure::Write(page) => fault(Status::WritePageFault, page),
            Failure::Data(error) => Self { error: error as u8, ..status(Status::DataError) },
        }
    }
}
