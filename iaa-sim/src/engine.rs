//! One engine: a descriptor in, a completion out.
//!
//! The operations are those of IAA 1.0 on DEFLATE: no-operation (opcode 0), decompress (0x42) and compress
//! (0x43). A descriptor that an engine cannot or must not do is refused before any memory is touched; the first
//! that applies of
//!
//! | status | of |
//! |---|---|
//! | 0x10 | another opcode |
//! | 0x1b | a completion record that is not at a multiple of 64 |
//! | 0x11 | a reserved flag, a completion requested without an address, reading or writing of source 2 in a way that is not the operation's |
//! | 0x12 | a reserved field: the interrupt's handle without an interrupt, bits 20 to 30 of the first word, all fields of data of a no-operation, bytes 56 to 63 of a compression |
//! | 0x30 | a reserved flag of the operation, or one that is not supported (below) |
//! | 0x31 | filter flags |
//! | 0x13 | source and destination of 0 bytes, either above the largest transfer |
//! | 0x1c | an AECS whose address or size is not a multiple of 32 |
//! | 0x13 | an AECS of another size than 1568 bytes to compress, 5376 or 1248 to decompress |
//! | 0x16 | a destination or an AECS to write that overlaps another buffer |
//!
//! Then the AECS and source 1 are read, each in full; then the output is written, then the AECS. Memory that is
//! not there ends it with status 0x03 or 0x83 and the address; done again once the memory is there, all is as if
//! nothing had happened. Of a compression that fails, nothing is written. The codes of status 0x0a are in
//! [`DataError`].
//!
//! What real devices do more: big-endian bits and indexing, whose flags are refused (0x30); filters and CRC-64
//! (0x10); interrupts, steering of caches and ordering, whose flags change nothing; source 1 is not read to
//! its end when decompression stops before. Of the architecture's codes, 16, 19 and 29 do not occur: there is no cause
//! of them.

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

/// The largest transfer of a new engine, in bytes: that of the configurations that come with libqpl.
pub const LARGEST_TRANSFER: u32 = 2 << 30;

/// Bytes of source 1 that are read at a time: whatever a descriptor claims, no room is made for what is not there.
const PIECE: usize = 1 << 20;

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
            Operation::Nothing => Ok(Completion::of(Status::Success)),
            Operation::Compress(compress) => self.compress(&compress, memory),
            Operation::Decompress(decompress) => self.decompress(&decompress, memory),
        };
        done.unwrap_or_else(Completion::from)
    }

    /// Appends source 1 to what is in the source's buffer.
    fn read_source(&mut self, span: Span, memory: &impl Memory) -> Result<(), Failure> {
        let bytes = span.bytes as usize;
        for done in (0..bytes).step_by(PIECE) {
            let from = self.source.len();
            self.source.resize(from + PIECE.min(bytes - done), 0);
            let address = span.address.wrapping_add(done as u64);
            memory.read(address, &mut self.source[from..]).map_err(Failure::Read)?;
        }
        Ok(())
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

impl From<Refusal> for Completion {
    fn from(refusal: Refusal) -> Self {
        Self { invalid_flags: refusal.flags, ..Self::of(refusal.status) }
    }
}

impl From<Failure> for Completion {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Read(page) => Self::page_fault(Status::ReadPageFault, page.address),
            Failure::Write(page) => Self::page_fault(Status::WritePageFault, page.address),
            Failure::Data(error) => Self { error: error as u8, ..Self::of(Status::DataError) },
        }
    }
}
