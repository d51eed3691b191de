//! The main channel over blocking streams.

use std::io::{self, ErrorKind, Read, Write};

use multifd_core::stream::{
    MainDecoder, MainEncoder, MainEvent, ReturnDecoder, ReturnMessage, StreamError,
};

/// Bytes that are read at once.
const BUFFER: usize = 64 << 10;

/// Bytes of pages that are gathered before they are written.
const MUCH: usize = 32 << 10;

/// Why the main channel failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MainChannelError {
    /// What came is against the format, or what was to be sent cannot be.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// The stream could not be read.
    #[error("cannot read (byte {offset} of the stream)")]
    Read {
        /// The bytes that were read before.
        offset: u64,
        /// The failure.
        source: io::Error,
    },
    /// The stream could not be written.
    #[error("cannot write (byte {offset} of the stream)")]
    Write {
        /// The bytes that were written before.
        offset: u64,
        /// The failure.
        source: io::Error,
    },
}

impl MainChannelError {
    /// Whether the other side reset the connection while it was read.
    pub(crate) fn is_reset(&self) -> bool {
        matches!(self, Self::Read { source, .. } if source.kind() == ErrorKind::ConnectionReset)
    }
}

/// Reads the main channel. It reads ahead by up to 64 KiB, but never waits for bytes that the next
/// event does not need.
#[derive(Debug)]
pub struct MainReader<R> {
    input: Input<R>,
    decoder: MainDecoder,
}

impl<R: Read> MainReader<R> {
    /// A reader of a stream from the byte on that `decoder` is at.
    pub fn new(reader: R, decoder: MainDecoder) -> Self {
        Self { input: Input::new(reader, BUFFER), decoder }
    }

    /// What the stream says next. Waits for it where it has not arrived. `None` after
    /// [`MainEvent::DeviceState`].
    ///
    /// # Errors
    /// Those of the [decoder](MainDecoder::next), after which it is at its end, and of the reader,
    /// after which it can go on.
    pub fn next_event(&mut self) -> Result<Option<MainEvent>, MainChannelError> {
        loop {
            let event = self.input.take(|bytes| self.decoder.next(bytes))?;
            if event.is_some() || self.decoder.is_over() {
                return Ok(event);
            }
            if !self.input.fill(self.decoder.offset())? {
                return Ok(self.decoder.finish()?);
            }
        }
    }

    /// Reads on, behind the stream's end, to that of the reader.
    ///
    /// # Errors
    /// Something is there; the reader fails.
    pub(crate) fn expect_end(&mut self) -> Result<(), MainChannelError> {
        if self.unread().is_empty() {
            self.input.fill(self.decoder.offset())?;
        }
        Ok(self.decoder.expect_end(self.input.unread())?)
    }

    /// The decoder, to be asked where it is and what it knows.
    pub fn decoder(&self) -> &MainDecoder {
        &self.decoder
    }

    /// What was read and not decoded. At the end it is not of the stream.
    pub fn unread(&self) -> &[u8] {
        self.input.unread()
    }
}

/// Writes the main channel. Dropping it writes nothing: a stream that was given up must not go on.
#[derive(Debug)]
pub struct MainWriter<W> {
    writer: W,
    encoder: MainEncoder,
}

impl<W: Write> MainWriter<W> {
    /// A writer of what `encoder` encodes.
    pub fn new(writer: W, encoder: MainEncoder) -> Self {
        Self { writer, encoder }
    }

    /// The encoder, to be told what comes next.
    pub fn encoder(&mut self) -> &mut MainEncoder {
        &mut self.encoder
    }

