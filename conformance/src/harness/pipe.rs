//! Streams in memory.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A stream from one end of a channel to the other, or to whoever looks. It ends where it is
/// empty.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pipe {
    bytes: Arc<Mutex<VecDeque<u8>>>,
    /// The most bytes that one read gives; 0 for no limit.
    piece: usize,
}

impl Pipe {
    /// A pipe that gives at most `piece` bytes at once.
    pub(crate) fn in_pieces_of(piece: usize) -> Self {
        Self { piece, ..Self::default() }
    }

    pub(crate) fn push(&self, bytes: &[u8]) {
        self.lock().extend(bytes);
    }

    /// Takes everything out.
    pub(crate) fn take(&self) -> Vec<u8> {
        std::mem::take(&mut *self.lock()).into()
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<u8>> {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = if self.piece == 0 { buffer.len() } else { buffer.len().min(self.piece) };
        self.lock().read(&mut buffer[..most])
    }
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.push(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A stream that takes `left` bytes and then fails.
#[derive(Debug)]
pub(crate) struct FailingWriter {
    pub(crate) left: usize,
}

impl Write for FailingWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.left == 0 {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        let count = bytes.len().min(self.left);
        self.left -= count;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// `bytes` in pieces whose lengths `lengths` gives, over and over.
pub(crate) fn in_pieces<'a>(
    bytes: &'a [u8],
    lengths: &'a [usize],
) -> impl Iterator<Item = &'a [u8]> {
    let mut left = bytes;
    lengths.iter().cycle().map_while(move |&length| {
        let (piece, rest) = left.split_at(length.min(left.len()));
        left = rest;
        (!piece.is_empty()).then_some(piece)
    })
}
