//! The one end of a migration: its threads, what they wait for, its first error and its sockets.

use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::task::{Context, Poll, Wake as TaskWake, Waker};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, eventfd};

use super::cancel::{Cancel, CancelToken};
use super::threads::Threads;
use super::watch::{Timer, Watch};
use crate::error::Error;
use crate::transport::{Connection, WeakConnection};

/// The state `T` of a migration, with which its threads wait for each other.
///
/// The first error stops everything: it is kept, every registered socket is shut down, every wait
/// and every future that is run ends. What fails after it is a consequence and is dropped. So
/// threads and waits say only that the migration has [`Stopped`]; why is known here alone.
#[derive(Debug)]
pub(crate) struct Session<T> {
    inner: Mutex<Inner<T>>,
    /// Set while `inner` is locked, before anybody is woken.
    stopped: AtomicBool,
    main: Condvar,
    senders: Condvar,
    receivers: Condvar,
    limited: Condvar,
    threads: Mutex<Vec<JoinHandle<()>>>,
    setup: Threads,
    /// That of whoever set the migration up: its threads log in it.
    span: tracing::Span,
    watch: Arc<Watch>,
    time_limit: Option<Duration>,
    /// Runs while that does.
    timer: Mutex<Option<Timer>>,
    /// Can be read from when the migration has stopped, for what waits in the system.
    stop_event: OwnedFd,
}

/// What a program asks of a migration beside the migration itself.
#[derive(Clone, Debug)]
pub(crate) struct Terms {
    pub(crate) threads: Threads,
    /// How long nothing may move while the peer is waited for.
    pub(crate) progress_timeout: Option<Duration>,
    /// How long all of it may take.
    pub(crate) time_limit: Option<Duration>,
    pub(crate) cancelled_by: Option<CancelToken>,
}

impl Default for Terms {
    fn default() -> Self {
        let progress_timeout = Some(Duration::from_secs(120));
        Self { threads: Threads::new(), progress_timeout, time_limit: None, cancelled_by: None }
    }
}

#[derive(Debug)]
struct Inner<T> {
    state: T,
    /// The migration has succeeded: whatever fails now fails it no more.
    succeeded: bool,
    failure: Option<Error>,
    connections: Vec<(WeakConnection, Shutdown)>,
    /// Threads that sleep until a future goes on.
    parked: Vec<Thread>,
}

/// The migration has failed, was cancelled or is over; the session holds the reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stopped;

/// Why a part of a migration was not done.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The migration has stopped meanwhile.
    Stopped,
    /// The part itself failed, and the migration is to stop.
    Error(Error),
}

/// A thread that waits: one of the migration's own, of the sending or of the receiving channels.
/// They wait apart, since there may be 255 channels and a change for every packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waiter {
    Main,
    Sender,
    Receiver,
    /// A thread that holds bytes back: nothing but time and the end of the migration wakes it.
    Limit,
}

/// How long a wait may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Limit {
    /// As long as it takes.
    None,
    Until(Instant),
    /// As long as something moves.
    Progress,
    /// The same, of a wait for room at the peer.
    Room,
}

/// The waiters that a change of the state affects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wake {
    Nobody,
    Main,
    /// Any one of the sending channels.
    OneSender,
    Senders,
    Receivers,
    /// All that queue pages: the main thread and the receiving channels.
    Feeders,
}