    /// Writes everything that was encoded, and flushes the writer.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn flush(&mut self) -> Result<(), MainChannelError> {
        while !self.encoder.bytes().is_empty() {
            match self.writer.write(self.encoder.bytes()) {
                Ok(0) => return Err(self.failed(ErrorKind::WriteZero.into())),
                Ok(count) => self.encoder.written(count),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failed(error)),
            }
        }
        self.writer.flush().map_err(|error| self.failed(error))
    }

    /// Writes the device state, which completes the stream, without a copy of it.
    ///
    /// # Errors
    /// Misuse, which bytes without the end of a device state are too; those of the writer.
    pub fn device_state(&mut self, bytes: &[u8]) -> Result<(), MainChannelError> {
        self.device_state_before_end(bytes, || Ok(()))
    }

    /// As [`device_state`](Self::device_state), and calls `before_end` before the EOF is written,
    /// when all that comes before it has been: without its EOF a destination has no whole stream.
    pub(crate) fn device_state_before_end<E: From<MainChannelError>>(
        &mut self,
        bytes: &[u8],
        before_end: impl FnOnce() -> Result<(), E>,
    ) -> Result<(), E> {
        self.flush()?;
        let offset = self.encoder.offset();
        let failed = |source| MainChannelError::Write { offset, source };
        let sections = self.encoder.device_state_apart(bytes).map_err(MainChannelError::from)?;
        self.writer.write_all(sections).map_err(failed)?;
        before_end()?;
        Ok(self.flush()?)
    }

    /// Writes what was encoded if it is much. Often enough after a page.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn flush_if_much(&mut self) -> Result<(), MainChannelError> {
        if self.encoder.bytes().len() < MUCH { Ok(()) } else { self.flush() }
    }

    fn failed(&self, source: io::Error) -> MainChannelError {
        let offset = self.encoder.offset() - self.encoder.bytes().len() as u64;
        MainChannelError::Write { offset, source }
    }
}

/// Reads the return path at the source.
#[derive(Debug)]
pub struct ReturnReader<R> {
    input: Input<R>,
    decoder: ReturnDecoder,
}

impl<R: Read> ReturnReader<R> {
    /// A reader of a return path from its first byte on.
    pub fn new(reader: R) -> Self {
        // A message has 8 bytes at most, and few come together.
        Self { input: Input::new(reader, 64), decoder: ReturnDecoder::new() }
    }

    /// The next message. Waits for it. `None` is the end of the return path between two messages:
    /// the destination went away, which before [`ReturnMessage::Shut`] means that it failed.
    ///
    /// # Errors
    /// Those of the [decoder](ReturnDecoder::next) and of the reader.
    pub fn next_message(&mut self) -> Result<Option<ReturnMessage>, MainChannelError> {
        loop {
            let message = self.input.take(|bytes| self.decoder.next(bytes))?;
            if message.is_some() {
                return Ok(message);
            }
            if !self.input.fill(self.decoder.offset())? {
                self.decoder.finish()?;
                return Ok(None);
            }
        }
    }
}

/// A reader, and what it has given that was not taken yet.
#[derive(Debug)]
struct Input<R> {
    reader: R,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
}

impl<R: Read> Input<R> {
    fn new(reader: R, capacity: usize) -> Self {
        Self { reader, buffer: vec![0; capacity].into(), start: 0, end: 0 }
    }

    fn unread(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// Lets `decode` take bytes off the front of what is there.
    fn take<T>(&mut self, decode: impl FnOnce(&mut &[u8]) -> T) -> T {
        let mut bytes = &self.buffer[self.start..self.end];
        let decoded = decode(&mut bytes);
        self.start = self.end - bytes.len();
        decoded
    }

    /// Reads more where everything was taken; false at the end of the stream, of which `offset`
    /// bytes have come.
    fn fill(&mut self, offset: u64) -> Result<bool, MainChannelError> {
        (self.start, self.end) = (0, 0);
        loop {
            match self.reader.read(&mut self.buffer) {
                Ok(count) => {
                    self.end = count;
                    return Ok(count > 0);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // How TLS reports a peer that closes without saying so first. QEMU may do that at
                // the end of the stream; anywhere else the decoder finds out what is missing.
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(false),
                Err(source) => return Err(MainChannelError::Read { offset, source }),
            }
        }
    }
}
