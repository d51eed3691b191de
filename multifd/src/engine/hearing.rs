//! Listening to what the destination says on the return path.

use std::io::{self, Read};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::session::{Failure, Session};
use crate::error::Error;
use crate::transport::Connection;

/// Bytes that are read at once: a message has few, and they come one at a time.
const BUFFER: usize = 4096;

/// The most that a destination may have said by the time that it is heard: a message has 8 bytes, and a
/// request for pages up to 268.
const MOST: usize = 1 << 20;

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
        S: Send + 'static,
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
        S: Send + 'static,
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
        S: Send + 'static,
        H: Hears<S>,
    {
        let mut path = self.path();
        let (mut buffer, mut heard) = ([0; BUFFER], 0);
        while !path.over {
            let Some(read) = self.connection.read_now(&mut buffer).transpose() else {
                return Ok(More::Later);
            };
            heard += read.as_ref().map_or(0, |&count| count);
            // Whoever talks without end is not to keep this side from its work.
            if heard > MOST {
                return Ok(session.settle(Err(Error::TooManyAnswers.into()))?);
            }
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
        S: Send + 'static,
        H: Hears<S>,
    {
        let heard = match read {
            Ok(count) => self.hears.hear(session, &buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(More::Later),
            Err(error) => Err(self.hears.failed(session, error).into()),
        };
        // While the path is locked: the other thread must not go on as if nothing had been said.
        let more = session.settle(heard)?;
        self.over = more == More::Never;
        Ok(more)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::io::Write;
    use std::os::unix::net::UnixStream;
    use std::sync::Arc;

    use super::*;
    use crate::engine::session::Terms;

    /// Takes what is heard, to the end or to the word `over`.
    #[derive(Debug, Default)]
    struct Words(Vec<u8>);

    impl Hears<()> for Words {
        fn hear(&mut self, _: &Session<()>, bytes: &[u8]) -> Result<More, Failure> {
            self.0.extend(bytes);
            let is_over = bytes.is_empty() || self.0.ends_with(b"over");
            Ok(if is_over { More::Never } else { More::Later })
        }

        fn failed(&self, _: &Session<()>, error: io::Error) -> Error {
            Error::Unconfirmed(error)
        }
    }

    fn session() -> Arc<Session<()>> {
        Session::new((), &Terms::default()).unwrap()
    }

    /// Reads that give these results, and then the end.
    struct Reads(VecDeque<io::Result<&'static [u8]>>);

    impl Read for Reads {
        fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
            let bytes = self.0.pop_front().unwrap_or(Ok(b""))?;
            room[..bytes.len()].copy_from_slice(bytes);
            Ok(bytes.len())
        }
    }

    /// Listens to a stream of the caller's own. Returns what was heard and how it ended.
    fn listened<const N: usize>(
        reads: [io::Result<&'static [u8]>; N],
    ) -> (Vec<u8>, Result<(), Error>) {
        let reads = Reads(reads.into());
        let connection = Connection::from_stream(reads, io::sink(), |_| Ok(()));
        let (session, hearing) = (session(), Hearing::new(&connection, Words::default()));
        // The session has the reason.
        let ended = hearing.listen(&session).map_err(|_| session.reason());
        session.end();
        (hearing.with(|words| std::mem::take(&mut words.0)), ended)
    }

    #[test]
    fn a_read_that_is_interrupted_is_made_again_and_one_that_fails_is_an_error() {
        let interrupted = || Err(io::ErrorKind::Interrupted.into());
        let (heard, ended) = listened([Ok(b"he"), interrupted(), Ok(b"ard"), interrupted()]);
        assert!(heard == b"heard" && ended.is_ok(), "{ended:?}");
        let (heard, ended) =
            listened([Ok(b"heard"), Err(io::ErrorKind::ConnectionReset.into()), Ok(b"more")]);
        assert_eq!(heard, b"heard");
        assert!(matches!(ended, Err(Error::Unconfirmed(_))), "{ended:?}");
    }

    #[test]
    fn nothing_is_heard_after_the_last_word() {
        let (heard, ended) = listened([Ok(b"and "), Ok(b"over"), Ok(b"more")]);
        assert!(heard == b"and over" && ended.is_ok(), "{ended:?}");

        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let connection = Connection::from_socket(ours).unwrap();
        let (session, hearing) = (session(), Hearing::new(&connection, Words::default()));
        theirs.write_all(b"over").unwrap();
        assert_eq!(hearing.hear(&session).unwrap(), More::Never);
        theirs.write_all(b"more").unwrap();
        assert_eq!(hearing.hear(&session).unwrap(), More::Never);
        hearing.listen(&session).unwrap();
        assert_eq!(hearing.with(|words| words.0.clone()), b"over");
        session.end();
    }

    #[test]
    fn what_has_been_said_by_now_is_heard_without_waiting_and_the_rest_by_listening() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let connection = Connection::from_socket(ours).unwrap();
        let (session, hearing) = (session(), Hearing::new(&connection, Words::default()));
        assert_eq!(hearing.hear(&session).unwrap(), More::Later);
        theirs.write_all(&[b'x'; 3 * BUFFER]).unwrap();
        assert_eq!(hearing.hear(&session).unwrap(), More::Later);
        assert_eq!(hearing.with(|words| words.0.len()), 3 * BUFFER);
        std::thread::scope(|scope| {
            let listening = scope.spawn(|| hearing.listen(&session));
            theirs.write_all(b"over").unwrap();
            listening.join().unwrap().unwrap();
        });
        assert!(hearing.with(|words| words.0.ends_with(b"xover")));
        session.end();
    }
}
