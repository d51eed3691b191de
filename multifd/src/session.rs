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
#[derive(Debug)]
pub(crate) struct Session<T> {
    inner: Mutex<Inner<T>>,
    changed: Condvar,
}

#[derive(Debug)]
struct Inner<T> {
    state: T,
    stopped: bool,
    failure: Option<Error>,
    sockets: Vec<(Weak<Socket>, Shutdown)>,
}

/// The migration has failed or was cancelled; the session holds the reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stopped;

impl<T: fmt::Debug + Send + 'static> Session<T> {
    pub(crate) fn new(state: T) -> Arc<Self> {
        let inner = Inner { state, stopped: false, failure: None, sockets: Vec::new() };
        Arc::new(Self { inner: Mutex::new(inner), changed: Condvar::new() })
    }

    /// Changes the state and wakes whoever waits for it.
    pub(crate) fn update<R>(&self, change: impl FnOnce(&mut T) -> R) -> Result<R, Stopped> {
        let mut inner = self.lock();
        if inner.stopped {
            return Err(Stopped);
        }
        let result = change(&mut inner.state);
        drop(inner);
        self.changed.notify_all();
        Ok(result)
    }

    /// Looks at the state, whether the migration has stopped or not.
    pub(crate) fn look<R>(&self, look: impl FnOnce(&T) -> R) -> R {
        look(&self.lock().state)
    }

    /// Waits until `ready` gives something. What `ready` changes then wakes the others.
    pub(crate) fn wait<R>(&self, ready: impl FnMut(&mut T) -> Option<R>) -> Result<R, Stopped> {
        // Without a limit there is always something in the end.
        self.wait_until(None, ready)?.ok_or(Stopped)
    }

    /// As [`wait`](Self::wait), for `limit` at most; `None` when it is over.
    pub(crate) fn wait_for<R>(
        &self,
        limit: Duration,
        ready: impl FnMut(&mut T) -> Option<R>,
    ) -> Result<Option<R>, Stopped> {
        self.wait_until(Some(Instant::now() + limit), ready)
    }

    fn wait_until<R>(
        &self,
        deadline: Option<Instant>,
        mut ready: impl FnMut(&mut T) -> Option<R>,
    ) -> Result<Option<R>, Stopped> {
        let mut inner = self.lock();
        loop {
            if inner.stopped {
                return Err(Stopped);
            }
            if let Some(result) = ready(&mut inner.state) {
                drop(inner);
                self.changed.notify_all();
                return Ok(Some(result));
            }
            inner = match deadline.map(|deadline| deadline.checked_duration_since(Instant::now())) {
                Some(None) => return Ok(None),
                Some(Some(left)) => {
                    let waited = self.changed.wait_timeout(inner, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.changed.wait(inner).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    /// Has `socket` shut down when the migration stops: now, if it has.
    pub(crate) fn register(&self, socket: &Arc<Socket>, how: Shutdown) {
        let mut inner = self.lock();
        if inner.stopped {
            _ = socket.shutdown(how);
        }
        inner.sockets.push((Arc::downgrade(socket), how));
    }

    /// Stops the migration with `error`, unless it has stopped already.
    pub(crate) fn fail(&self, error: Error) -> Stopped {
        let mut inner = self.lock();
        if !inner.stopped {
            tracing::debug!(%error, "the migration stops");
            inner.failure = Some(error);
            inner.stop();
            drop(inner);
            self.changed.notify_all();
        }
        Stopped
    }

    /// Ends a migration that is complete, or that nobody waits for any more: later failures, of
    /// channels that see their sockets close, say nothing.
    pub(crate) fn end(&self) {
        self.lock().stop();
        self.changed.notify_all();
    }

    /// The first error.
    pub(crate) fn take_failure(&self) -> Option<Error> {
        self.lock().failure.take()
    }

    /// Runs `body` in a thread of this migration. What it fails with, a panic included, stops the
    /// migration, after `before_failing` has had a look at it.
    pub(crate) fn spawn<R: Send + 'static>(
        self: &Arc<Self>,
        name: String,
        body: impl FnOnce(&Self) -> Result<R, Error> + Send + 'static,
        before_failing: impl FnOnce(&Self, &Error) + Send + 'static,
    ) -> Result<JoinHandle<Option<R>>, Error> {
        let session = Arc::clone(self);
        let run = move || {
            let result = catch_unwind(AssertUnwindSafe(|| body(&session)));
            let result = result.unwrap_or_else(|_| Err(Error::Panicked));
            result
                .map_err(|error| {
                    before_failing(&session, &error);
                    session.fail(error)
                })
                .ok()
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
/// call that the token interrupts has returned.
#[derive(Clone)]
pub struct CancelToken(Arc<dyn Fn() + Send + Sync>);

impl CancelToken {
    pub(crate) fn new<T: fmt::Debug + Send + 'static>(session: &Arc<Session<T>>) -> Self {
        let session = Arc::clone(session);
        Self(Arc::new(move || {
            session.fail(Error::Cancelled);
        }))
    }

    /// Cancels the migration. It then fails with [`Error::Cancelled`], unless it is over or has
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
            let waiting = scope.spawn(|| session.wait(|&mut n| (n > 0).then_some(())));
            session.fail(Error::Cancelled);
            session.fail(Error::SecondMain);
            assert_eq!(waiting.join().unwrap(), Err(Stopped));
        });
        assert_eq!(session.update(|n| *n), Err(Stopped));
        assert!(matches!(session.take_failure(), Some(Error::Cancelled)));
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
