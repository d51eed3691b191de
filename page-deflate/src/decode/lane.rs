//! One stream on its way to a page.

use super::DecodeError;
use super::bits::Bits;
use super::header::{Codes, Dynamic, FIXED};

/// What one stream needs.
#[derive(Debug)]
pub(super) struct Lane {
    /// Which one it is; `None` where there is none.
    index: Option<usize>,
    /// The stream, and bytes behind it, so that whole words can be loaded up to its end.
    pub(super) input: Vec<u8>,
    stream_bytes: usize,
    pub(super) bits: Bits,
    /// The page, and what a copy may write behind it.
    pub(super) output: Box<[u8]>,
    /// Bytes of the page that are made.
    pub(super) made: usize,
    dynamic: Box<Dynamic>,
    block: Block,
    /// Whether the block is the final one.
    is_last: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Block {
    /// Its header comes next; or nothing, where the one before was the final one.
    Next,
    Fixed,
    Dynamic,
}

pub(super) enum Settled {
    /// Symbols come next.
    InBlock,
    /// The stream has ended, after so many bytes, with so many behind it.
    Ended { read: usize, left: usize },
}

/// The longest match, and what is copied at once.
pub(super) const MARGIN: usize = 258 + 16;

impl Lane {
    pub(super) fn new(page_bytes: usize) -> Self {
        Self {
            index: None,
            input: Vec::with_capacity(page_bytes + Bits::PADDING),
            stream_bytes: 0,
            bits: Bits::default(),
            output: vec![0; page_bytes + MARGIN].into(),
            made: 0,
            dynamic: Box::new(Dynamic::new()),
            block: Block::Next,
            is_last: false,
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.index.is_none()
    }

    pub(super) fn start(&mut self, index: usize, stream: &[u8]) {
        self.input.clear();
        self.input.extend_from_slice(stream);
        self.input.extend_from_slice(&[0; Bits::PADDING]);
        self.index = Some(index);
        self.stream_bytes = stream.len();
        self.bits = Bits::default();
        (self.made, self.block, self.is_last) = (0, Block::Next, false);
    }

    /// Shows the stream's index and the output, and has done with it.
    pub(super) fn finish(&mut self, show: impl FnOnce(usize, &[u8])) {
        if let Some(index) = self.index.take() {
            show(index, &self.output);
        }
    }

    /// The codes of the block that the stream is in.
    pub(super) fn codes(&self) -> &Codes {
        match self.block {
            Block::Fixed => &FIXED,
            Block::Next | Block::Dynamic => &self.dynamic.codes,
        }
    }

    pub(super) fn end_block(&mut self) {
        self.block = Block::Next;
    }

    /// Goes on to the next symbol of a block, or to the stream's end.
    pub(super) fn settle(&mut self, page_bytes: usize) -> Result<Settled, DecodeError> {
        while self.block == Block::Next {
            if self.is_last {
                return self.ended(page_bytes);
            }
            self.bits.refill(&self.input)?;
            self.is_last = self.bits.take(1) == 1;
            match self.bits.take(2) {
                0b00 => self.copy_stored(page_bytes)?,
                0b01 => self.block = Block::Fixed,
                0b10 => {
                    self.dynamic.read(&mut self.bits, &self.input)?;
                    self.block = Block::Dynamic;
                }
                _ => return Err(DecodeError::Malformed),
            }
        }
        Ok(Settled::InBlock)
    }

    fn ended(&self, page_bytes: usize) -> Result<Settled, DecodeError> {
        let read = self.bits.next_byte();
        let Some(left) = self.stream_bytes.checked_sub(read) else {
            // The end was made up of the padding.
            return Err(DecodeError::Malformed);
        };
        match self.made {
            made if made < page_bytes => Err(DecodeError::Short(made)),
            made if made > page_bytes => Err(DecodeError::Long),
            _ => Ok(Settled::Ended { read, left }),
        }
    }

    /// A block that is not compressed (RFC 1951, section 3.2.4).
    fn copy_stored(&mut self, page_bytes: usize) -> Result<(), DecodeError> {
        let rest = self.input[..self.stream_bytes].get(self.bits.next_byte()..);
        let header = rest.and_then(|rest| rest.split_first_chunk());
        let Some((&[low, high, not_low, not_high], rest)) = header else {
            return Err(DecodeError::Malformed);
        };
        let bytes = u16::from_le_bytes([low, high]);
        if bytes != !u16::from_le_bytes([not_low, not_high]) {
            return Err(DecodeError::Malformed);
        }
        let bytes = usize::from(bytes);
        let Some(stored) = rest.get(..bytes) else { return Err(DecodeError::Malformed) };
        if self.made + bytes > page_bytes {
            return Err(DecodeError::Long);
        }
        self.output[self.made..][..bytes].copy_from_slice(stored);
        self.made += bytes;
        self.bits = Bits::at_byte(self.stream_bytes - rest.len() + bytes);
        Ok(())
    }
}
