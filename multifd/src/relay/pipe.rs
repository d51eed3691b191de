//! Bytes from one side to the other, as they are.

use std::io::{ErrorKind, Read, Write};

use super::state::State;
use super::tap::Taps;
use crate::driver::MainChannelError;
use crate::engine::pace::Paced;
use crate::error::{Error, Side};
use crate::transport::Watched;

/// Bytes that are moved at once.
pub(super) const CHUNK: usize = 64 << 10;

/// One direction of the main channel's connections.
#[derive(Debug)]
pub(super) struct Pipe {
    pub(super) from: End,
    pub(super) to: End,
    /// Bytes that have come, and that have gone.
    read: u64,
    written: u64,
}

/// One end of a pipe.
#[derive(Debug)]
pub(super) struct End {
    pub(super) stream: Watched,
    /// The same, to be written to.
    pub(super) paced: Paced<Watched, State>,
    pub(super) side: Side,
    pub(super) taps: Taps,
}

impl Pipe {
    pub(super) fn new(from: End, to: End) -> Self {
        Self { from, to, read: 0, written: 0 }
    }

    /// Takes note of bytes that have been read elsewhere.
    pub(super) fn came(&mut self, bytes: &[u8]) {
        self.read += bytes.len() as u64;
        self.from.taps.pass(bytes);
    }

    /// Reads what has come. Returns how many bytes; 0 at the end.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Result<usize, MainChannelError> {
        loop {
            match self.from.stream.read(buffer) {
                Ok(count) => {
                    self.came(&buffer[..count]);
                    return Ok(count);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(source) => return Err(self.unreadable(source)),
            }
        }
    }

    /// What it means that reading failed with `source`.
    pub(super) fn unreadable(&self, source: std::io::Error) -> MainChannelError {
        MainChannelError::Read { offset: self.read, source }
    }

    /// Passes `bytes` on.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let offset = self.written;
        let failed = |source| Error::from(MainChannelError::Write { offset, source });
        let stream = &mut self.to.paced;
        let written = stream.write_all(bytes).and_then(|()| stream.flush());
        written.map_err(failed).map_err(Error::on(self.to.side))?;
        self.to.taps.pass(bytes);
        self.written += bytes.len() as u64;
        Ok(())
    }

    /// What is wrong with what has come, or with how it came, as the error of its side.
    pub(super) fn blame(&self, error: impl Into<MainChannelError>) -> Error {
        Error::on(self.from.side)(Error::Main(error.into()))
    }
}
