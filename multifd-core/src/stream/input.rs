//! Reading a stream piece by piece.

use std::fmt;
use std::io::{ErrorKind, Read};
use std::str;

use super::{StreamError, StreamErrorKind};

/// The longest name that one length byte can announce.
pub(super) const SHORT: usize = u8::MAX as usize;

/// A buffered reader that knows where in the stream it is.
///
/// It asks its reader only when its buffer is empty and something is wanted, and takes what a
/// single `read` gives: so it never waits for more than what it has been asked for.
pub(super) struct Input<R> {
    reader: R,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    /// Bytes taken so far.
    offset: u64,
    /// The offset at which the current item starts, for errors.
    item: u64,
}

impl<R: Read> Input<R> {
    pub(super) fn new(reader: R, capacity: usize) -> Self {
        let buffer = vec![0; capacity].into_boxed_slice();
        Self { reader, buffer, start: 0, end: 0, offset: 0, item: 0 }
    }

    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// Notes that an item of the stream starts here.
    pub(super) fn begin_item(&mut self) {
        self.item = self.offset;
    }

    /// The error with the place it belongs to.
    pub(super) fn error(&self, kind: StreamErrorKind) -> StreamError {
        let offset = match kind {
            StreamErrorKind::Truncated { .. } | StreamErrorKind::Read { .. } => self.offset,
            StreamErrorKind::Trailing { bytes } => self.offset - bytes as u64,
            _ => self.item,
        };
        StreamError { offset, kind }
    }

    /// Sees to it that there is at least one byte in the buffer; false at the end of the stream.
    pub(super) fn fill(&mut self, what: &'static str) -> Result<bool, StreamErrorKind> {
        if self.start < self.end {
            return Ok(true);
        }
        (self.start, self.end) = (0, 0);
        loop {
            match self.reader.read(&mut self.buffer) {
                Ok(bytes) => {
                    self.end = bytes;
                    return Ok(bytes > 0);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // How TLS reports a peer that closes without saying so first. QEMU may do that at
                // the end of the stream; anywhere else what is missing is found out
                // anyway.
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(false),
                Err(error) => return Err(StreamErrorKind::Read { what, error }),
            }
        }
    }

    /// What has arrived, at least a byte; `None` at the end of the stream.
    pub(super) fn chunk(&mut self, what: &'static str) -> Result<Option<&[u8]>, StreamErrorKind> {
        if !self.fill(what)? {
            return Ok(None);
        }
        let chunk = &self.buffer[self.start..self.end];
        self.offset += chunk.len() as u64;
        self.start = self.end;
        Ok(Some(chunk))
    }

    /// The next byte, which stays where it is.
    pub(super) fn peek(&mut self, what: &'static str) -> Result<u8, StreamErrorKind> {
        if self.fill(what)? {
            Ok(self.buffer[self.start])
        } else {
            Err(StreamErrorKind::Truncated { what })
        }
    }

    /// Fills `out`.
    pub(super) fn exact(
        &mut self,
        mut out: &mut [u8],
        what: &'static str,
    ) -> Result<(), StreamErrorKind> {
        while !out.is_empty() {
            if !self.fill(what)? {
                return Err(StreamErrorKind::Truncated { what });
            }
            let count = out.len().min(self.end - self.start);
            let (head, rest) = out.split_at_mut(count);
            head.copy_from_slice(&self.buffer[self.start..self.start + count]);
            self.start += count;
            self.offset += count as u64;
            out = rest;
        }
        Ok(())
    }

    pub(super) fn array<const N: usize>(
        &mut self,
        what: &'static str,
    ) -> Result<[u8; N], StreamErrorKind> {
        let mut bytes = [0; N];
        self.exact(&mut bytes, what)?;
        Ok(bytes)
    }

    pub(super) fn u8(&mut self, what: &'static str) -> Result<u8, StreamErrorKind> {
        Ok(u8::from_be_bytes(self.array(what)?))
    }

    pub(super) fn u16(&mut self, what: &'static str) -> Result<u16, StreamErrorKind> {
        Ok(u16::from_be_bytes(self.array(what)?))
    }

    pub(super) fn u32(&mut self, what: &'static str) -> Result<u32, StreamErrorKind> {
        Ok(u32::from_be_bytes(self.array(what)?))
    }

    pub(super) fn u64(&mut self, what: &'static str) -> Result<u64, StreamErrorKind> {
        Ok(u64::from_be_bytes(self.array(what)?))
    }

    /// A length byte and as many bytes, without allocating.
    pub(super) fn short<'b>(
        &mut self,
        buffer: &'b mut [u8; SHORT],
        what: &'static str,
    ) -> Result<&'b [u8], StreamErrorKind> {
        let length = usize::from(self.u8(what)?);
        let bytes = &mut buffer[..length];
        self.exact(bytes, what)?;
        Ok(bytes)
    }

    /// A length byte and a name of as many bytes.
    pub(super) fn name(&mut self, what: &'static str) -> Result<String, StreamErrorKind> {
        let mut buffer = [0; SHORT];
        let bytes = self.short(&mut buffer, what)?;
        Ok(name(bytes, what)?.to_owned())
    }
}

impl<R> fmt::Debug for Input<R> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Input").field("offset", &self.offset).finish_non_exhaustive()
    }
}

/// The bytes as a name: UTF-8, not empty, without a NUL.
pub(super) fn name<'b>(bytes: &'b [u8], what: &'static str) -> Result<&'b str, StreamErrorKind> {
    match str::from_utf8(bytes) {
        Ok(name) if !name.is_empty() && !name.contains('\0') => Ok(name),
        _ => Err(StreamErrorKind::Name { what }),
    }
}
