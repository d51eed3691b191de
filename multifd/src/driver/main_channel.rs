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
        self.flush()?;
        let offset = self.encoder.offset();
        self.encoder.device_state_apart(bytes)?;
        let written = self.writer.write_all(bytes).and_then(|()| self.writer.flush());
        written.map_err(|source| MainChannelError::Write { offset, source })
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

#[cfg(test)]
mod tests {
    use multifd_core::PageSize;
    use multifd_core::stream::{BlockInfo, Configuration, Limits, StreamErrorKind, SyncForm};
    use multifd_core::wire::BlockName;

    use super::*;

    /// A stream without a return path.
    fn stream() -> Vec<u8> {
        let mut encoder = MainEncoder::new();
        let block = BlockInfo::new(BlockName::new("pc.ram").unwrap(), 4096);
        encoder.header(&Configuration::new("pc")).unwrap();
        encoder.ram_start(1, 0, &[block], SyncForm::Flush).unwrap();
        encoder.ram_end().unwrap();
        encoder.no_device_state().unwrap();
        encoder.bytes().to_vec()
    }

    fn reader<R: Read>(reader: R) -> MainReader<R> {
        MainReader::new(reader, MainDecoder::new(Limits::default()))
    }

    /// All events.
    fn read(stream: impl Read) -> Result<Vec<MainEvent>, MainChannelError> {
        let mut reader = reader(stream);
        std::iter::from_fn(|| reader.next_event().transpose()).collect()
    }

    /// Gives one byte at a time, is interrupted before each, and ends as it is told.
    struct Trickle<'a> {
        bytes: &'a [u8],
        end: Option<ErrorKind>,
        interrupted: bool,
    }

    impl<'a> Trickle<'a> {
        fn new(bytes: &'a [u8], end: Option<ErrorKind>) -> Self {
            Self { bytes, end, interrupted: false }
        }
    }

    impl Read for Trickle<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.interrupted = !self.interrupted;
            match (self.interrupted, self.end) {
                (true, _) => Err(ErrorKind::Interrupted.into()),
                (false, Some(end)) if self.bytes.is_empty() => Err(end.into()),
                _ => self.bytes.read(&mut buffer[..1]),
            }
        }
    }

    #[test]
    fn a_stream_that_trickles_in_says_the_same() {
        let bytes = stream();
        let events = read(&bytes[..]).unwrap();
        assert!(matches!(events.last(), Some(MainEvent::DeviceState(_))));
        assert_eq!(read(Trickle::new(&bytes, None)).unwrap(), events);
    }

    #[test]
    fn a_close_without_a_tls_goodbye_ends_the_stream_only_where_it_is_whole() {
        let bytes = stream();
        let cut = |end: usize| read(Trickle::new(&bytes[..end], Some(ErrorKind::UnexpectedEof)));
        cut(bytes.len()).unwrap();
        let error = cut(bytes.len() - 1).unwrap_err();
        let MainChannelError::Stream(StreamError { kind, offset, .. }) = error else { panic!() };
        assert!(matches!(kind, StreamErrorKind::Truncated { .. }), "{kind}");
        assert_eq!(offset, bytes.len() as u64 - 1);
    }

    #[test]
    fn a_reader_that_fails_says_where_and_can_go_on() {
        let bytes = stream();
        let mut reader = reader(Trickle::new(&bytes[..20], Some(ErrorKind::WouldBlock)));
        let error = std::iter::repeat_with(|| reader.next_event()).find_map(Result::err).unwrap();
        assert!(matches!(error, MainChannelError::Read { offset: 20, .. }), "{error}");
        reader.input.reader = Trickle::new(&bytes[20..], None);
        while reader.next_event().unwrap().is_some() {}
        assert!(reader.decoder().is_over());
    }

    #[test]
    fn what_a_reader_has_read_behind_the_end_is_still_there() {
        let mut encoder = MainEncoder::new().with_page_size(PageSize::Kib4);
        let block = BlockInfo::new(BlockName::new("pc.ram").unwrap(), 4096);
        encoder.header(&Configuration::new("pc")).unwrap();
        encoder.open_return_path().unwrap();
        encoder.ram_start(1, 0, &[block], SyncForm::Flush).unwrap();
        encoder.ram_end().unwrap();
        encoder.no_device_state().unwrap();
        let bytes = [encoder.bytes(), b"more"].concat();
        let mut reader = reader(&bytes[..]);
        while reader.next_event().unwrap().is_some() {}
        assert_eq!(reader.unread(), b"more");
        assert!(matches!(reader.next_event(), Ok(None)));
    }

    /// Takes three bytes at a time, as many as there is room for, and is interrupted between.
    struct Room {
        taken: Vec<u8>,
        room: usize,
        interrupted: bool,
    }

    impl Write for Room {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.interrupted = !self.interrupted;
            if self.interrupted {
                return Err(ErrorKind::Interrupted.into());
            }
            let count = bytes.len().min(3).min(self.room - self.taken.len());
            self.taken.extend_from_slice(&bytes[..count]);
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_writer_that_fails_says_how_far_it_came_and_can_go_on() {
        let room = Room { taken: Vec::new(), room: 10, interrupted: false };
        let mut writer = MainWriter::new(room, MainEncoder::new());
        writer.encoder().header(&Configuration::new("pc")).unwrap();
        let expected = writer.encoder().bytes().to_vec();
        let error = writer.flush().unwrap_err();
        assert!(matches!(error, MainChannelError::Write { offset: 10, .. }), "{error}");
        writer.writer.room = expected.len();
        writer.flush().unwrap();
        assert_eq!(writer.writer.taken, expected);
    }

    #[test]
    fn messages_of_the_return_path_are_read_up_to_its_end() {
        let bytes = [ReturnMessage::Pong(7).to_bytes(), ReturnMessage::Shut(0).to_bytes()].concat();
        let mut reader = ReturnReader::new(Trickle::new(&bytes, None));
        let messages = std::iter::from_fn(|| reader.next_message().transpose());
        let messages: Vec<_> = messages.collect::<Result<_, _>>().unwrap();
        assert_eq!(messages, [ReturnMessage::Pong(7), ReturnMessage::Shut(0)]);
        let mut cut = ReturnReader::new(&bytes[..3]);
        let error = cut.next_message().unwrap_err();
        assert!(matches!(error, MainChannelError::Stream(_)), "{error}");
    }
}
