//! A main channel's bytes from one side to the other.

use std::fmt;
use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::tap::Taps;
use crate::driver::MainChannelError;
use crate::error::{Error, Side};
use crate::net::Stream;

/// Reads from one side; what it has read, it has written to the other, byte for byte, so that
/// whoever parses it holds nothing back.
#[derive(Clone, Debug)]
pub(super) struct Forward {
    pub(super) from: (Stream, Taps),
    pub(super) to: (Stream, Taps),
    /// What is held back for now; `None` where nothing is to be.
    pub(super) held: Arc<Mutex<Option<Vec<u8>>>>,
}

impl Forward {
    /// Passes on what has come.
    pub(super) fn pass(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.from.1.pass(bytes);
        if let Some(held) = &mut *self.held() {
            held.extend_from_slice(bytes);
            return Ok(());
        }
        self.write(bytes)
    }

    /// Holds back what comes from now on, in memory.
    pub(super) fn hold_back(&self) {
        *self.held() = Some(Vec::new());
    }

    /// Passes on what was held back, and what comes from now on at once.
    pub(super) fn release(&mut self) -> io::Result<()> {
        let held = self.held().take();
        self.write(&held.unwrap_or_default())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.to
            .0
            .write_all(bytes)
            .map_err(|error| io::Error::new(error.kind(), NotPassed(error)))?;
        self.to.1.pass(bytes);
        Ok(())
    }

    fn held(&self) -> MutexGuard<'_, Option<Vec<u8>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
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
pub(super) fn blame(error: MainChannelError, from: Side) -> Error {
    let error = match error {
        MainChannelError::Read { offset, source } => match source.downcast::<NotPassed>() {
            Ok(NotPassed(source)) => {
                let error = MainChannelError::Write { offset, source };
                return Error::on(from.other())(error.into());
            }
            Err(source) => MainChannelError::Read { offset, source },
        },
        error => error,
    };
    Error::on(from)(error.into())
}
