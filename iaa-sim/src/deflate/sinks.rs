//! What becomes of literals and matches: counts, or codes.

use super::{Sink, symbols};
use crate::aecs::{Code, Codes};
use crate::bits::BitWriter;
use crate::status::DataError;

/// The symbol of a block's end.
const END_OF_BLOCK: usize = 256;

/// How often each symbol is used.
#[derive(Debug)]
pub(crate) struct Statistics {
    literals: [u32; 286],
    distances: [u32; 30],
}

impl Statistics {
    pub(crate) fn end_of_block(&mut self) {
        self.literals[END_OF_BLOCK] += 1;
    }

    /// As they are written: 286 words, 2 of zeros, 30 words, 2 of zeros.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        let words = self.literals.iter().chain(&[0; 2]).chain(&self.distances).chain(&[0; 2]);
        out.extend(words.flat_map(|word| word.to_le_bytes()));
    }
}

impl Default for Statistics {
    fn default() -> Self {
        Self { literals: [0; 286], distances: [0; 30] }
    }
}

impl Sink for Statistics {
    fn literal(&mut self, byte: u8) {
        self.literals[usize::from(byte)] += 1;
    }

    fn repeat(&mut self, length: usize, distance: usize) {
        self.literals[symbols::length(length).symbol] += 1;
        self.distances[symbols::distance(distance).symbol] += 1;
    }
}

/// Writes symbols with their codes.
#[derive(Debug)]
pub(crate) struct Encoder<'a> {
    codes: &'a Codes,
    writer: BitWriter<'a>,
    /// A symbol was needed that has no code.
    missing: bool,
}

impl<'a> Encoder<'a> {
    pub(crate) fn new(codes: &'a Codes, writer: BitWriter<'a>) -> Self {
        Self { codes, writer, missing: false }
    }

    pub(crate) fn end_of_block(&mut self) {
        self.put(self.codes.literals[END_OF_BLOCK]);
    }

    /// An empty stored block.
    pub(crate) fn stored_block(&mut self, last: bool) {
        self.writer.put(last.into(), 3);
        self.writer.align();
        self.writer.put(0xffff_0000, 32);
    }

    pub(crate) fn finish(self) -> Result<BitWriter<'a>, DataError> {
        if self.missing { Err(DataError::NoCode) } else { Ok(self.writer) }
    }

    #[inline]
    fn put(&mut self, code: Code) {
        self.missing |= code.length == 0;
        self.writer.put(code.bits.into(), code.length.into());
    }
}

impl Sink for Encoder<'_> {
    #[inline]
    fn literal(&mut self, byte: u8) {
        self.put(self.codes.literals[usize::from(byte)]);
    }

    #[inline]
    fn repeat(&mut self, length: usize, distance: usize) {
        let length = symbols::length(length);
        self.put(self.codes.literals[length.symbol]);
        self.writer.put(length.extra, length.extra_bits);
        let distance = symbols::distance(distance);
        self.put(self.codes.distances[distance.symbol]);
        self.writer.put(distance.extra, distance.extra_bits);
    }
}
