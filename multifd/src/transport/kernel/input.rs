//! The receiving side of a session whose keys the kernel has.

use std::io;

use multifd_core::ram::GuestSlices;
use rustls::{AlertDescription, InvalidMessage};

use super::super::layer::{Line, Now};
use super::super::secured::failed;
use super::keys::{Generation, Protection, Version};
use super::sys::{self, Direction};
use super::{RECORD, unread};
use crate::tls::TlsError;

/// The types of messages of a handshake that come behind it.
const TICKET: u8 = 4;
const KEY_UPDATE: u8 = 24;

/// The type and the length of such a message.
const HEADER: usize = 4;

/// The longest of them: tickets are the longest.
const LONGEST: usize = HEADER + (1 << 16) + 512;

/// What has been looked at and not read yet, and what is known of what comes.
pub(super) struct Input {
    protection: Protection,
    /// Of the next keys, where the kernel can take some.
    next: Option<Generation>,
    buffer: Vec<u8>,
    /// The bytes that are there.
    start: usize,
    end: usize,
    /// Of a message of a handshake.
    handshake: Vec<u8>,
    /// The peer has said that nothing more comes, or the socket has come to its end.
    ended: Option<End>,
    /// Why nothing more can be read, for whoever reads next.
    failed: Option<io::Error>,
    /// Nothing can be read any more.
    is_broken: bool,
    /// Bytes that had come when there was nothing to be read.
    unread: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Said,
    Silent,
}

/// What comes of a record that is not of data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Control {
    Nothing,
    /// The peer wants a new key of this side.
    KeyWanted,
}

impl Input {
    pub(super) fn new(protection: Protection, next: Option<Generation>) -> Self {
        Self {
            protection,
            next,
            buffer: vec![0; RECORD],
            start: 0,
            end: 0,
            handshake: Vec::new(),
            ended: None,
            failed: None,
            is_broken: false,
            unread: 0,
        }
    }

    /// Takes what was looked at before. Returns how many bytes.
    pub(super) fn take(&mut self, room: &mut [u8]) -> usize {
        let count = room.len().min(self.end - self.start);
        room[..count].copy_from_slice(&self.buffer[self.start..self.start + count]);
        self.start += count;
        count
    }

    /// As [`take`](Self::take), into guest memory.
    pub(super) fn take_guest(&mut self, room: &GuestSlices<'_>) -> usize {
        let before = self.start;
        for slice in room.iter() {
            let bytes = &self.buffer[self.start..self.end];
            let count = slice.len().min(bytes.len());
            slice.copy_from(&bytes[..count]);
            self.start += count;
        }
        self.start - before
    }

    /// What there is to be read, where that is known.
    pub(super) fn known(&self) -> Option<Now> {
        if self.failed.is_some() {
            return Some(Now::Failure);
        }
        (self.start < self.end).then_some(Now::Bytes)
    }

