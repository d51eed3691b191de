//! The AECS of a decompression.
//!
//! | at | bytes | field |
//! |---|---|---|
//! | 0 | 4 | `CRC` |
//! | 4 | 4 | `XOR Checksum` |
//! | 0xb8 | 256 | `Input Accum Data`: 32 words of 64 bits |
//! | 0x1b8 | 32 | `Input Accum Valid Bits` of each; the first 0 ends them |
//! | 0x1dc | 1 | `Drop Initial Bits` |
//! | 0x1dd | 1 | `AECS Format`: 0 |
//! | 0x1e0 | 20 | `ALU First Table Index` of literals, for codes of 1 to 15 bits |
//! | 0x1f4 | 20 | `ALU Num Codes`, of all literals and lengths |
//! | 0x208 | 20 | `ALU First Code` |
//! | 0x21c | 20 | `ALU First Len Code`: the first code that is no literal's; all ones where there is none |
//! | 0x230 | 16 | private: code lengths of the symbols 256 to 287, 4 bits each |
//! | 0x240 | 16 | private: code lengths of the distances |
//! | 0x328 | 256 | `LL Mapping Table`: the literals in the order of their codes |
//! | 0x434 | 2 | `Decompress State` |
//! | 0x436 | 2 | private: what the last token was the end of: 0 of nothing, 1 of a block, 2 of the last one |
//! | 0x438 | 4 | `Stored Block Bytes Remaining` |
//! | 0x43c | 4 | private: the rest of a match: its length, and its distance |
//! | 0x4e4 | 2 | `History Buffer Write Offset`; bit 15: all of the buffer counts |
//! | 0x4e8 | 4096 | `History Buffer` |
//!
//! An AECS of 0x4e0 bytes has no history. In the five words of an ALU field, the value for codes of n bits has
//! n + 1 bits: 1 to 6 are in the first word, 7 to 9 in the second one, then two in each.

use super::{put_u32, u32_at};
use crate::deflate::HISTORY;
use crate::inflate::{BlockEnd, Huffman, Phase, Repeat, State, Tables};
use crate::status::DataError;

const INPUT_AT: usize = 0xb8;
const INPUT_BITS_AT: usize = 0x1b8;
const INPUT_WORDS: usize = 32;
const FIRST_INDEX_AT: usize = 0x1e0;
const COUNT_AT: usize = 0x1f4;
const FIRST_CODE_AT: usize = 0x208;
const FIRST_LENGTH_CODE_AT: usize = 0x21c;
const OTHER_LENGTHS_AT: usize = 0x230;
const DISTANCE_LENGTHS_AT: usize = 0x240;
const LITERALS_AT: usize = 0x328;
const LITERALS: usize = 256;
const STATE_AT: usize = 0x434;
const ENDED_AT: usize = 0x436;
const STORED_AT: usize = 0x438;
const PENDING_AT: usize = 0x43c;
const HISTORY_END_AT: usize = 0x4e4;
const HISTORY_AT: usize = 0x4e8;

/// Bits of `Decompress State`.
const AT_HEADER: u16 = 1;
const IN_STORED: u16 = 2;
const IN_LAST: u16 = 4;
const DONE: u16 = 8;

/// Most bits that the input accumulator holds.
pub(crate) const INPUT_BITS: usize = 64 * INPUT_WORDS;

/// The AECS's bytes, of either size.
#[derive(Debug)]
pub(crate) struct DecompressAecs<'a>(pub(crate) &'a mut [u8]);

