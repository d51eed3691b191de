//! Decompression of DEFLATE (RFC 1951), which can stop at any bit of input and any byte of output and go on
//! there.

mod header;
mod huffman;
mod output;

pub(crate) use huffman::{Huffman, Tables};
pub(crate) use output::Output;

use crate::bits::BitReader;
use crate::deflate::{HISTORY, distance_base, length_base};
use crate::status::DataError;
use header::Header;
use huffman::Found;

/// Where a stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) phase: Phase,
    /// What the last token was the end of.
    pub(crate) ended: Option<BlockEnd>,
    /// What is left of a match that did not fit into the output.
    pub(crate) pending: Option<Repeat>,
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// A block's header.
    Header,
    /// So many bytes of a stored block.
    Stored { last: bool, left: u16 },
    /// A token of a compressed block.
    Coded { last: bool },
    /// Nothing: processing has stopped at the end of a block.
    Done,
}

/// Which block has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BlockEnd {
    Any,
    Last,
}

/// A match: `length` bytes from `distance` bytes before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Repeat {
    pub(crate) length: u16,
    pub(crate) distance: u16,
}

/// Why decompression has come to a rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rest {
    /// The input is used up, or what is left of it is a part of a header or token.
    NeedsInput,
    /// There is more output than room.
    OutputFull,
    /// A block has ended at which it is to stop.
    Stopped,
}

/// At the ends of which blocks to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StopAt {
    Nothing,
    AnyBlock,
    LastBlock,
}

/// The decoder, with the codes of the current block.
#[derive(Debug)]
pub(crate) struct Inflater {
    pub(crate) state: State,
    pub(crate) tables: Box<Tables>,
    fixed: Box<Tables>,
}

impl Inflater {
    /// Goes on from its state, as far as input and output go. Output that is not taken meanwhile stays.
    pub(crate) fn run(
        &mut self,
        reader: &mut BitReader<'_>,
        output: &mut Output,
        stop: StopAt,
    ) -> Result<Rest, DataError> {
        if let Some(repeat) = self.state.pending.take() {
            self.repeat(repeat, output)?;
            if self.state.pending.is_some() {
                return Ok(Rest::OutputFull);
            }
        }
        loop {
            let (rest, last) = match self.state.phase {
                Phase::Done => return Ok(Rest::Stopped),
                Phase::Header => match self.header(reader)? {
                    Some(rest) => return Ok(rest),
                    None => continue,
                },
                Phase::Stored { last, left } => (self.stored(reader, output, last, left), last),
                Phase::Coded { last } => (self.tokens(reader, output)?, last),
            };
            match rest {
                Some(rest) => return Ok(rest),
                None => self.end_block(last, stop),
            }
        }
    }

    fn end_block(&mut self, last: bool, stop: StopAt) {
        self.state.ended = Some(if last { BlockEnd::Last } else { BlockEnd::Any });
        self.state.phase = match stop {
            StopAt::AnyBlock => Phase::Done,
            StopAt::LastBlock if last => Phase::Done,
            _ => Phase::Header,
        };
    }

    /// Reads a block's header, all of it or nothing.
    fn header(&mut self, reader: &mut BitReader<'_>) -> Result<Option<Rest>, DataError> {
        let mut ahead = *reader;
        let Some(header) = header::read(&mut ahead, &mut self.tables)? else {
            return Ok(Some(Rest::NeedsInput));
        };
        *reader = ahead;
        self.state.ended = None;
        self.state.phase = match header {
            Header::Stored { last, bytes } => Phase::Stored { last, left: bytes },
            Header::Fixed { last } => {
                self.tables.clone_from(&self.fixed);
                Phase::Coded { last }
            }
            Header::Dynamic { last } => Phase::Coded { last },
        };
        Ok(None)
    }

    /// Copies bytes of a stored block; nothing when it is through.
    fn stored(
        &mut self,
        reader: &mut BitReader<'_>,
        output: &mut Output,
        last: bool,
        left: u16,
    ) -> Option<Rest> {
        reader.align();
        let bytes = reader.bytes(output.room().min(left.into()));
        output.extend(bytes);
        let left = left - bytes.len() as u16;
        self.state.phase = Phase::Stored { last, left };
        match left {
            0 => None,
            _ if output.room() == 0 => Some(Rest::OutputFull),
            _ => Some(Rest::NeedsInput),
        }
    }

