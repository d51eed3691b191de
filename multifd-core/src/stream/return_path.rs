//! The return path: what a destination answers on the main channel's connection.

use std::io::{self, Read, Write};

use super::input::Input;
use super::{StreamError, StreamErrorKind};

/// The longest message: a header of 4 bytes and a number.
const LONGEST: usize = 8;

const SHUT: u16 = 1;
const PONG: u16 = 2;
const SWITCHOVER_ACK: u16 = 7;

/// A message from the destination to the source. Only sent after
/// [`Event::OpenReturnPath`](super::Event::OpenReturnPath).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReturnMessage {
    /// The destination is done: 0 says that it has everything, anything else that it failed. On 0
    /// the source gives its VM up, so **0 may be sent only once every byte is safely stored**.
    Shut(u32),
    /// The answer to [`Event::Ping`](super::Event::Ping), with the same number.
    Pong(u32),
    /// The source may switch over. It waits for this where switchover-ack is on.
    SwitchoverAck,
}

impl ReturnMessage {
    /// Writes the message with one `write_all`, and flushes.
    ///
    /// # Errors
    ///
    /// Those of the writer.
    pub fn write(self, mut writer: impl Write) -> io::Result<()> {
        let (kind, number) = match self {
            Self::Shut(status) => (SHUT, Some(status)),
            Self::Pong(number) => (PONG, Some(number)),
            Self::SwitchoverAck => (SWITCHOVER_ACK, None),
        };
        let mut bytes = Vec::with_capacity(LONGEST);
        bytes.extend_from_slice(&kind.to_be_bytes());
        bytes.extend_from_slice(&length(kind).unwrap_or(0).to_be_bytes());
        bytes.extend(number.iter().flat_map(|number| number.to_be_bytes()));
        writer.write_all(&bytes)?;
        writer.flush()
    }
}

/// Reads the return path at the source.
#[derive(Debug)]
pub struct ReturnReader<R> {
    input: Input<R>,
}

impl<R: Read> ReturnReader<R> {
    /// A reader of a return path from its first byte on.
    pub fn new(reader: R) -> Self {
        Self { input: Input::new(reader, LONGEST) }
    }

    /// The next message. Waits for it. `None` is the end of the return path between two messages:
    /// the destination went away, which before [`ReturnMessage::Shut`] means that it failed.
    ///
    /// # Errors
    ///
    /// A message that is unknown, has the wrong length or is cut off, or a reader that fails.
    pub fn next_message(&mut self) -> Result<Option<ReturnMessage>, StreamError> {
        self.read().map_err(|kind| self.input.error(kind))
    }

    fn read(&mut self) -> Result<Option<ReturnMessage>, StreamErrorKind> {
        let what = "a message of the return path";
        if !self.input.fill(what)? {
            return Ok(None);
        }
        self.input.begin_item();
        let kind = self.input.u16(what)?;
        let found = self.input.u16(what)?;
        let allowed = length(kind).ok_or(StreamErrorKind::UnknownMessage(kind))?;
        if found != allowed {
            return Err(StreamErrorKind::Length {
                what,
                length: u64::from(found),
                allowed: if allowed == 0 { "0 for SWITCHOVER_ACK" } else { "4 for SHUT and PONG" },
            });
        }
        Ok(Some(match kind {
            SHUT => ReturnMessage::Shut(self.input.u32(what)?),
            PONG => ReturnMessage::Pong(self.input.u32(what)?),
            _ => ReturnMessage::SwitchoverAck,
        }))
    }
}

/// The length of a message's data, which goes by its type.
fn length(kind: u16) -> Option<u16> {
    match kind {
        SHUT | PONG => Some(4),
        SWITCHOVER_ACK => Some(0),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [(ReturnMessage, &[u8]); 3] = [
        (ReturnMessage::Pong(0x0102_0304), &[0, 2, 0, 4, 1, 2, 3, 4]),
        (ReturnMessage::SwitchoverAck, &[0, 7, 0, 0]),
        (ReturnMessage::Shut(0), &[0, 1, 0, 4, 0, 0, 0, 0]),
    ];

    #[test]
    fn messages_are_written_as_the_format_says_and_read_back() {
        let mut bytes = Vec::new();
        for (message, expected) in ALL {
            let start = bytes.len();
            message.write(&mut bytes).unwrap();
            assert_eq!(&bytes[start..], expected);
        }
        let mut reader = ReturnReader::new(bytes.as_slice());
        for (message, _) in ALL {
            assert_eq!(reader.next_message().unwrap(), Some(message));
        }
        assert_eq!(reader.next_message().unwrap(), None);
    }

    #[test]
    fn an_unknown_message_is_refused_by_its_number_and_place() {
        let mut reader = ReturnReader::new([0, 7, 0, 0, 0, 3, 0, 12].as_slice());
        reader.next_message().unwrap();
        let error = reader.next_message().unwrap_err();
        assert!(matches!(error.kind, StreamErrorKind::UnknownMessage(3)));
        assert_eq!(error.offset, 4);
    }

    #[test]
    fn a_message_of_another_length_is_refused() {
        for bytes in [[0, 1, 0, 0, 0], [0, 2, 0, 5, 0], [0, 7, 0, 4, 0]] {
            let error = ReturnReader::new(bytes.as_slice()).next_message().unwrap_err();
            assert!(matches!(error.kind, StreamErrorKind::Length { .. }), "{error}");
        }
    }

    #[test]
    fn a_message_cut_off_anywhere_is_an_error() {
        for (_, bytes) in ALL {
            for end in 1..bytes.len() {
                let error = ReturnReader::new(&bytes[..end]).next_message().unwrap_err();
                assert!(matches!(error.kind, StreamErrorKind::Truncated { .. }), "{error}");
                assert_eq!(error.offset, end as u64);
            }
        }
    }
}
