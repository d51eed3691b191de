//! The receiving side of a TLS session.

use std::io::{self, ErrorKind, Read};

use rustls::Connection as Session;

use super::super::layer::{Line, Now};
use super::failed;
use crate::tls::TlsError;

/// The type, the version and the length of a record.
const HEADER: usize = 5;

/// The most bytes of a record. TLS 1.2 allows 2048 more than there are of plaintext.
const RECORD: usize = HEADER + (16 << 10) + 2048;

/// The most bytes that are received at once.
const MOST: usize = 128 << 10;

/// The types of records: change of cipher, alert, handshake, application data.
const TYPES: std::ops::RangeInclusive<u8> = 0x14..=0x17;

/// What has been received and not decrypted yet. The session gets whole records alone, so that one that
/// is cut off is known.
#[derive(Debug)]
pub(super) struct Input {
    buffer: Vec<u8>,
    take: Take,
    /// The bytes that are there.
    start: usize,
    end: usize,
    /// The socket has come to its end.
    ended: bool,
    /// Anything has been received.
    begun: bool,
    /// Why nothing more can be read, to be said behind what came before.
    failed: Option<TlsError>,
}

/// How much is taken out of the socket at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Take {
    /// What is there.
    All,
    /// The rest of a record's header, or of a record: what is behind a handshake stays there for the kernel.
    Records,
}

impl Input {
    pub(super) fn new(take: Take) -> Self {
        let buffer = vec![0; RECORD];
        Self { buffer, take, start: 0, end: 0, ended: false, begun: false, failed: None }
    }

    /// Receives more, however long it takes. Returns how many bytes; 0 at the end.
    pub(super) fn receive(&mut self, line: Line<'_>) -> io::Result<usize> {
        let count = line.receive(self.room())?;
        Ok(self.received(count))
    }

    /// As [`receive`](Self::receive), what is there now; `None` where nothing is.
    pub(super) fn receive_now(&mut self, line: Line<'_>) -> io::Result<Option<usize>> {
        let count = line.receive_now(self.room())?;
        Ok(count.map(|count| self.received(count)))
    }

    /// Where more goes. There is room for more than a record's rest: whole records are taken out before.
    fn room(&mut self) -> &mut [u8] {
        self.buffer.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        let most = match self.take {
            Take::All => self.buffer.len(),
            Take::Records => self.announced().unwrap_or(HEADER).max(self.end + 1).min(RECORD),
        };
        &mut self.buffer[self.end..most]
    }

    /// From here on takes whatever there is.
    pub(super) fn take_all(&mut self) {
        self.take = Take::All;
    }

    /// The length of the next record, if its header is there.
    fn announced(&self) -> Option<usize> {
        let bytes = &self.buffer[self.start..self.end];
        Some(HEADER + usize::from(u16::from_be_bytes([*bytes.get(3)?, *bytes.get(4)?])))
    }

    fn received(&mut self, count: usize) -> usize {
        self.end += count;
        self.begun |= count > 0;
        self.ended |= count == 0;
        if self.end == self.buffer.len() && self.end < MOST {
            // Much is coming.
            self.buffer.resize(MOST, 0);
        }
        count
    }

    /// The length of the next record, if it is there as a whole.
    fn record(&self) -> Option<usize> {
        let bytes = &self.buffer[self.start..self.end];
        let length = self.announced()?;
        // The session says what is wrong with one that is too long.
        if length > RECORD { Some(bytes.len()) } else { (bytes.len() >= length).then_some(length) }
    }

    /// Gives the session the next record, if it is there. Says whether it was.
    pub(super) fn feed(&mut self, session: &mut Session) -> Result<bool, TlsError> {
        let Some(length) = self.record() else { return Ok(false) };
        let mut record = &self.buffer[self.start..self.start + length];
        self.start += length;
        while !record.is_empty() {
            match session.read_tls(&mut record) {
                // It has been closed: what comes behind that is nothing.
                Ok(0) => break,
                Ok(_) => _ = session.process_new_packets().map_err(TlsError::from)?,
                Err(error) => return Err(TlsError::Io(error)),
            }
        }
        Ok(true)
    }

    /// Takes the plaintext that there is: 0 bytes at the end, `None` where there is none yet.
    pub(super) fn take(
        &mut self,
        session: &mut Session,
        room: &mut [u8],
    ) -> io::Result<Option<usize>> {
        let mut filled = 0;
        while filled < room.len() {
            match session.reader().read(&mut room[filled..]) {
                Ok(0) => return Ok(Some(filled)),
                Ok(count) => {
                    filled += count;
                    continue;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
            if filled > 0 && self.failed.is_some() {
                break;
            }
            match self.go_on(session) {
                Ok(true) => {}
                Ok(false) if filled == 0 && self.ended => return Ok(Some(0)),
                Ok(false) if filled == 0 => return Ok(None),
                Ok(false) => break,
                Err(error) if filled == 0 => return Err(failed(error)),
                Err(error) => self.failed = Some(error),
            }
        }
        Ok(Some(filled))
    }

    /// Looks what there is to be read of what has been received.
    pub(super) fn look(&mut self, session: &mut Session) -> Now {
        if self.failed.is_some() {
            return Now::Failure;
        }
        loop {
            let now = match session.process_new_packets() {
                Ok(state) if state.plaintext_bytes_to_read() > 0 => return Now::Bytes,
                Ok(state) if state.peer_has_closed() => return Now::End,
                Ok(_) => self.go_on(session),
                Err(error) => Err(error.into()),
            };
            match now {
                Ok(true) => {}
                Ok(false) => return if self.ended { Now::End } else { Now::Nothing },
                Err(error) => {
                    // For whoever reads next.
                    self.failed = Some(error);
                    return Now::Failure;
                }
            }
        }
    }

    /// Whether nothing has been received that is not decrypted yet.
    pub(super) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Why nothing more can be read.
    pub(super) fn failure(&mut self) -> Option<io::Error> {
        self.failed.take().map(failed)
    }

    /// Gives the session the next record, if it is there. A connection may end without a word, but not
    /// within a record.
    fn go_on(&mut self, session: &mut Session) -> Result<bool, TlsError> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        if self.feed(session)? {
            return Ok(true);
        }
        match self.ended && self.start < self.end {
            true => Err(TlsError::CutOff),
            false => Ok(false),
        }
    }

    /// Checks that what has come first is of TLS. What is not is waited for until it can be named.
    pub(super) fn check_first(&mut self, line: Line<'_>) -> Result<(), TlsError> {
        if TYPES.contains(&self.buffer[self.start]) {
            return Ok(());
        }
        while !self.ended && self.end - self.start < 4 {
            self.receive(line).map_err(TlsError::Io)?;
        }
        let mut first = [0; 4];
        let count = (self.end - self.start).min(4);
        first[..count].copy_from_slice(&self.buffer[self.start..self.start + count]);
        Err(TlsError::NotTls { first })
    }

    /// The error of a connection that has failed before the handshake was done: a peer that closes with
    /// bytes unread resets it.
    pub(super) fn failed_in_handshake(&self, error: io::Error) -> TlsError {
        match error.kind() {
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => self.ended_in_handshake(),
            _ => TlsError::Io(error),
        }
    }

    /// The error of a connection that has ended before the handshake was done.
    pub(super) fn ended_in_handshake(&self) -> TlsError {
        if self.begun { TlsError::Closed } else { TlsError::NoAnswer }
    }
}