    /// Decodes tokens; nothing when the block has ended.
    fn tokens(
        &mut self,
        reader: &mut BitReader<'_>,
        output: &mut Output,
    ) -> Result<Option<Rest>, DataError> {
        loop {
            reader.refill();
            let (symbol, bits) = match self.tables.literals.find(reader.peek(), reader.held()) {
                Found::Symbol(symbol, bits) => (symbol, bits),
                Found::Short => return Ok(Some(Rest::NeedsInput)),
                Found::Nothing => return Err(DataError::BadLiteralCode),
            };
            if symbol < 256 {
                if output.room() == 0 {
                    return Ok(Some(Rest::OutputFull));
                }
                output.push(symbol as u8);
                reader.drop(bits);
            } else if symbol == 256 {
                reader.drop(bits);
                return Ok(None);
            } else {
                if output.room() == 0 {
                    return Ok(Some(Rest::OutputFull));
                }
                let mut ahead = *reader;
                ahead.drop(bits);
                let Some(repeat) = self.match_behind(symbol, &mut ahead)? else {
                    return Ok(Some(Rest::NeedsInput));
                };
                *reader = ahead;
                self.repeat(repeat, output)?;
                if self.state.pending.is_some() {
                    return Ok(Some(Rest::OutputFull));
                }
            }
        }
    }

    /// The rest of a match, whose length's code has been read.
    #[inline]
    fn match_behind(
        &self,
        symbol: u16,
        reader: &mut BitReader<'_>,
    ) -> Result<Option<Repeat>, DataError> {
        let Some(&(length, extra)) = LENGTHS.get(usize::from(symbol) - 257) else {
            return Err(DataError::BadLiteralCode);
        };
        let Some(more) = held(reader, extra.into()) else { return Ok(None) };
        let length = length + more;
        let symbol = match self.tables.distances.find(reader.peek(), reader.held()) {
            Found::Symbol(symbol, bits) => {
                reader.drop(bits);
                symbol
            }
            Found::Short => return Ok(None),
            Found::Nothing => return Err(DataError::BadDistanceCode),
        };
        let Some(&(distance, extra)) = DISTANCES.get(usize::from(symbol)) else {
            return Err(DataError::BadDistanceCode);
        };
        let Some(more) = held(reader, extra.into()) else { return Ok(None) };
        Ok(Some(Repeat { length, distance: distance + more }))
    }

    /// Copies a match as far as there is room.
    #[inline]
    fn repeat(&mut self, repeat: Repeat, output: &mut Output) -> Result<(), DataError> {
        let distance = usize::from(repeat.distance);
        if distance > HISTORY {
            return Err(DataError::DistanceTooFar);
        }
        if distance > output.history() {
            return Err(DataError::DistanceBeforeStart);
        }
        let length = usize::from(repeat.length).min(output.room());
        output.repeat(length, distance);
        let left = repeat.length - length as u16;
        self.state.pending = (left > 0).then_some(Repeat { length: left, ..repeat });
        Ok(())
    }
}

/// Bits that the reader holds, which are as many as the longest token has.
#[inline]
fn held(reader: &mut BitReader<'_>, bits: u32) -> Option<u16> {
    if reader.held() < bits {
        return None;
    }
    let value = reader.peek() & ((1 << bits) - 1);
    reader.drop(bits);
    Some(value as u16)
}

impl Default for Inflater {
    fn default() -> Self {
        let fixed = Box::new(Tables::fixed());
        Self { state: State::default(), tables: fixed.clone(), fixed }
    }
}

impl Default for State {
    /// The start of a stream.
    fn default() -> Self {
        Self { phase: Phase::Header, ended: None, pending: None }
    }
}

/// For each symbol of a length from 257 on: the lowest one, and how many bits of more follow.
static LENGTHS: [(u16, u8); 29] = {
    let mut lengths = [(0, 0); 29];
    let mut at = 0;
    while at < lengths.len() {
        let (base, bits) = length_base(257 + at);
        lengths[at] = (base as u16, bits as u8);
        at += 1;
    }
    lengths
};

/// The same for each symbol of a distance.
static DISTANCES: [(u16, u8); 30] = {
    let mut distances = [(0, 0); 30];
    let mut at = 0;
    while at < distances.len() {
        let (base, bits) = distance_base(at);
        distances[at] = (base as u16, bits as u8);
        at += 1;
    }
    distances
};