impl DecompressAecs<'_> {
    pub(crate) fn checksums(&self) -> (u32, u16) {
        (u32_at(self.0, 0), u32_at(self.0, 4) as u16)
    }

    pub(crate) fn set_checksums(&mut self, crc: u32, xor: u16) {
        put_u32(self.0, 0, crc);
        put_u32(self.0, 4, xor.into());
    }

    /// Puts the input that precedes the source into `bytes`, so that it ends with the last of these; the bit at which
    /// it begins.
    pub(crate) fn input(&self, bytes: &mut Vec<u8>) -> Result<usize, DataError> {
        let sizes = &self.0[INPUT_BITS_AT..INPUT_BITS_AT + INPUT_WORDS];
        if sizes.iter().any(|bits| *bits > 64) || self.0[0x1dd] & 1 != 0 {
            return Err(DataError::BadAecs);
        }
        let sizes = sizes.iter().take_while(|bits| **bits > 0).map(|bits| usize::from(*bits));
        let total: usize = sizes.clone().sum();
        bytes.clear();
        bytes.resize(total.div_ceil(8), 0);
        let start = 8 * bytes.len() - total;
        let mut at = start;
        for (nth, bits) in sizes.enumerate() {
            for bit in 0..bits {
                let set = self.0[INPUT_AT + 8 * nth + bit / 8] >> (bit % 8) & 1;
                bytes[at / 8] |= set << (at % 8);
                at += 1;
            }
        }
        Ok((start + usize::from(self.0[0x1dc])).min(8 * bytes.len()))
    }

    /// Keeps the bits of `bytes` from `start` up to `end`, which are at most [`INPUT_BITS`].
    pub(crate) fn set_input(&mut self, bytes: &[u8], start: usize, end: usize) {
        self.0[INPUT_AT..INPUT_BITS_AT + INPUT_WORDS].fill(0);
        self.0[0x1dc] = 0;
        for (nth, from) in (start..end).step_by(64).enumerate() {
            let to = end.min(from + 64);
            self.0[INPUT_BITS_AT + nth] = (to - from) as u8;
            for at in from..to {
                let set = bytes[at / 8] >> (at % 8) & 1;
                self.0[INPUT_AT + 8 * nth + (at - from) / 8] |= set << ((at - from) % 8);
            }
        }
    }

    pub(crate) fn state(&self) -> Result<State, DataError> {
        let state = self.u16(STATE_AT);
        let last = state & IN_LAST != 0;
        let phase = if state & DONE != 0 {
            Phase::Done
        } else if state & AT_HEADER != 0 {
            Phase::Header
        } else if state & IN_STORED != 0 {
            let left = u32_at(self.0, STORED_AT);
            Phase::Stored { last, left: left.try_into().map_err(|_| DataError::BadAecs)? }
        } else {
            Phase::Coded { last }
        };
        let ended = match self.u16(ENDED_AT) {
            1 => Some(BlockEnd::Any),
            2 => Some(BlockEnd::Last),
            _ => None,
        };
        Ok(State { phase, ended, pending: self.pending()? })
    }

    fn pending(&self) -> Result<Option<Repeat>, DataError> {
        let (length, distance) = (self.u16(PENDING_AT), self.u16(PENDING_AT + 2));
        match (length, usize::from(distance)) {
            (0, _) => Ok(None),
            (1..=258, 1..=HISTORY) => Ok(Some(Repeat { length, distance })),
            _ => Err(DataError::BadAecs),
        }
    }

    pub(crate) fn set_state(&mut self, state: State) {
        let bits = |last| if last { IN_LAST } else { 0 };
        let (word, left) = match state.phase {
            Phase::Header => (AT_HEADER, 0),
            Phase::Stored { last, left } => (IN_STORED | bits(last), left),
            Phase::Coded { last } => (bits(last), 0),
            Phase::Done => (DONE, 0),
        };
        self.put_u16(STATE_AT, word);
        self.put_u16(
            ENDED_AT,
            match state.ended {
                None => 0,
                Some(BlockEnd::Any) => 1,
                Some(BlockEnd::Last) => 2,
            },
        );
        put_u32(self.0, STORED_AT, left.into());
        let pending = state.pending.unwrap_or(Repeat { length: 0, distance: 0 });
        self.put_u16(PENDING_AT, pending.length);
        self.put_u16(PENDING_AT + 2, pending.distance);
    }

    /// The codes of the current block.
    pub(crate) fn tables(&self, tables: &mut Tables) -> Result<(), DataError> {
        let count = self.alu(COUNT_AT);
        let first = self.alu(FIRST_CODE_AT);
        let index = self.alu(FIRST_INDEX_AT);
        let first_length = self.alu(FIRST_LENGTH_CODE_AT);
        let others = self.lengths(OTHER_LENGTHS_AT);
        let table = &self.0[LITERALS_AT..LITERALS_AT + LITERALS];
        let (mut symbols, mut room) = ([0; 288], LITERALS);
        let mut total = 0;
        for length in 1..16 {
            let literals = match first_length[length] {
                none if none == no_code(length) => count[length],
                code => code.checked_sub(first[length]).ok_or(DataError::BadAecs)?,
            };
            if literals > count[length] {
                return Err(DataError::BadAecs);
            }
            // Where there is none, the index means nothing.
            let from = if literals == 0 { 0 } else { usize::from(index[length]) };
            let literals = table.get(from..from + usize::from(literals));
            let literals = literals.ok_or(DataError::BadAecs)?;
            // What is kept of them has room for as many.
            room = room.checked_sub(literals.len()).ok_or(DataError::BadAecs)?;
            let literals = literals.iter().map(|symbol| u16::from(*symbol));
            let others = (256_u16..).zip(&others).filter(|(_, bits)| usize::from(**bits) == length);
            let all = literals.chain(others.map(|(symbol, _)| symbol));
            for symbol in all.take(count[length].into()) {
                *symbols.get_mut(total).ok_or(DataError::BadAecs)? = symbol;
                total += 1;
            }
        }
        if total != count.iter().map(|count| usize::from(*count)).sum::<usize>() {
            return Err(DataError::BadAecs);
        }
        let restored = tables.literals.restore(count, first, symbols.into_iter().take(total));
        restored.map_err(|_| DataError::BadAecs)?;
        let distances = self.lengths(DISTANCE_LENGTHS_AT);
        tables.distances.assign(&distances).map_err(|_| DataError::BadAecs)
    }

    pub(crate) fn set_tables(&mut self, tables: &Tables) {
        let mut first_index = [0; 16];
        let mut first_length = [0; 16];
        let mut literals = 0;
        for length in 1..16 {
            let symbols = tables.literals.symbols(length);
            let split = symbols.iter().position(|symbol| *symbol > 255);
            first_index[length] = literals as u16;
            first_length[length] = match split {
                None => no_code(length),
                Some(at) => tables.literals.first[length] + at as u16,
            };
            for symbol in &symbols[..split.unwrap_or(symbols.len())] {
                self.0[LITERALS_AT + literals] = *symbol as u8;
                literals += 1;
            }
        }
        self.put_alu(FIRST_INDEX_AT, &first_index);
        self.put_alu(COUNT_AT, &tables.literals.count);
        self.put_alu(FIRST_CODE_AT, &tables.literals.first);
        self.put_alu(FIRST_LENGTH_CODE_AT, &first_length);
        self.put_lengths(OTHER_LENGTHS_AT, &tables.literals, 256);
        self.put_lengths(DISTANCE_LENGTHS_AT, &tables.distances, 0);
    }

    /// Puts the history into `history`, the oldest byte first.
    pub(crate) fn history(&self, history: &mut Vec<u8>) -> Result<(), DataError> {
        history.clear();
        let Some(buffer) = self.0.get(HISTORY_AT..HISTORY_AT + HISTORY) else { return Ok(()) };
        let word = self.u16(HISTORY_END_AT);
        let (end, all) = (usize::from(word & 0x7fff), word & 0x8000 != 0);
        if end > HISTORY {
            return Err(DataError::BadAecs);
        }
        let (new, old) = buffer.split_at(end);
        if all {
            history.extend_from_slice(old);
        }
        history.extend_from_slice(new);
        Ok(())
    }

    /// Keeps the history, at most 4096 bytes, where there is room for it.
    pub(crate) fn set_history(&mut self, history: &[u8]) {
        if self.0.len() < HISTORY_AT + HISTORY {
            return;
        }
        let word = if history.len() == HISTORY { 0x8000 } else { history.len() as u16 };
        self.put_u16(HISTORY_END_AT, word);
        self.0[HISTORY_AT..HISTORY_AT + history.len()].copy_from_slice(history);
    }

    fn u16(&self, at: usize) -> u16 {
        u16::from_le_bytes([self.0[at], self.0[at + 1]])
    }

    fn put_u16(&mut self, at: usize, value: u16) {
        self.0[at..at + 2].copy_from_slice(&value.to_le_bytes());
    }

    fn alu(&self, at: usize) -> [u16; 16] {
        let mut values = [0; 16];
        for (length, value) in values.iter_mut().enumerate().skip(1) {
            let (word, shift) = alu_place(length);
            let mask = u32::from(no_code(length));
            *value = (u32_at(self.0, at + 4 * word) >> shift & mask) as u16;
        }
        values
    }

    fn put_alu(&mut self, at: usize, values: &[u16; 16]) {
        let mut words = [0; 5];
        for (length, value) in values.iter().enumerate().skip(1) {
            let (word, shift) = alu_place(length);
            words[word] |= u32::from(value & no_code(length)) << shift;
        }
        for (nth, word) in words.into_iter().enumerate() {
            put_u32(self.0, at + 4 * nth, word);
        }
    }

    fn lengths(&self, at: usize) -> [u8; 32] {
        std::array::from_fn(|symbol| self.0[at + symbol / 2] >> (4 * (symbol % 2)) & 15)
    }

    fn put_lengths<const ROOM: usize>(&mut self, at: usize, code: &Huffman<ROOM>, from: u16) {
        self.0[at..at + 16].fill(0);
        for length in 1..16_u8 {
            for symbol in code.symbols(length.into()).iter().filter(|symbol| **symbol >= from) {
                let nth = usize::from(symbol - from);
                self.0[at + nth / 2] |= length << (4 * (nth % 2));
            }
        }
    }
}

/// The word of an ALU field in which the value for codes of a length is, and from which bit on.
fn alu_place(length: usize) -> (usize, usize) {
    let (word, start) = match length {
        ..7 => (0, 1),
        7..10 => (1, 7),
        10..12 => (2, 10),
        12..14 => (3, 12),
        _ => (4, 14),
    };
    (word, (start..length).map(|shorter| shorter + 1).sum())
}

/// All ones in an ALU field, for codes of a length.
fn no_code(length: usize) -> u16 {
    (u32::MAX >> (31 - length)) as u16
}
