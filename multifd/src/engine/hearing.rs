//! Listening to what the destination says on the return path.

use std::io::{self, Read};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::session::{Failure, Session};
use crate::error::Error;
use crate::transport::Connection;

/// Bytes that are read at once: a message has few, and they come one at a time.
const BUFFER: usize = 4096;

/// The return path, which a thread listens to, and which the main thread hears to its present end
/// before it says that everything is sent: so that a confirmation that came before is too early,
/// whichever thread runs first. Where the connection is not a socket, the present end is what the
/// thread has read by then.
#[derive(Debug)]
pub(crate) struct Hearing<H> {
    connection: Connection,
    path: Mutex<Path<H>>,
}

#[derive(Debug)]
struct Path<H> {
    hears: H,
    /// Nothing more is heard.
    over: bool,
}

/// What becomes of what is heard. `S` is the state of the migration.
pub(crate) trait Hears<S> {
    /// Takes what the destination has said, none at the end of the return path.
    fn hear(&mut self, session: &Session<S>, bytes: &[u8]) -> Result<More, Failure>;

    /// The error of a return path that cannot be read.
    fn failed(&self, session: &Session<S>, error: io::Error) -> Error;
}

/// Whether there is more to hear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum More {
    Later,
    Never,
}

impl<H> Hearing<H> {
    pub(crate) fn new(connection: &Connection, hears: H) -> Self {
        let path = Mutex::new(Path { hears, over: false });
        Self { connection: connection.clone(), path }
    }

    /// Hears what the destination says, to the end.
    pub(crate) fn listen<S>(&self, session: &Session<S>) -> Result<(), Failure>
    where
        H: Hears<S>,
    {
        if !self.connection.can_poll() {
            return self.listen_blocking(session);
        }
        while self.hear(session)? == More::Later {
            let waited = self.connection.wait_readable();
            waited.map_err(Error::system("waiting for the destination's answer"))?;
        }
        Ok(())
    }

    fn listen_blocking<S>(&self, session: &Session<S>) -> Result<(), Failure>
    where
        H: Hears<S>,
    {
        let mut connection = self.connection.clone();
        let mut buffer = [0; BUFFER];
        loop {
            let read = connection.read(&mut buffer);
            if self.path().take(session, read, &buffer)? == More::Never {
                return Ok(());
            }
        }
    }

    /// Hears what the destination has said by now.
    pub(crate) fn hear<S>(&self, session: &Session<S>) -> Result<More, Failure>
    where
        H: Hears<S>,
    {
        let mut path = self.path();
        let mut buffer = [0; BUFFER];
        while !path.over {
            let Some(read) = self.connection.read_now(&mut buffer).transpose() else {
                return Ok(More::Later);
            };
            path.take(session, read, &buffer)?;
        }
        Ok(More::Never)
    }

    /// What has become of what was heard.
    pub(crate) fn with<R>(&self, look: impl FnOnce(&mut H) -> R) -> R {
        look(&mut self.path().hears)
    }

    fn path(&self) -> MutexGuard<'_, Path<H>> {
        self.path.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<H> Path<H> {
    fn take<S>(
        &mut self,
        session: &Session<S>,
        read: io::Result<usize>,
        buffer: &[u8],
    ) -> Result<More, Failure>
    where
        H: Hears<S>,
    {
        let bytes = match read {
            Ok(count) => &buffer[..count],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(More::Later),
            Err(error) => return Err(self.hears.failed(session, error).into()),
        };
        let more = self.hears.hear(session, bytes)?;
        self.over = more == More::Never;
        Ok(more)
    }
}