impl<T: Send + 'static> Session<T> {
    /// A migration with its watch, a thread of its own until the [end](Self::end).
    ///
    /// # Errors
    /// Where the system refuses an event or a thread.
    pub(crate) fn new(state: T, terms: &Terms) -> Result<Arc<Self>, Error> {
        let stop_event = eventfd(0, EventfdFlags::CLOEXEC)
            .map_err(|errno| Error::system("creating an event")(errno.into()))?;
        let session = Arc::new(Self {
            inner: Mutex::new(Inner {
                state,
                succeeded: false,
                failure: None,
                connections: Vec::new(),
                parked: Vec::new(),
            }),
            stopped: AtomicBool::new(false),
            main: Condvar::new(),
            senders: Condvar::new(),
            receivers: Condvar::new(),
            limited: Condvar::new(),
            threads: Mutex::default(),
            setup: terms.threads.clone(),
            span: tracing::Span::current(),
            watch: Watch::new(terms.progress_timeout),
            time_limit: terms.time_limit,
            timer: Mutex::default(),
            stop_event,
        });
        let watch = |session: &Self| {
            session.watch.run(|error| _ = session.fail(error));
            Ok(())
        };
        session.spawn("watch", watch)?;
        if let Some(token) = &terms.cancelled_by {
            token.attach(&session);
        }
        Ok(session)
    }

    /// Changes the state and wakes the affected waiters.
    pub(crate) fn update<R>(
        &self,
        wake: Wake,
        change: impl FnOnce(&mut T) -> R,
    ) -> Result<R, Stopped> {
        let mut inner = self.lock();
        self.check()?;
        let result = change(&mut inner.state);
        drop(inner);
        self.wake(wake);
        Ok(result)
    }

    /// Changes the state, whether the migration has stopped or not: for what is true however it
    /// ends. Nobody is woken.
    pub(crate) fn note<R>(&self, change: impl FnOnce(&mut T) -> R) -> R {
        change(&mut self.lock().state)
    }

    /// Looks at the state, whether the migration has stopped or not.
    pub(crate) fn look<R>(&self, look: impl FnOnce(&T) -> R) -> R {
        look(&self.lock().state)
    }

    /// Says whether the migration goes on.
    pub(crate) fn check(&self) -> Result<(), Stopped> {
        if self.stopped.load(Ordering::Acquire) { Err(Stopped) } else { Ok(()) }
    }

    /// Waits, for `what`, until `ready` gives something. Who is affected by what `ready` has
    /// changed is for the caller to [`wake`](Self::wake). The main thread waits for the peer: that
    /// nothing moves meanwhile has its limit.
    pub(crate) fn wait<R>(
        &self,
        waiter: Waiter,
        what: &'static str,
        ready: impl FnMut(&mut T) -> Option<R>,
    ) -> Result<R, Stopped> {
        // Without a deadline a wait ends only with a result.
        self.wait_until(waiter, what, Limit::Progress, ready)?.ok_or(Stopped)
    }

    /// As [`wait`](Self::wait), for room at the peer: a main channel that has ended says nothing of that.
    pub(crate) fn wait_for_room<R>(
        &self,
        waiter: Waiter,
        what: &'static str,
        ready: impl FnMut(&mut T) -> Option<R>,
    ) -> Result<R, Stopped> {
        self.wait_until(waiter, what, Limit::Room, ready)?.ok_or(Stopped)
    }

    /// As [`wait`](Self::wait), for what may take any time: only a stop ends it.
    pub(crate) fn wait_patiently<R>(
        &self,
        waiter: Waiter,
        what: &'static str,
        ready: impl FnMut(&mut T) -> Option<R>,
    ) -> Result<R, Stopped> {
        self.wait_until(waiter, what, Limit::None, ready)?.ok_or(Stopped)
    }

    /// As [`wait`](Self::wait), for `limit` at most; `None` when that is over.
    pub(crate) fn wait_for<R>(
        &self,
        waiter: Waiter,
        what: &'static str,
        limit: Duration,
        ready: impl FnMut(&mut T) -> Option<R>,
    ) -> Result<Option<R>, Stopped> {
        // A limit past the end of time is no limit.
        let deadline = Instant::now().checked_add(limit);
        self.wait_until(waiter, what, deadline.map_or(Limit::None, Limit::Until), ready)
    }

    fn wait_until<R>(
        &self,
        waiter: Waiter,
        what: &'static str,
        limit: Limit,
        mut ready: impl FnMut(&mut T) -> Option<R>,
    ) -> Result<Option<R>, Stopped> {
        let changed = self.condvar(waiter);
        let mut awaiting = None;
        let mut inner = self.lock();
        loop {
            self.check()?;
            if let Some(result) = ready(&mut inner.state) {
                return Ok(Some(result));
            }
            tracing::trace!(?waiter, what, "waiting");
            if let Limit::Until(deadline) = limit {
                let Some(left) = deadline.checked_duration_since(Instant::now()) else {
                    tracing::debug!(?waiter, what, "waited in vain");
                    return Ok(None);
                };
                let waited = changed.wait_timeout(inner, left);
                inner = waited.unwrap_or_else(PoisonError::into_inner).0;
                continue;
            }
            if waiter == Waiter::Main && awaiting.is_none() {
                awaiting = match limit {
                    Limit::Progress => Some(self.watch.awaiting(what)),
                    Limit::Room => Some(self.watch.awaiting_room(what)),
                    Limit::None | Limit::Until(_) => None,
                };
            }
            inner = changed.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn condvar(&self, waiter: Waiter) -> &Condvar {
        match waiter {
            Waiter::Main => &self.main,
            Waiter::Sender => &self.senders,
            Waiter::Receiver => &self.receivers,
            Waiter::Limit => &self.limited,
        }
    }

    pub(crate) fn wake(&self, affected: Wake) {
        #[cfg(debug_assertions)]
        super::jitter::delay();
        match affected {
            Wake::Nobody => {}
            Wake::Main => self.main.notify_all(),
            Wake::OneSender => self.senders.notify_one(),
            Wake::Senders => self.senders.notify_all(),
            Wake::Receivers => self.receivers.notify_all(),
            Wake::Feeders => {
                self.main.notify_all();
                self.receivers.notify_all();
            }
        }
    }

    /// Runs `future` on this thread, which sleeps while it is pending. When the migration stops,
    /// the future is dropped where it is.
    pub(crate) fn run<F: Future>(&self, future: F) -> Result<F::Output, Stopped> {
        let mut future = pin!(future);
        WAKER.with(|waker| {
            let (unpark, waker) = waker;
            let mut context = Context::from_waker(waker);
            if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
                return Ok(output);
            }
            let _parked = Parked::new(self);
            loop {
                self.check()?;
                // A future that parks in its own poll may have taken the wake-up.
                if !unpark.woken.swap(false, Ordering::AcqRel) {
                    std::thread::park();
                    continue;
                }
                if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
                    return Ok(output);
                }
            }
        })
    }

    /// Has `connection` shut down when the migration stops: now, if it has. Its bytes are progress.
    pub(crate) fn register(&self, connection: &Connection, how: Shutdown) {
        self.watch_progress(connection);
        self.shut_down_at_end(connection, how);
    }

    /// Has the bytes of `connection` count as progress.
    pub(crate) fn watch_progress(&self, connection: &Connection) {
        self.watch.add(connection);
    }

    /// Has `connection` shut down when the migration stops: now, if it has.
    pub(crate) fn shut_down_at_end(&self, connection: &Connection, how: Shutdown) {
        let mut inner = self.lock();
        inner.connections.retain(|(connection, _)| connection.upgrade().is_some());
        inner.connections.push((connection.downgrade(), how));
        let stopped = self.check().is_err();
        drop(inner);
        if stopped {
            connection.shut_down(how);
        }
    }

    /// Has `connection`, which is another's from now on, shut down at the end no more.
    pub(crate) fn let_go(&self, connection: &Connection) {
        let own = connection.downgrade();
        self.lock().connections.retain(|(other, _)| !other.is(&own));
    }

    /// The migration begins: its time runs.
    pub(crate) fn begin_time_limit(&self) {
        let timer = self.time_limit.map(|limit| self.watch.end_after(limit));
        *self.timer.lock().unwrap_or_else(PoisonError::into_inner) = timer;
    }

    /// A token that cancels this migration.
    pub(crate) fn cancel_token(self: &Arc<Self>) -> CancelToken {
        let token = CancelToken::new();
        token.attach(self);
        token
    }

    /// The time limits.
    pub(crate) fn watch(&self) -> &Arc<Watch> {
        &self.watch
    }

    /// Can be read from when the migration has stopped.
    pub(crate) fn stop_event(&self) -> BorrowedFd<'_> {
        self.stop_event.as_fd()
    }

    /// Stops the migration with `error`, unless it has stopped or succeeded already.
    pub(crate) fn fail(&self, error: Error) -> Stopped {
        let mut inner = self.lock();
        if inner.succeeded {
            tracing::warn!(%error, "after the migration has succeeded");
        } else if self.check().is_ok() {
            tracing::debug!(%error, "the migration stops");
            inner.failure = Some(error);
            self.stop(inner);
        }
        Stopped
    }

    /// Stops the migration where a part of it has failed.
    pub(crate) fn settle<R>(&self, result: Result<R, Failure>) -> Result<R, Stopped> {
        result.map_err(|failure| match failure {
            Failure::Stopped => Stopped,
            Failure::Error(error) => self.fail(error),
        })
    }

    /// The migration has succeeded, unless it has stopped before: nothing fails it any more.
    pub(crate) fn succeed(&self) -> Result<(), Stopped> {
        let mut inner = self.lock();
        self.check()?;
        inner.succeeded = true;
        Ok(())
    }

    /// Ends a migration that is complete, or that nobody waits for any more, and waits for its
    /// threads. Later failures, of channels that see their sockets close, say nothing.
    pub(crate) fn end(&self) {
        self.stop(self.lock());
        self.watch.end();
        self.join();
    }

    fn stop(&self, mut inner: MutexGuard<'_, Inner<T>>) {
        self.stopped.store(true, Ordering::Release);
        let connections = std::mem::take(&mut inner.connections);
        inner.parked.iter().for_each(Thread::unpark);
        drop(inner);
        // What waits in the system hears of it by this alone.
        let set = || rustix::io::write(&self.stop_event, &1_u64.to_ne_bytes());
        if let Err(error) = set().or_else(|_| set()) {
            tracing::warn!(%error, "what waits in the system cannot be stopped");
        }
        // Before anything of the caller's is called, which may take its time.
        self.wake(Wake::Feeders);
        self.wake(Wake::Senders);
        self.limited.notify_all();
        // Not while it is locked, for the same reason.
        for (connection, how) in connections {
            if let Some(connection) = connection.upgrade() {
                connection.shut_down(how);
            }
        }
    }

    /// Ends the migration and says why it has stopped: the first error.
    pub(crate) fn reason(&self) -> Error {
        self.end();
        self.lock().failure.take().unwrap_or(Error::Over)
    }

    /// Runs `body` in a thread of this migration, for `role`. The migration stops if it panics. Returns
    /// when what the thread does first is done: whether that fails must not depend on who is faster.
    pub(crate) fn spawn(
        self: &Arc<Self>,
        role: &str,
        body: impl FnOnce(&Self) -> Result<(), Stopped> + Send + 'static,
    ) -> Result<(), Error> {
        let session = Arc::clone(self);
        let name = self.setup.name(role);
        let own_name = name.clone();
        let (say_begun, begun) = mpsc::sync_channel(1);
        let run = move || {
            let _counted = session.setup.count();
            let _in_its_span = session.span.enter();
            let first = session.setup.begin(&own_name);
            let failed = first.is_err();
            _ = say_begun.send(first);
            if failed {
                return;
            }
            // That the migration has stopped is known here.
            _ = catch_unwind(AssertUnwindSafe(|| body(&session)))
                .unwrap_or_else(|_| Err(session.fail(Error::Panicked)));
        };
        let thread = std::thread::Builder::new().name(name).spawn(run);
        let thread = thread.map_err(Error::system("starting a thread"))?;
        // Not left to chance whether the migration is over by then.
        if let Err(error) = begun.recv().unwrap_or(Err(Error::Panicked)) {
            join(thread);
            return Err(error);
        }
        let mut threads = self.threads();
        // A thread that is over holds its stack until it is joined.
        let (over, running) = threads.drain(..).partition::<Vec<_>, _>(JoinHandle::is_finished);
        threads.extend(running);
        threads.push(thread);
        drop(threads);
        over.into_iter().for_each(join);
        Ok(())
    }

    /// Waits for all threads of the migration, which must be about to end.
    pub(crate) fn join(&self) {
        loop {
            // Not locked while it waits: the thread may start another.
            let Some(thread) = self.threads().pop() else { return };
            join(thread);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner<T>> {
        #[cfg(debug_assertions)]
        super::jitter::delay();
        // A thread that panics fails the migration; the state stays usable.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn threads(&self) -> MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn join(thread: JoinHandle<()>) {
    // It has caught its panic.
    _ = thread.join();
}

thread_local! {
    /// Wakes this thread. One for all futures that it runs: none is made for each packet.
    static WAKER: (Arc<Unpark>, Waker) = {
        let unpark =
            Arc::new(Unpark { thread: std::thread::current(), woken: AtomicBool::new(false) });
        (Arc::clone(&unpark), Waker::from(unpark))
    };
}

struct Unpark {
    thread: Thread,
    woken: AtomicBool,
}

impl TaskWake for Unpark {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.store(true, Ordering::Release);
        self.thread.unpark();
    }
}

/// This thread, among those that are woken when the migration stops.
struct Parked<'a, T>(&'a Session<T>);

