//! The blocking drivers, over streams that trickle, fail and end in the ways that sockets do.

use std::cell::Cell;
use std::io::{self, ErrorKind, Read, Write};

use multifd::core::wire::BlockName;
use multifd::driver::{MainChannelError, MainReader, MainWriter, ReturnReader};
use multifd::stream::{
    BlockInfo, Configuration, Limits, MainDecoder, MainEncoder, MainEvent, ReturnMessage,
    StreamError, StreamErrorKind, SyncForm,
};

/// A stream of RAM alone.
fn stream(return_path: bool) -> Vec<u8> {
    let mut encoder = MainEncoder::new();
    let block = BlockInfo::new(BlockName::new("pc.ram").unwrap(), 4096);
    encoder.header(&Configuration::new("pc")).unwrap();
    if return_path {
        encoder.open_return_path().unwrap();
    }
    encoder.ram_start(1, 0, &[block], SyncForm::Flush).unwrap();
    encoder.ram_end().unwrap();
    encoder.no_device_state().unwrap();
    encoder.bytes().to_vec()
}

fn read(stream: impl Read) -> Result<Vec<MainEvent>, MainChannelError> {
    let mut reader = MainReader::new(stream, MainDecoder::new(Limits::default()));
    std::iter::from_fn(|| reader.next_event().transpose()).collect()
}

/// Gives one byte at a time, is interrupted before each, and ends in this error.
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
        match self.end {
            _ if self.interrupted => Err(ErrorKind::Interrupted.into()),
            Some(end) if self.bytes.is_empty() => Err(end.into()),
            _ => self.bytes.read(&mut buffer[..1]),
        }
    }
}

#[test]
fn a_stream_that_trickles_in_says_the_same() {
    let bytes = stream(false);
    let events = read(&bytes[..]).unwrap();
    assert!(matches!(events.last(), Some(MainEvent::DeviceState(_))));
    assert_eq!(read(Trickle::new(&bytes, None)).unwrap(), events);
}

#[test]
fn a_stream_with_a_return_path_is_read_to_its_end_without_a_close() {
    let (with, without) = (stream(true), stream(false));
    read(Trickle::new(&with, Some(ErrorKind::WouldBlock))).unwrap();
    let error = read(Trickle::new(&without, Some(ErrorKind::WouldBlock))).unwrap_err();
    let MainChannelError::Read { offset, source } = error else { panic!("{error}") };
    assert_eq!((offset, source.kind()), (without.len() as u64, ErrorKind::WouldBlock));
}

#[test]
fn a_close_without_a_tls_goodbye_ends_the_stream_only_where_it_is_whole() {
    let bytes = stream(false);
    let cut = |end: usize| read(Trickle::new(&bytes[..end], Some(ErrorKind::UnexpectedEof)));
    cut(bytes.len()).unwrap();
    let error = cut(bytes.len() - 1).unwrap_err();
    let MainChannelError::Stream(StreamError { kind, offset, .. }) = error else { panic!() };
    assert!(matches!(kind, StreamErrorKind::Truncated { .. }), "{kind}");
    assert_eq!(offset, bytes.len() as u64 - 1);
}

#[test]
fn what_was_read_behind_the_end_is_still_there_and_the_end_is_said_again() {
    let bytes = [&stream(true)[..], b"more"].concat();
    let mut reader = MainReader::new(&bytes[..], MainDecoder::new(Limits::default()));
    while reader.next_event().unwrap().is_some() {}
    assert_eq!(reader.unread(), b"more");
    assert!(matches!(reader.next_event(), Ok(None)));
}

/// A stream that fails in the middle once.
struct Pausing<'a>([Trickle<'a>; 2]);

impl Read for Pausing<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let [before, behind] = &mut self.0;
        if before.bytes.is_empty() && before.end.is_none() {
            return behind.read(buffer);
        }
        let read = before.read(buffer);
        if read.as_ref().is_err_and(|error| Some(error.kind()) == before.end) {
            before.end = None;
        }
        read
    }
}

#[test]
fn a_reader_that_fails_says_where_and_can_go_on() {
    let bytes = stream(false);
    let (before, behind) = bytes.split_at(20);
    let stream =
        Pausing([Trickle::new(before, Some(ErrorKind::WouldBlock)), Trickle::new(behind, None)]);
    let mut reader = MainReader::new(stream, MainDecoder::new(Limits::default()));
    let error = std::iter::repeat_with(|| reader.next_event()).find_map(Result::err).unwrap();
    assert!(matches!(error, MainChannelError::Read { offset: 20, .. }), "{error}");
    while reader.next_event().unwrap().is_some() {}
    assert!(reader.decoder().is_over());
}

/// Takes three bytes at a time, as many as there is room for, and is interrupted between.
struct Room<'a> {
    taken: &'a mut Vec<u8>,
    room: &'a Cell<usize>,
    interrupted: bool,
}

impl Write for Room<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.interrupted = !self.interrupted;
        if self.interrupted {
            return Err(ErrorKind::Interrupted.into());
        }
        let count = bytes.len().min(3).min(self.room.get() - self.taken.len());
        self.taken.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_writer_that_fails_says_how_far_it_came() {
    for (room, is_enough) in [(100, true), (10, false)] {
        let mut taken = Vec::new();
        let room = Cell::new(room);
        let to = Room { taken: &mut taken, room: &room, interrupted: false };
        let mut writer = MainWriter::new(to, MainEncoder::new());
        writer.encoder().header(&Configuration::new("pc")).unwrap();
        let expected = writer.encoder().bytes().to_vec();
        match writer.flush() {
            Ok(()) => assert!(is_enough && taken == expected),
            Err(MainChannelError::Write { offset, .. }) => {
                assert!(!is_enough);
                assert_eq!((offset, &taken[..]), (10, &expected[..10]));
            }
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn a_writer_that_has_failed_can_go_on() {
    let (mut taken, room) = (Vec::new(), Cell::new(10));
    let to = Room { taken: &mut taken, room: &room, interrupted: false };
    let mut writer = MainWriter::new(to, MainEncoder::new());
    writer.encoder().header(&Configuration::new("pc")).unwrap();
    let expected = writer.encoder().bytes().to_vec();
    let error = writer.flush().unwrap_err();
    assert!(matches!(error, MainChannelError::Write { offset: 10, .. }), "{error}");
    room.set(expected.len());
    writer.flush().unwrap();
    drop(writer);
    assert_eq!(taken, expected);
}

#[test]
fn messages_of_the_return_path_are_read_up_to_its_end() {
    let bytes = [ReturnMessage::Pong(7).to_bytes(), ReturnMessage::Shut(0).to_bytes()].concat();
    let mut reader = ReturnReader::new(Trickle::new(&bytes, None));
    let messages = std::iter::from_fn(|| reader.next_message().transpose());
    let messages: Vec<_> = messages.collect::<Result<_, _>>().unwrap();
    assert_eq!(messages, [ReturnMessage::Pong(7), ReturnMessage::Shut(0)]);
    let error = ReturnReader::new(&bytes[..3]).next_message().unwrap_err();
    assert!(matches!(error, MainChannelError::Stream(_)), "{error}");
}