    /// The room for what is looked at, until it is given back.
    pub(super) fn lend(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.buffer)
    }

    pub(super) fn give_back(&mut self, buffer: Vec<u8>, count: usize) {
        self.buffer = buffer;
        (self.start, self.end) = (0, count);
    }

    /// Whether nothing more can be read: 0 bytes at the end, else `None`.
    pub(super) fn over(&mut self, line: Line<'_>) -> io::Result<Option<usize>> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        if self.is_broken {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        match self.ended {
            None => Ok(None),
            Some(End::Said) => Ok(Some(0)),
            // A connection may end without a word, but not within a record.
            Some(End::Silent) if unread(line) == 0 && self.handshake.is_empty() => Ok(Some(0)),
            Some(End::Silent) => Err(failed(TlsError::CutOff)),
        }
    }

    /// The socket has come to its end.
    pub(super) fn end(&mut self) {
        self.ended = Some(End::Silent);
    }

    /// Keeps an error for whoever reads next.
    pub(super) fn fail(&mut self, error: io::Error) {
        self.failed = Some(error);
    }

    /// Why nothing more can be read.
    pub(super) fn failure(&mut self) -> Option<io::Error> {
        self.failed.take()
    }

    /// Nothing is read any more.
    pub(super) fn give_up(&mut self) {
        self.is_broken = true;
    }

    /// Counts it as progress that more of a record has come.
    pub(super) fn note_progress(&mut self, line: Line<'_>) {
        let before = std::mem::replace(&mut self.unread, unread(line));
        if self.unread > before {
            line.count(1);
        }
    }

    /// Receives a record that is not of data.
    pub(super) fn receive_control(&mut self, line: Line<'_>) -> io::Result<Control> {
        let mut room = vec![0; RECORD];
        let (record, count) = sys::receive_record(line.socket, &mut room)?;
        let content = &room[..count];
        match record {
            Some(sys::ALERT) => self.alert(content).map(|()| Control::Nothing),
            Some(sys::HANDSHAKE) => self.message(line, content),
            _ => Err(unexpected()),
        }
        .map_err(failed)
    }

    fn alert(&mut self, content: &[u8]) -> Result<(), TlsError> {
        const WARNING: u8 = 1;

        let &[level, description] = content else { return Err(malformed()) };
        match AlertDescription::from(description) {
            AlertDescription::CloseNotify => self.ended = Some(End::Said),
            // Such as that of a user who has cancelled: the end follows.
            AlertDescription::UserCanceled => {}
            _ if self.protection.version == Version::Tls12 && level == WARNING => {}
            _ => return Err(TlsError::Refused { description }),
        }
        Ok(())
    }

    /// Takes (a part of) messages of a handshake.
    fn message(&mut self, line: Line<'_>, content: &[u8]) -> Result<Control, TlsError> {
        if self.protection.version == Version::Tls12 {
            // A new handshake, which rustls does not have either.
            return Err(unexpected());
        }
        self.handshake.extend_from_slice(content);
        let mut control = Control::Nothing;
        while let &[kind, high, middle, low, ..] = &self.handshake[..] {
            let len = HEADER + u32::from_be_bytes([0, high, middle, low]) as usize;
            if len > LONGEST {
                return Err(malformed());
            }
            if self.handshake.len() < len {
                break;
            }
            let message: Vec<u8> = self.handshake.drain(..len).collect();
            match (kind, &message[HEADER..]) {
                // For another session, which there is not.
                (TICKET, _) => {}
                // It must be the last of its record.
                (KEY_UPDATE, &[wanted @ (0 | 1)]) if self.handshake.is_empty() => {
                    self.update_key(line)?;
                    if wanted == 1 {
                        control = Control::KeyWanted;
                    }
                }
                _ => return Err(unexpected()),
            }
        }
        Ok(control)
    }

    /// The peer sends with its next key from now on.
    fn update_key(&mut self, line: Line<'_>) -> Result<(), TlsError> {
        let what = "the other side changes its key, which the kernel takes from Linux 6.14 on";
        let refused = |source| TlsError::Kernel { what, source };
        let next = self.next.as_mut().and_then(|next| next.next(self.protection));
        let next = next.ok_or_else(|| refused(io::ErrorKind::Unsupported.into()))?;
        sys::set_keys(line.socket, Direction::Receiving, &next).map_err(refused)
    }
}

fn malformed() -> TlsError {
    TlsError::Protocol(InvalidMessage::MessageTooShort.into())
}

fn unexpected() -> TlsError {
    let text = "a record or a message that has no place behind the handshake";
    TlsError::Protocol(rustls::Error::General(text.to_owned()))
}

/// The alert for the peer, where it is to blame for an error of reading, and that error as rustls would have it.
pub(super) fn blame(error: io::Error) -> (Option<AlertDescription>, io::Error) {
    let (alert, what) = match error.raw_os_error() {
        Some(libc::EBADMSG) => (AlertDescription::BadRecordMac, rustls::Error::DecryptError),
        Some(libc::EMSGSIZE) => {
            (AlertDescription::RecordOverflow, rustls::Error::PeerSentOversizedRecord)
        }
        Some(libc::EINVAL) => {
            (AlertDescription::DecodeError, InvalidMessage::UnknownProtocolVersion.into())
        }
        Some(_) => return (None, error),
        None if matches!(cause(&error), Some(TlsError::Kernel { .. })) => {
            return (Some(AlertDescription::InternalError), error);
        }
        // Of a record that could be read.
        None => return (Some(AlertDescription::UnexpectedMessage), error),
    };
    (Some(alert), failed(TlsError::Protocol(what)))
}

/// What of TLS an error comes from, if it does.
pub(super) fn cause(error: &io::Error) -> Option<&TlsError> {
    error.get_ref()?.downcast_ref()
}
