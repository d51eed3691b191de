//! The return path: what a destination answers on the main channel's connection.

use std::ops::RangeInclusive;

use super::input::{Input, Stop};
use super::{AFTER_AN_ERROR, StreamError, StreamErrorKind};

const SHUT: u16 = 1;
const PONG: u16 = 2;
const SWITCHOVER_ACK: u16 = 7;

/// Messages of postcopy: requests for pages, and those that recover it.
const POSTCOPY: RangeInclusive<u16> = 3..=6;

/// A message from the destination to the source. Only sent after
/// [`MainEvent::OpenReturnPath`](super::MainEvent::OpenReturnPath).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReturnMessage {
    /// The destination is done: 0 says that it has everything, anything else that it failed. On 0
    /// the source gives its VM up, so **0 may be sent only once every byte is safely stored**.
    Shut(u32),
    /// The answer to [`MainEvent::Ping`](super::MainEvent::Ping), with the same number.
    Pong(u32),
    /// The source may switch over. It waits for this where switchover-ack is on.
    SwitchoverAck,
}

impl ReturnMessage {
    /// The message's bytes: 4 or 8. They should leave in one write.
    pub fn to_bytes(self) -> Vec<u8> {
        let (kind, number) = match self {
            Self::Shut(status) => (SHUT, Some(status)),
            Self::Pong(number) => (PONG, Some(number)),
            Self::SwitchoverAck => (SWITCHOVER_ACK, None),
        };
        let number = number.map(u32::to_be_bytes);
        let data = number.as_ref().map_or(&[][..], |number| number);
        [&kind.to_be_bytes(), &(data.len() as u16).to_be_bytes(), data].concat()
    }
}

/// Decodes the return path at the source: it is given the bytes as they come, in pieces of any size.
#[derive(Debug)]
pub struct ReturnDecoder {
    input: Input,
    state: State,
    pass_postcopy: bool,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Head,
    /// The number of a SHUT or a PONG.
    Number(fn(u32) -> ReturnMessage),
    /// The data of a message that is passed over: as many bytes are left.
    Data(u16),
    Failed,
}

const WHAT: &str = "a message of the return path";

impl Default for ReturnDecoder {
    fn default() -> Self {
        Self::new()
    }
}

impl ReturnDecoder {
    /// A decoder of a return path from its first byte on.
    pub fn new() -> Self {
        Self { input: Input::new(), state: State::Head, pass_postcopy: false }
    }

    /// The same decoder, which passes over the messages of postcopy, such as requests for pages.
    #[must_use]
    pub fn passing_postcopy(self) -> Self {
        Self { pass_postcopy: true, ..self }
    }

    /// Takes bytes off the front of `bytes`, up to the end of the next message, and gives this.
    /// `None` means that all were taken and that the message has not wholly come.
    ///
    /// # Errors
    ///
    /// A message that is unknown or has the wrong length. Every later call is an error then.
    pub fn next(&mut self, bytes: &mut &[u8]) -> Result<Option<ReturnMessage>, StreamError> {
        match self.message(bytes) {
            Ok(message) => Ok(Some(message)),
            Err(Stop::Wait) => Ok(None),
            Err(Stop::Refused(kind)) => Err(self.refuse(kind)),
        }
    }

    /// Takes note that the return path has ended. Before a [`ReturnMessage::Shut`] that means that
    /// the destination has failed, between two messages as well.
    ///
    /// # Errors
    ///
    /// A message that is cut off.
    pub fn finish(&mut self) -> Result<(), StreamError> {
        if matches!(self.state, State::Head) && self.input.is_between_fields() {
            return Ok(());
        }
        Err(self.refuse(StreamErrorKind::Truncated { what: WHAT }))
    }

    /// The bytes of the return path that were taken so far.
    pub fn offset(&self) -> u64 {
        self.input.offset()
    }

    fn refuse(&mut self, kind: StreamErrorKind) -> StreamError {
        self.state = State::Failed;
        self.input.error(kind)
    }

    fn message(&mut self, bytes: &mut &[u8]) -> Result<ReturnMessage, Stop> {
        loop {
            match self.state {
                State::Head => {
                    self.input.begin_item();
                    let [a, b, c, d] = self.input.array(bytes, WHAT)?;
                    let (kind, length) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
                    self.state = match (kind, length) {
                        (SHUT, 4) => State::Number(ReturnMessage::Shut),
                        (PONG, 4) => State::Number(ReturnMessage::Pong),
                        (SWITCHOVER_ACK, 0) => return Ok(ReturnMessage::SwitchoverAck),
                        (kind, length) if self.pass_postcopy && POSTCOPY.contains(&kind) => {
                            State::Data(length)
                        }
                        _ => return Err(refusal(kind, length).into()),
                    };
                }
                State::Number(message) => {
                    let number = self.input.u32(bytes, WHAT)?;
                    self.state = State::Head;
                    return Ok(message(number));
                }
                State::Data(0) => self.state = State::Head,
                State::Data(left) => {
                    if bytes.is_empty() {
                        return Err(Stop::Wait);
                    }
                    let count = bytes.len().min(left.into());
                    self.input.skip(bytes, count);
                    self.state = State::Data(left - count as u16);
                }
                State::Failed => return Err(AFTER_AN_ERROR.into()),
            }
        }
    }
}

