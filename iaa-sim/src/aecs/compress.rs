//! The AECS of a compression.
//!
//! | at | field |
//! |---|---|
//! | 0 | `CRC` |
//! | 4 | `XOR Checksum` |
//! | 28 | `Num Output Accum Bits` |
//! | 32 | `Output Accum Data`, 256 bytes |
//! | 288 | codes of literals and lengths: 286 words, 2 reserved ones |
//! | 1440 | codes of distances: 30 words, 2 reserved ones |
//!
//! A word of a code has the code in bits 0 to 14, as a number whose highest bit is written first, and the code's
//! length in bits 15 to 18; those above do not count (libqpl's tables have some there). The engine reads all of it and writes what is before the codes.

use super::{put_u32, u32_at};
use crate::status::DataError;

/// Bytes of the AECS of a compression.
pub(crate) const COMPRESS_BYTES: u32 = 1568;

/// Bytes of it that an engine writes.
const WRITTEN_BYTES: usize = 288;

const ACCUMULATOR_AT: usize = 32;
const ACCUMULATOR_BYTES: usize = 256;
const LITERAL_CODES_AT: usize = 288;
const DISTANCE_CODES_AT: usize = LITERAL_CODES_AT + 4 * 288;

/// What a compression starts from; its default is that without an AECS.
#[derive(Debug)]
pub(crate) struct CompressAecs {
    pub(crate) crc: u32,
    pub(crate) xor: u16,
    accumulator: [u8; ACCUMULATOR_BYTES],
    accumulated_bits: u32,
    pub(crate) codes: Codes,
}

/// The code of each symbol.
#[derive(Debug)]
pub(crate) struct Codes {
    pub(crate) literals: [Code; 286],
    pub(crate) distances: [Code; 30],
}

/// A code as it is written: its first bit is the lowest. A length of 0 is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Code {
    pub(crate) bits: u16,
    pub(crate) length: u8,
}

impl CompressAecs {
    pub(crate) fn parse(bytes: &[u8; COMPRESS_BYTES as usize]) -> Result<Self, DataError> {
        let accumulated_bits = u32_at(bytes, 28);
        if accumulated_bits > 8 * ACCUMULATOR_BYTES as u32 {
            return Err(DataError::BadAecs);
        }
        let code = |at| move |symbol: usize| Code::parse(u32_at(bytes, at + 4 * symbol));
        Ok(Self {
            crc: u32_at(bytes, 0),
            xor: u32_at(bytes, 4) as u16,
            accumulator: bytes[ACCUMULATOR_AT..LITERAL_CODES_AT].try_into().expect("its bytes"),
            accumulated_bits,
            codes: Codes {
                literals: std::array::from_fn(code(LITERAL_CODES_AT)),
                distances: std::array::from_fn(code(DISTANCE_CODES_AT)),
            },
        })
    }

    /// The bits that come before the data: whole bytes, and the bits behind these.
    pub(crate) fn accumulated(&self) -> (&[u8], u8, u32) {
        let (whole, bits) = (self.accumulated_bits as usize / 8, self.accumulated_bits % 8);
        let last = self.accumulator.get(whole).map_or(0, |byte| byte & ((1 << bits) - 1));
        (&self.accumulator[..whole], last, bits)
    }

    /// What is written for the next descriptor; up to 7 bits are left in the accumulator.
    pub(crate) fn to_write(crc: u32, xor: u16, last: u8, bits: u32) -> [u8; WRITTEN_BYTES] {
        let mut bytes = [0; WRITTEN_BYTES];
        put_u32(&mut bytes, 0, crc);
        put_u32(&mut bytes, 4, xor.into());
        put_u32(&mut bytes, 28, bits);
        bytes[ACCUMULATOR_AT] = last;
        bytes
    }
}

impl Default for CompressAecs {
    fn default() -> Self {
        Self {
            crc: 0,
            xor: 0,
            accumulator: [0; ACCUMULATOR_BYTES],
            accumulated_bits: 0,
            codes: Codes { literals: [Code::default(); 286], distances: [Code::default(); 30] },
        }
    }
}

impl Code {
    /// A code that cannot be, with a value beyond its length, is as none.
    fn parse(word: u32) -> Self {
        let (code, length) = (word & 0x7fff, word >> 15 & 15);
        if length == 0 || code >> length != 0 {
            return Self::default();
        }
        Self { bits: (code as u16).reverse_bits() >> (16 - length), length: length as u8 }
    }
}
