//! Writing a stream piece by piece.

use std::fmt;
use std::io::Write;
use std::mem;

use super::{StreamError, StreamErrorKind};

/// How much is gathered before it is passed on unasked.
const BUFFER: usize = 32 << 10;

/// A buffered writer that knows where in the stream it is. Unlike [`std::io::BufWriter`] it writes
/// nothing when it is dropped: a stream that was given up must not go on.
pub(super) struct Output<W> {
    writer: W,
    buffer: Vec<u8>,
    /// Bytes passed on.
    sent: u64,
    failed: bool,
}

impl<W: Write> Output<W> {
    pub(super) fn new(writer: W) -> Self {
        Self { writer, buffer: Vec::with_capacity(BUFFER), sent: 0, failed: false }
    }

    pub(super) fn offset(&self) -> u64 {
        self.sent + self.buffer.len() as u64
    }

    pub(super) fn into_inner(self) -> W {
        self.writer
    }

    pub(super) fn put(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Where what belongs together is built, so that an error in it leaves nothing behind.
    pub(super) fn put_whole(
        &mut self,
        build: impl FnOnce(&mut Vec<u8>) -> Result<(), StreamErrorKind>,
    ) -> Result<(), StreamError> {
        let whole = self.buffer.len();
        build(&mut self.buffer).map_err(|kind| {
            self.buffer.truncate(whole);
            self.error(kind)
        })
    }

    /// Passes everything on if it is much.
    pub(super) fn pass_on_if_much(&mut self) -> Result<(), StreamError> {
        if self.buffer.len() < BUFFER { Ok(()) } else { self.pass_on(&[]) }
    }

    /// Passes everything on, and `more` after it, and flushes the inner writer.
    pub(super) fn flush(&mut self, more: &[u8]) -> Result<(), StreamError> {
        self.pass_on(more)?;
        let flushed = self.writer.flush();
        flushed.map_err(|error| self.broken(error))
    }

    fn pass_on(&mut self, more: &[u8]) -> Result<(), StreamError> {
        if self.failed {
            return Err(
                self.error(StreamErrorKind::Misuse("the stream was written on after an error"))
            );
        }
        let mut buffer = mem::take(&mut self.buffer);
        let written = self.writer.write_all(&buffer).and_then(|()| self.writer.write_all(more));
        written.map_err(|error| self.broken(error))?;
        self.sent += (buffer.len() + more.len()) as u64;
        buffer.clear();
        self.buffer = buffer;
        Ok(())
    }

    fn broken(&mut self, error: std::io::Error) -> StreamError {
        self.failed = true;
        self.error(StreamErrorKind::Write(error))
    }

    pub(super) fn error(&self, kind: StreamErrorKind) -> StreamError {
        StreamError { offset: self.offset(), kind }
    }
}

impl<W> fmt::Debug for Output<W> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Output")
            .field("sent", &self.sent)
            .field("buffered", &self.buffer.len())
            .finish_non_exhaustive()
    }
}