/// Why a message of this type and length is refused.
fn refusal(kind: u16, length: u16) -> StreamErrorKind {
    let allowed = match kind {
        SHUT | PONG => "4 for SHUT and PONG",
        SWITCHOVER_ACK => "0 for SWITCHOVER_ACK",
        _ => return StreamErrorKind::UnknownMessage(kind),
    };
    StreamErrorKind::Length { what: WHAT, length: length.into(), allowed }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [(ReturnMessage, &[u8]); 3] = [
        (ReturnMessage::Pong(0x0102_0304), &[0, 2, 0, 4, 1, 2, 3, 4]),
        (ReturnMessage::SwitchoverAck, &[0, 7, 0, 0]),
        (ReturnMessage::Shut(0), &[0, 1, 0, 4, 0, 0, 0, 0]),
    ];

    /// All messages of a return path that comes in pieces of `size` bytes.
    fn decode(bytes: &[u8], size: usize) -> Result<Vec<ReturnMessage>, StreamError> {
        let (mut decoder, mut messages) = (ReturnDecoder::new(), Vec::new());
        for mut piece in bytes.chunks(size) {
            while let Some(message) = decoder.next(&mut piece)? {
                messages.push(message);
            }
        }
        decoder.finish()?;
        Ok(messages)
    }

    #[test]
    fn messages_are_encoded_as_the_format_says_and_decoded_however_they_are_split() {
        for (message, expected) in ALL {
            assert_eq!(message.to_bytes(), expected);
        }
        let bytes = ALL.map(|(_, bytes)| bytes).concat();
        for size in 1..=bytes.len() {
            let messages = decode(&bytes, size).unwrap();
            assert_eq!(messages, ALL.map(|(message, _)| message), "{size}");
        }
    }

    #[test]
    fn a_message_ends_where_its_bytes_do() {
        let bytes = [ALL[0].1, b"more"].concat();
        let mut rest = &bytes[..];
        assert_eq!(ReturnDecoder::new().next(&mut rest), Ok(Some(ALL[0].0)));
        assert_eq!(rest, b"more");
    }

    #[test]
    fn an_unknown_message_is_refused_by_its_number_and_place() {
        for size in [1, 8] {
            let error = decode(&[0, 7, 0, 0, 0, 3, 0, 12], size).unwrap_err();
            let kind = StreamErrorKind::UnknownMessage(3);
            assert_eq!(error, StreamError { offset: 4, kind });
        }
    }

    #[test]
    fn an_alert_of_tls_is_said_to_be_one() {
        let error = decode(&[0x15, 3, 3, 0, 2, 2, 10], 7).unwrap_err();
        assert!(error.is_tls_alert() && error.to_string().contains("speaks TLS"), "{error}");
        let later = [ALL[0].1, &[0x15, 3, 3, 0]].concat();
        assert!(!decode(&later, 4).unwrap_err().is_tls_alert());
    }

    #[test]
    fn the_answer_of_a_destination_with_a_token_is_said_to_be_one() {
        let error = decode(b"MFDTOKEN\x01\x03", 10).unwrap_err();
        assert!(error.is_token_wanted() && error.to_string().contains("--token-file"), "{error}");
        let later = [ALL[0].1, b"MFDT"].concat();
        assert!(!decode(&later, 4).unwrap_err().is_token_wanted());
    }

    #[test]
    fn messages_of_postcopy_are_passed_over_where_that_is_asked_for() {
        let request = [&[0, 3, 0, 12][..], &[7; 12]].concat();
        let bytes = [&request[..], ALL[0].1, &[0, 6, 0, 0], &request, ALL[2].1].concat();
        for size in 1..=bytes.len() {
            let mut decoder = ReturnDecoder::new().passing_postcopy();
            let mut messages = Vec::new();
            for mut piece in bytes.chunks(size) {
                while let Some(message) = decoder.next(&mut piece).unwrap() {
                    messages.push(message);
                }
            }
            assert_eq!(messages, [ALL[0].0, ALL[2].0], "{size}");
            decoder.finish().unwrap();
        }
        let mut decoder = ReturnDecoder::new().passing_postcopy();
        assert_eq!(decoder.next(&mut &request[..7]), Ok(None));
        decoder.finish().unwrap_err();
        decoder = ReturnDecoder::new().passing_postcopy();
        decoder.next(&mut &[0, 8, 0, 0][..]).unwrap_err();
    }

    #[test]
    fn a_message_of_another_length_is_refused() {
        for bytes in [[0, 1, 0, 0, 0], [0, 2, 0, 5, 0], [0, 7, 0, 4, 0]] {
            let error = decode(&bytes, 5).unwrap_err();
            assert!(matches!(error.kind, StreamErrorKind::Length { .. }), "{error}");
        }
    }

    #[test]
    fn a_message_cut_off_anywhere_is_an_error() {
        for (_, bytes) in ALL {
            for (end, size) in (1..bytes.len()).flat_map(|end| [(end, 1), (end, end)]) {
                let error = decode(&bytes[..end], size).unwrap_err();
                assert!(matches!(error.kind, StreamErrorKind::Truncated { .. }), "{error}");
                assert_eq!(error.offset, end as u64);
            }
        }
    }

    #[test]
    fn a_decoder_is_at_its_end_after_an_error() {
        let mut decoder = ReturnDecoder::new();
        decoder.next(&mut &[0, 3, 0, 0][..]).unwrap_err();
        let error = decoder.next(&mut &[0, 7, 0, 0][..]).unwrap_err();
        assert_eq!(error.kind, AFTER_AN_ERROR);
    }
}
