//! A main channel's bytes from one side to the other.

use std::fmt;
use std::io::{self, Read, Write};

use super::tap::Taps;
use crate::error::{Error, Side};
use crate::net::Stream;
use crate::stream::{StreamError, StreamErrorKind};

/// Reads from one side; what it has read, it has written to the other, byte for byte, so that
/// whoever parses it holds nothing back.
#[derive(Clone, Debug)]
pub(super) struct Forward {
    pub(super) from: (Stream, Taps),
    pub(super) to: (Stream, Taps),
}

impl Forward {
    /// Writes what has come before.
    pub(super) fn pass(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.from.1.pass(bytes);
        self.to
            .0
            .write_all(bytes)
            .map_err(|error| io::Error::new(error.kind(), NotPassed(error)))?;
        self.to.1.pass(bytes);
        Ok(())
    }
}

impl Read for Forward {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.from.0.read(buffer)?;
        self.pass(&buffer[..count])?;
        Ok(count)
    }
}

/// The failure to write, among those to read.
#[derive(Debug)]
struct NotPassed(io::Error);

impl fmt::Display for NotPassed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for NotPassed {}

/// What a parser over a [`Forward`] found, as the error of the side that is read from or, where
/// it could not be written to, of the other.
pub(super) fn blame(error: StreamError, from: Side) -> Error {
    let StreamError { offset, kind } = error;
    let kind = match kind {
        StreamErrorKind::Read { what, error } => match error.downcast::<NotPassed>() {
            Ok(NotPassed(error)) => {
                let error = StreamError { offset, kind: StreamErrorKind::Write(error) };
                return Error::on(from.other())(error.into());
            }
            Err(error) => StreamErrorKind::Read { what, error },
        },
        kind => kind,
    };
    Error::on(from)(StreamError { offset, kind }.into())
}