impl<'a, T: Send + 'static> Parked<'a, T> {
    fn new(session: &'a Session<T>) -> Self {
        session.lock().parked.push(std::thread::current());
        Self(session)
    }
}

impl<T> Drop for Parked<'_, T> {
    fn drop(&mut self) {
        let this = std::thread::current().id();
        let mut inner = self.0.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.parked.retain(|thread| thread.id() != this);
    }
}

impl Failure {
    /// Changes the error, if it is one.
    pub(crate) fn map(self, change: impl FnOnce(Error) -> Error) -> Self {
        match self {
            Self::Stopped => Self::Stopped,
            Self::Error(error) => Self::Error(change(error)),
        }
    }
}

impl From<Stopped> for Failure {
    fn from(_: Stopped) -> Self {
        Self::Stopped
    }
}

impl<E: Into<Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Error(error.into())
    }
}

impl<T: Send + 'static> Cancel for Session<T> {
    fn cancel(&self) {
        self.fail(Error::Cancelled);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHAT: &str = "a test";

    /// A session that is ended at its end, with its watch.
    struct Ended<T: Send + 'static>(Arc<Session<T>>);

    impl<T: Send + 'static> std::ops::Deref for Ended<T> {
        type Target = Arc<Session<T>>;

        fn deref(&self) -> &Arc<Session<T>> {
            &self.0
        }
    }

    impl<T: Send + 'static> Drop for Ended<T> {
        fn drop(&mut self) {
            self.0.end();
        }
    }

    fn session<T: Send + 'static>(state: T) -> Ended<T> {
        session_on(state, &Terms::default())
    }

    fn session_on<T: Send + 'static>(state: T, terms: &Terms) -> Ended<T> {
        Ended(Session::new(state, terms).unwrap())
    }

    #[test]
    fn the_first_error_wins_and_ends_every_wait() {
        for waiter in [Waiter::Main, Waiter::Sender, Waiter::Receiver, Waiter::Limit] {
            let session = session(0);
            std::thread::scope(|scope| {
                let waiting =
                    scope.spawn(|| session.wait(waiter, WHAT, |&mut n| (n > 0).then_some(())));
                session.fail(Error::Cancelled);
                session.fail(Error::SecondMain);
                assert_eq!(waiting.join().unwrap(), Err(Stopped));
            });
            assert_eq!(session.update(Wake::Nobody, |n| *n), Err(Stopped));
            assert!(matches!(session.reason(), Error::Cancelled));
        }
    }

    #[test]
    fn a_migration_that_failed_before_is_not_said_to_be_cancelled() {
        let session = session(());
        session.fail(Error::SecondMain);
        assert!(matches!(session.reason(), Error::SecondMain));
        assert!(matches!(session.reason(), Error::Over));
    }

    #[test]
    fn nothing_fails_a_migration_that_has_succeeded() {
        let session = session(0);
        session.succeed().unwrap();
        session.fail(Error::Cancelled);
        assert_eq!(session.update(Wake::Nobody, |n| *n), Ok(0));
        assert_eq!(session.check(), Ok(()));
    }

    #[test]
    fn a_limit_past_the_end_of_time_is_no_limit() {
        let session = session(());
        let waited = session.wait_for(Waiter::Main, WHAT, Duration::MAX, |()| Some(1));
        assert_eq!(waited, Ok(Some(1)));
    }

    #[test]
    fn a_wait_with_a_limit_ends() {
        let session = session(());
        let limit = Duration::from_millis(1);
        assert_eq!(session.wait_for::<()>(Waiter::Main, WHAT, limit, |()| None), Ok(None));
    }

    #[test]
    fn only_the_main_thread_is_limited_and_only_where_it_waits_for_the_peer() {
        let limit = Duration::from_millis(20);
        let terms = Terms { progress_timeout: Some(limit), ..Terms::default() };
        let waits: [(Waiter, bool, Wake); 3] = [
            (Waiter::Main, true, Wake::Main),
            (Waiter::Receiver, false, Wake::Receivers),
            (Waiter::Sender, false, Wake::Senders),
        ];
        for (waiter, patiently, wake) in waits {
            let session = session_on(false, &terms);
            std::thread::scope(|scope| {
                let waiting = scope.spawn(|| {
                    let ready = |done: &mut bool| done.then_some(());
                    if patiently {
                        session.wait_patiently(waiter, WHAT, ready)
                    } else {
                        session.wait(waiter, WHAT, ready)
                    }
                });
                std::thread::sleep(10 * limit);
                _ = session.update(wake, |done| *done = true);
                assert_eq!(waiting.join().unwrap(), Ok(()), "{waiter:?}");
            });
        }
        let session = session_on(false, &terms);
        assert_eq!(session.wait::<()>(Waiter::Main, WHAT, |_| None), Err(Stopped));
        assert!(matches!(session.reason(), Error::Stalled { waiting_for: WHAT, .. }));
    }

    #[test]
    fn a_socket_registered_after_the_end_is_shut_down_at_once() {
        use std::io::Read;
        let session = session(());
        session.end();
        let (left, mut right) = std::os::unix::net::UnixStream::pair().unwrap();
        let left = Connection::from_socket(left).unwrap();
        session.register(&left, Shutdown::Both);
        assert_eq!(right.read(&mut [0]).unwrap(), 0);
    }

    #[test]
    fn a_stream_that_panics_when_it_is_shut_down_holds_nobody_up() {
        use std::io::Read;
        let session = session(());
        let panics = |_| -> std::io::Result<()> { panic!("on purpose") };
        let given = Connection::from_stream(std::io::empty(), std::io::sink(), panics);
        let (left, mut right) = std::os::unix::net::UnixStream::pair().unwrap();
        let left = Connection::from_socket(left).unwrap();
        session.register(&given, Shutdown::Both);
        session.register(&left, Shutdown::Both);
        std::thread::scope(|scope| {
            let waiting =
                scope.spawn(|| session.wait_patiently::<()>(Waiter::Receiver, WHAT, |()| None));
            session.fail(Error::Cancelled);
            assert_eq!(waiting.join().unwrap(), Err(Stopped));
        });
        assert_eq!(right.read(&mut [0]).unwrap(), 0);
        assert!(matches!(session.reason(), Error::Cancelled));
    }

    #[test]
    fn a_future_is_run_until_it_is_ready_whoever_wakes_it() {
        let session = session(());
        let mut polls = 0;
        let output = session.run(std::future::poll_fn(|context| {
            polls += 1;
            let waker = context.waker().clone();
            match polls {
                1 => waker.wake(),
                2 => drop(std::thread::spawn(move || waker.wake())),
                _ => return Poll::Ready(7),
            }
            Poll::Pending
        }));
        assert_eq!(output, Ok(7));
        assert!(session.lock().parked.is_empty());
    }

    #[test]
    fn a_future_that_is_pending_is_not_polled_before_it_is_woken() {
        let session = session(());
        let woken = Arc::new(AtomicBool::new(false));
        let mut polls = 0;
        let output = session.run(std::future::poll_fn(|context| {
            polls += 1;
            if polls > 1 {
                return Poll::Ready(woken.load(Ordering::Acquire));
            }
            let (waker, woken) = (context.waker().clone(), Arc::clone(&woken));
            std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(50));
                woken.store(true, Ordering::Release);
                waker.wake();
            });
            Poll::Pending
        }));
        assert_eq!(output, Ok(true));
    }

    #[test]
    fn a_future_that_hangs_is_dropped_when_the_migration_stops() {
        struct SaysDropped(mpsc::Sender<()>);
        impl Drop for SaysDropped {
            fn drop(&mut self) {
                _ = self.0.send(());
            }
        }
        let session = session(());
        let ((polled, was_polled), (dropped, was_dropped)) = (mpsc::channel(), mpsc::channel());
        let hang = move |session: &Session<()>| {
            let held = SaysDropped(dropped);
            session.run(async move {
                let _held = held;
                _ = polled.send(());
                std::future::pending::<()>().await;
            })
        };
        session.spawn("hanging", hang).unwrap();
        was_polled.recv().unwrap();
        session.fail(Error::Cancelled);
        was_dropped.recv_timeout(Duration::from_secs(10)).unwrap();
        // And one that is run only now.
        assert_eq!(session.run(std::future::pending::<()>()), Err(Stopped));
    }

    #[test]
    fn the_end_waits_for_threads_that_are_still_busy() {
        let session = session(());
        let left = Arc::new(AtomicBool::new(false));
        let leaves = Arc::clone(&left);
        let busy = move |session: &Session<()>| {
            _ = session.wait_patiently::<()>(Waiter::Receiver, WHAT, |()| None);
            std::thread::sleep(Duration::from_millis(50));
            leaves.store(true, Ordering::Release);
            Ok(())
        };
        session.spawn("busy", busy).unwrap();
        session.end();
        assert!(left.load(Ordering::Acquire));
    }

    #[test]
    fn a_panic_stops_the_migration() {
        let session = session(());
        session.spawn("panicking", |_| panic!("on purpose")).unwrap();
        let waited = session.wait_patiently::<()>(Waiter::Main, WHAT, |()| None);
        assert_eq!(waited, Err(Stopped));
        assert!(matches!(session.reason(), Error::Panicked));
    }
}
