//! What the threads of one migration share: its state, its first error and its sockets.

use std::fmt;
use std::net::Shutdown;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use socket2::Socket;

use crate::error::Error;

/// The state `T` of a migration, with which its threads wait for each other.
///
/// The first error stops everything: it is kept, every registered socket is shut down, every wait
/// ends. What fails after it is a consequence and is dropped.
///
/// Who waits is either the main thread, which deals with the main channel, or the channels' threads;
/// a change says whom of them it concerns, since there may be 255 channels and a change for every
/// packet.
#[derive(Debug)]
pub(crate) struct Session<T> {
    inner: Mutex<Inner<T>>,
    main: Condvar,
    channels: Condvar,
}

/// Whom a change concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wake {
    Nobody,
    Main,
    /// Any one of the channels.
    OneChannel,
    Channels,
}

#[derive(Debug)]
struct Inner<T> {
    state: T,
    stopped: bool,
    /// The migration has succeeded: whatever fails now fails it no more.
    succeeded: bool,
    failure: Option<Error>,
    sockets: Vec<(Weak<Socket>, Shutdown)>,
}

/// The migration has failed or was cancelled; the session holds the reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stopped;

impl<T: fmt::Debug + Send + 'static> Session<T> {
    pub(crate) fn new(state: T) -> Arc<Self> {
        let inner =
            Inner { state, stopped: false, succeeded: false, failure: None, sockets: Vec::new() };
        let (main, channels) = (Condvar::new(), Condvar::new());
        Arc::new(Self { inner: Mutex::new(inner), main, channels })
    }

    /// Changes the state and wakes whom it concerns.
    pub(crate) fn update<R>(
        &self,
        wake: Wake,
        change: impl FnOnce(&mut T) -> R,
    ) -> Result<R, Stopped> {
        let mut inner = self.lock();
        if inner.stopped {
            return Err(Stopped);
        }
        let result = change(&mut inner.state);
        drop(inner);
        self.wake(wake);
        Ok(result)
    }

    /// Looks at the state, whether the migration has stopped or not.
    pub(crate) fn look<R>(&self, look: impl FnOnce(&T) -> R) -> R {
        look(&self.lock().state)
    }

    /// Has a channel's thread wait until `ready` gives something, whose change of the state wakes
    /// the main thread.
    pub(crate) fn wait_in_channel<R>(
        &self,
        ready: impl FnMut(&mut T) -> Option<R>,
    ) -> Result<R, Stopped> {
        let result = self.wait_on(&self.channels, None, ready)?.ok_or(Stopped)?;
        self.wake(Wake::Main);
        Ok(result)
    }

    /// Has the main thread wait until `ready` gives something, whose change of the state concerns
    /// `wake`.
    pub(crate) fn wait<R>(
        &self,
        wake: Wake,
        ready: impl FnMut(&mut T) -> Option<R>,
    ) -> Result<R, Stopped> {
        let result = self.wait_on(&self.main, None, ready)?.ok_or(Stopped)?;
        self.wake(wake);
        Ok(result)
    }

    /// Has the main thread, or another than a channel's, wait for `limit` at most; `None` when it
    /// is over.
    pub(crate) fn wait_for<R>(
        &self,
        limit: Duration,
        ready: impl FnMut(&mut T) -> Option<R>,
    ) -> Result<Option<R>, Stopped> {
        // A limit past the end of time is none.
        self.wait_on(&self.main, Instant::now().checked_add(limit), ready)
    }

    fn wait_on<R>(
        &self,
        changed: &Condvar,
        deadline: Option<Instant>,
        mut ready: impl FnMut(&mut T) -> Option<R>,
    ) -> Result<Option<R>, Stopped> {
        let mut inner = self.lock();
        loop {
            if inner.stopped {
                return Err(Stopped);
            }
            if let Some(result) = ready(&mut inner.state) {
                return Ok(Some(result));
            }
            inner = match deadline.map(|deadline| deadline.checked_duration_since(Instant::now())) {
                Some(None) => return Ok(None),
                Some(Some(left)) => {
                    let waited = changed.wait_timeout(inner, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => changed.wait(inner).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    fn wake(&self, whom: Wake) {
        match whom {
            Wake::Nobody => {}
            Wake::Main => self.main.notify_all(),
            Wake::OneChannel => self.channels.notify_one(),
            Wake::Channels => self.channels.notify_all(),
        }
    }

    fn wake_all(&self) {
        self.wake(Wake::Main);
        self.wake(Wake::Channels);
    }

    /// Has `socket` shut down when the migration stops: now, if it has.
    pub(crate) fn register(&self, socket: &Arc<Socket>, how: Shutdown) {
        let mut inner = self.lock();
        if inner.stopped {
            _ = socket.shutdown(how);
        }
        inner.sockets.retain(|(socket, _)| socket.strong_count() > 0);
        inner.sockets.push((Arc::downgrade(socket), how));
    }

    /// Stops the migration with `error`, unless it has stopped or succeeded already.
    pub(crate) fn fail(&self, error: Error) -> Stopped {
        let mut inner = self.lock();
        if inner.succeeded {
            tracing::warn!(%error, "after the migration has succeeded");
        } else if !inner.stopped {
            tracing::debug!(%error, "the migration stops");
            inner.failure = Some(error);
            inner.stop();
            drop(inner);
            self.wake_all();
        }
        Stopped
    }

    /// The migration has succeeded, unless it has stopped before: nothing fails it any more.
    pub(crate) fn succeed(&self) -> Result<(), Stopped> {
        let mut inner = self.lock();
        if inner.stopped {
            return Err(Stopped);
        }
        inner.succeeded = true;
        Ok(())
    }

    /// Ends a migration that is complete, or that nobody waits for any more: later failures, of
    /// channels that see their sockets close, say nothing.
    pub(crate) fn end(&self) {
        self.lock().stop();
        self.wake_all();
    }

    /// The first error.
    pub(crate) fn take_failure(&self) -> Option<Error> {
        self.lock().failure.take()
    }

    /// Runs `body` in a thread of this migration. What it fails with, a panic included, stops the
    /// migration.
    pub(crate) fn spawn<R: Send + 'static>(
        self: &Arc<Self>,
        name: String,
        body: impl FnOnce(&Self) -> Result<R, Error> + Send + 'static,
    ) -> Result<JoinHandle<Option<R>>, Error> {
        let session = Arc::clone(self);
        let run = move || {
            let result = catch_unwind(AssertUnwindSafe(|| body(&session)));
            let result = result.unwrap_or_else(|_| Err(Error::Panicked));
            result.map_err(|error| session.fail(error)).ok()
        };
        let thread = std::thread::Builder::new().name(name).spawn(run);
        thread.map_err(Error::system("starting a thread"))
    }

    fn lock(&self) -> MutexGuard<'_, Inner<T>> {
        // A thread that panics fails the migration; the state stays usable.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Inner<T> {
    fn stop(&mut self) {
        self.stopped = true;
        for (socket, how) in self.sockets.drain(..) {
            if let Some(socket) = socket.upgrade() {
                // Fails where the other side is gone already.
                _ = socket.shutdown(how);
            }
        }
    }
}

/// Cancels a migration, from any thread and at any time. Threads and sockets are gone when the
/// call that the token interrupts has returned. A token does not keep a migration alive.
#[derive(Clone)]
pub struct CancelToken(Arc<dyn Fn() + Send + Sync>);

impl CancelToken {
    pub(crate) fn new<T: fmt::Debug + Send + 'static>(session: &Arc<Session<T>>) -> Self {
        let session = Arc::downgrade(session);
        Self(Arc::new(move || {
            if let Some(session) = session.upgrade() {
                session.fail(Error::Cancelled);
            }
        }))
    }

    /// Cancels the migration. It then fails with [`Error::Cancelled`], unless it has succeeded or
    /// failed before.
    pub fn cancel(&self) {
        (self.0)();
    }
}

impl fmt::Debug for CancelToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CancelToken")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_error_wins_and_ends_every_wait() {
        let session = Session::new(0);
        std::thread::scope(|scope| {
            let waiting =
                scope.spawn(|| session.wait(Wake::Nobody, |&mut n| (n > 0).then_some(())));
            session.fail(Error::Cancelled);
            session.fail(Error::SecondMain);
            assert_eq!(waiting.join().unwrap(), Err(Stopped));
        });
        assert_eq!(session.update(Wake::Nobody, |n| *n), Err(Stopped));
        assert!(matches!(session.take_failure(), Some(Error::Cancelled)));
    }

    #[test]
    fn nothing_fails_a_migration_that_has_succeeded() {
        let session = Session::new(0);
        session.succeed().unwrap();
        session.fail(Error::Cancelled);
        assert_eq!(session.update(Wake::Nobody, |n| *n), Ok(0));
        assert!(session.take_failure().is_none());
    }

    #[test]
    fn a_limit_past_the_end_of_time_is_none() {
        let session = Session::new(());
        assert_eq!(session.wait_for(Duration::MAX, |()| Some(1)), Ok(Some(1)));
    }

    #[test]
    fn a_wait_with_a_limit_ends() {
        let session = Session::new(());
        assert_eq!(session.wait_for::<()>(Duration::from_millis(1), |()| None), Ok(None));
    }

    #[test]
    fn a_socket_registered_after_the_end_is_shut_down_at_once() {
        use std::io::Read;
        let session = Session::new(());
        session.end();
        let (left, mut right) = std::os::unix::net::UnixStream::pair().unwrap();
        let left = Arc::new(std::os::fd::OwnedFd::from(left).into());
        session.register(&left, Shutdown::Both);
        assert_eq!(right.read(&mut [0]).unwrap(), 0);
    }
}
