//! The main channel over blocking streams.

use std::io::{self, ErrorKind, Read, Write};

use multifd_core::stream::{
    Limits, MainDecoder, MainEncoder, MainEvent, ReturnDecoder, ReturnMessage, StreamError,
};

/// Bytes that are read at once.
const CHUNK: usize = 64 << 10;

/// Why a main channel failed: what it says, or the connection.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum MainChannelError {
    /// What it says is against the format.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// It could not be read.
    #[error("reading at byte {offset} of the stream failed")]
    Read {
        /// Bytes that have been read, or that have said something.
        offset: u64,
        /// The failure.
        source: io::Error,
    },
    /// It could not be written.
    #[error("writing at byte {offset} of the stream failed")]
    Write {
        /// Bytes that have been written.
        offset: u64,
        /// The failure.
        source: io::Error,
    },
}

/// Reads a main channel from its first byte on.
#[derive(Debug)]
pub struct MainReader<R> {
    reader: R,
    decoder: MainDecoder,
    buffer: Buffer,
}

impl<R: Read> MainReader<R> {
    /// The main channel that `reader` gives.
    pub fn new(reader: R, limits: Limits) -> Self {
        Self { reader, decoder: MainDecoder::new(limits), buffer: Buffer::default() }
    }

    /// The same reader, which looks for the end of the device state and keeps none of it.
    #[must_use]
    pub fn passing_device_state(self) -> Self {
        Self { decoder: self.decoder.passing_device_state(), ..self }
    }

    /// What comes next; `None` after [`MainEvent::DeviceState`].
    ///
    /// # Errors
    /// A stream that is against the format, or that cannot be read. Every later call is an error
    /// then.
    pub fn next_event(&mut self) -> Result<Option<MainEvent>, MainChannelError> {
        loop {
            let mut rest = self.buffer.unread();
            let event = self.decoder.next(&mut rest)?;
            self.buffer.keep(rest.len());
            if event.is_some() || self.decoder.is_over() {
                return Ok(event);
            }
            let read = self.buffer.fill(&mut self.reader);
            let offset = self.decoder.offset();
            if read.map_err(|source| MainChannelError::Read { offset, source })? == 0 {
                return Ok(self.decoder.finish()?);
            }
        }
    }

    /// Where the last event ends, in bytes from the start of the stream.
    pub fn offset(&self) -> u64 {
        self.decoder.offset()
    }

    /// The decoder, to ask what it knows.
    pub fn decoder(&self) -> &MainDecoder {
        &self.decoder
    }

    /// Bytes that have been read and are not of the stream, which ends before them.
    pub fn unread(&self) -> &[u8] {
        self.buffer.unread()
    }
}

/// Writes a main channel.
#[derive(Debug)]
pub struct MainWriter<W> {
    writer: W,
    encoder: MainEncoder,
}

impl<W: Write> MainWriter<W> {
    /// Writes to `writer` what `encoder` is told.
    pub fn new(writer: W, encoder: MainEncoder) -> Self {
        Self { writer, encoder }
    }

    /// The encoder, to be told what to write.
    pub fn encoder(&mut self) -> &mut MainEncoder {
        &mut self.encoder
    }

    /// Writes all that the encoder has been told.
    ///
    /// # Errors
    /// The writer fails.
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

    fn failed(&self, source: io::Error) -> MainChannelError {
        let offset = self.encoder.offset() - self.encoder.bytes().len() as u64;
        MainChannelError::Write { offset, source }
    }

    /// Where the stream ends so far, in bytes from its start.
    pub fn offset(&self) -> u64 {
        self.encoder.offset()
    }
}

/// Reads a return path.
#[derive(Debug)]
pub struct ReturnReader<R> {
    reader: R,
    decoder: ReturnDecoder,
    buffer: Buffer,
    offset: u64,
}

impl<R: Read> ReturnReader<R> {
    /// The return path that `reader` gives.
    pub fn new(reader: R) -> Self {
        Self { reader, decoder: ReturnDecoder::new(), buffer: Buffer::default(), offset: 0 }
    }

    /// The next message; `None` where the destination has closed the connection.
    ///
    /// # Errors
    /// A message that is not in the format, and a reader that fails.
    pub fn next_message(&mut self) -> Result<Option<ReturnMessage>, MainChannelError> {
        loop {
            let mut rest = self.buffer.unread();
            let message = self.decoder.next(&mut rest)?;
            self.buffer.keep(rest.len());
            if message.is_some() {
                return Ok(message);
            }
            let read = self.buffer.fill(&mut self.reader);
            let offset = self.offset;
            match read.map_err(|source| MainChannelError::Read { offset, source })? {
                0 => {
                    self.decoder.finish()?;
                    return Ok(None);
                }
                count => self.offset += count as u64,
            }
        }
    }
}

/// Bytes that have been read, and those of them that nobody has taken yet.
#[derive(Debug, Default)]
struct Buffer {
    bytes: Vec<u8>,
    taken: usize,
    filled: usize,
}

impl Buffer {
    fn unread(&self) -> &[u8] {
        &self.bytes[self.taken..self.filled]
    }

    /// Leaves the last `count` bytes unread.
    fn keep(&mut self, count: usize) {
        self.taken = self.filled - count;
    }

    /// Reads more, once nothing is unread. Returns how many bytes; 0 at the end.
    fn fill(&mut self, reader: &mut impl Read) -> io::Result<usize> {
        self.bytes.resize(CHUNK, 0);
        (self.taken, self.filled) = (0, 0);
        loop {
            match reader.read(&mut self.bytes) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // TLS may end without saying so. Where the stream is cut off by that, it is said.
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(0),
                read => {
                    self.filled = read?;
                    return Ok(self.filled);
                }
            }
        }
    }
}
