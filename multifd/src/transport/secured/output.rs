//! The sending side of a TLS session.

use std::io::{self, ErrorKind, Write};
use std::ops::DerefMut;

use rustls::Connection as Session;

use super::super::layer::Line;
use super::failed;

/// The most bytes of plaintext that are encrypted at once: 16 records.
const MOST: usize = 256 << 10;

/// What is to be sent.
#[derive(Debug)]
pub(super) struct Output {
    /// What is to be encrypted next.
    plain: Vec<u8>,
    filled: usize,
    /// What has been encrypted, and how much of it is sent.
    cipher: Vec<u8>,
    sent: usize,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// That nothing more comes has been said.
    Closed,
    /// What was sent last is not whole.
    Broken,
}

impl Output {
    pub(super) fn new() -> Self {
        let (plain, cipher) = (Vec::new(), Vec::new());
        Self { plain, filled: 0, cipher, sent: 0, state: State::Open }
    }

    /// Has `fill` put up to `bytes` bytes there to be encrypted. Returns how many.
    pub(super) fn gather(
        &mut self,
        bytes: usize,
        fill: &mut dyn FnMut(&mut [u8]) -> usize,
    ) -> usize {
        let room = bytes.min(MOST);
        if self.plain.len() < room {
            self.plain.resize(room, 0);
        }
        self.filled = fill(&mut self.plain[..room]);
        self.filled
    }

    /// Encrypts what has been gathered.
    pub(super) fn encrypt<S: DerefMut<Target = Session>>(
        &mut self,
        session: &mut dyn FnMut() -> S,
    ) -> io::Result<()> {
        if self.state != State::Open {
            return Err(ErrorKind::BrokenPipe.into());
        }
        let mut session = session();
        let before = self.cipher.len();
        // A look at what there is to be read may have found an alert.
        session.writer().write_all(&self.plain[..self.filled]).map_err(|error| match error
            .downcast::<rustls::Error>(
        ) {
            Ok(error) => failed(error.into()),
            Err(error) => error,
        })?;
        self.collect(&mut session);
        // TLS 1.2 cannot change its keys.
        match self.cipher.len() - before < self.filled {
            true => Err(io::Error::other(
                "the keys of TLS 1.2 are used up: use TLS 1.3, or more channels",
            )),
            false => Ok(()),
        }
    }

    /// Takes what the session has to send.
    pub(super) fn collect(&mut self, session: &mut Session) {
        while session.wants_write() {
            // A vector takes everything.
            if session.write_tls(&mut self.cipher).is_err() {
                self.state = State::Broken;
                return;
            }
        }
    }

    /// Sends `bytes` as they are.
    pub(super) fn append(&mut self, bytes: &[u8]) {
        self.cipher.extend_from_slice(bytes);
    }

    /// Has the session say that nothing more comes.
    pub(super) fn close(&mut self, session: &mut Session) {
        if self.state == State::Open {
            session.send_close_notify();
            self.collect(session);
            self.state = State::Closed;
        }
    }

    /// Sends everything, however long it takes.
    pub(super) fn send(&mut self, line: Line<'_>) -> io::Result<()> {
        self.send_by(|bytes| line.send(bytes).map(Some)).map(drop)
    }

    /// Sends what there is room for. Says whether that was all.
    pub(super) fn send_now(&mut self, line: Line<'_>) -> io::Result<bool> {
        self.send_by(|bytes| line.send_now(bytes))
    }

    /// Nothing is sent any more.
    pub(super) fn give_up(&mut self) {
        self.state = State::Broken;
    }

    fn send_by(&mut self, send: impl Fn(&[u8]) -> io::Result<Option<usize>>) -> io::Result<bool> {
        while self.sent < self.cipher.len() {
            if self.state == State::Broken {
                return Err(ErrorKind::BrokenPipe.into());
            }
            match send(&self.cipher[self.sent..]) {
                Ok(Some(count)) => self.sent += count,
                Ok(None) => return Ok(false),
                Err(error) => {
                    self.state = State::Broken;
                    return Err(error);
                }
            }
        }
        self.cipher.clear();
        self.sent = 0;
        Ok(true)
    }
}
