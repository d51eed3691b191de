//! The time limits of a migration: on a peer that is waited for while nothing moves, and on
//! connections that have a time to do something.

use std::net::Shutdown;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::transport::{Connection, WeakConnection};

/// How often is looked for bytes that have moved, as a part of the limit, and in absolute terms.
const LOOKS: u32 = 8;
const SELDOM: Duration = Duration::from_secs(1);
const OFTEN: Duration = Duration::from_millis(5);

/// What is waited for, and which connections have how long. A thread runs it.
#[derive(Debug)]
pub(crate) struct Watch {
    inner: Mutex<Inner>,
    changed: Condvar,
    /// Time without progress.
    limit: Option<Duration>,
    began: Instant,
}

#[derive(Debug)]
struct Inner {
    ended: bool,
    /// Connections whose bytes are progress.
    connections: Vec<WeakConnection>,
    /// What is done at a time.
    timed: Vec<Timed>,
    /// The latest of them.
    last_timed: u64,
    /// What the main thread waits for from the peer.
    awaited: Option<Awaited>,
    /// How often it has begun to wait.
    turn: u64,
    /// The main channel, and how long nothing may move when it has ended, where that is shorter.
    main: Option<(WeakConnection, Option<Duration>)>,
    hurry: Hurry,
    peer: String,
    patience: Patience,
}

/// Why the source is known to have stopped, if nothing more comes of the main channel for so long.
#[derive(Clone, Copy, Debug, Default)]
struct Hurry {
    /// When it has had a channel refused, and for how long it may be silent from then on.
    refused: Option<(Duration, Duration)>,
    /// When it has ended a channel.
    ended: Option<(Duration, Duration)>,
    /// It has opened a return path, and waits there. Any other has closed when it is silent.
    listens: bool,
    /// All pages have been sent: whatever its channels do says nothing.
    never: bool,
}

impl Hurry {
    fn grace(&self) -> Option<Duration> {
        let (_, grace) = self.refused.or(self.ended).filter(|_| self.listens && !self.never)?;
        Some(grace)
    }

    /// Whether it has been silent for too long, where nothing has moved for `idle`.
    fn is_over(&self, now: Duration, idle: Duration) -> bool {
        let over = |since: Option<(Duration, Duration)>| {
            since.is_some_and(|(from, grace)| idle.min(now.saturating_sub(from)) >= grace)
        };
        self.listens && !self.never && (over(self.refused) || over(self.ended))
    }
}

/// What is waited for.
#[derive(Clone, Copy, Debug)]
enum Awaited {
    /// More of the main channel of a source.
    Main,
    /// Something of the peer's, which does not come where that is gone.
    Peer(&'static str),
    /// Room at the peer, which a main channel that has ended has nothing to do with.
    Room(&'static str),
}

/// Something that is done at a time.
#[derive(Debug)]
struct Timed {
    number: u64,
    at: Instant,
    what: What,
}

#[derive(Debug)]
enum What {
    ShutDown(WeakConnection, Shutdown),
    Cancel,
    /// The time for all of the migration is over.
    End(Duration),
}

/// Decides when nothing has moved for too long. Times count from any one moment.
#[derive(Clone, Copy, Debug, Default)]
struct Patience {
    since: Duration,
    turn: u64,
    moved: u64,
}

/// What is seen in a look.
#[derive(Clone, Copy, Debug)]
struct Look {
    now: Duration,
    /// How often has been begun to wait; none where nothing is waited for.
    turn: Option<u64>,
    /// A number that changes when bytes move.
    moved: u64,
}

impl Patience {
    /// How long nothing has moved that was waited for.
    fn look(&mut self, look: Look) -> Duration {
        let waiting = look.turn == Some(self.turn) && look.moved == self.moved;
        if !waiting {
            let turn = look.turn.unwrap_or_default();
            *self = Self { since: look.now, turn, moved: look.moved };
        }
        look.now.saturating_sub(self.since)
    }
}

impl Watch {
    pub(super) fn new(limit: Option<Duration>) -> Arc<Self> {
        let inner = Inner {
            ended: false,
            connections: Vec::new(),
            timed: Vec::new(),
            last_timed: 0,
            awaited: None,
            turn: 0,
            main: None,
            hurry: Hurry::default(),
            peer: String::new(),
            patience: Patience::default(),
        };
        Arc::new(Self {
            inner: Mutex::new(inner),
            changed: Condvar::new(),
            limit,
            began: Instant::now(),
        })
    }

    /// Has the bytes of `connection` count as progress.
    pub(super) fn add(&self, connection: &Connection) {
        let pace = self.limit.map(pace);
        if let Err(error) = connection.set_pace(pace) {
            tracing::debug!(%error, "a connection that says its progress late");
        }
        let mut inner = self.lock();
        inner.connections.retain(|connection| connection.upgrade().is_some());
        inner.connections.push(connection.downgrade());
    }

    /// Says who the peer is: `who`, at the other end of `connection`.
    pub(crate) fn set_peer(&self, who: &str, connection: &Connection) {
        self.name_peer(match connection.peer() {
            Some(address) => format!("{who} at {address}"),
            None => who.to_owned(),
        });
    }

    /// Says who the peers are.
    pub(crate) fn name_peer(&self, peer: String) {
        self.lock().peer = peer;
    }

    /// Takes note of the main channel from a source. What is waited for in vain when that has ended is
    /// an error that says so, after `grace` where there is one: for a source with a return path, which
    /// closes only when it is done. Any other closes when it has sent everything.
    pub(crate) fn set_main(&self, main: &Connection, grace: Option<Duration>) {
        self.lock().main = Some((main.downgrade(), grace));
        self.changed.notify_all();
    }

    /// The source has ended a channel, and has failed if nothing more comes of the main channel for
    /// `grace`. Some sources keep that open then, and wait for an answer.
    pub(crate) fn has_ended_one(&self, grace: Duration) {
        let now = self.began.elapsed();
        self.lock().hurry.ended.get_or_insert((now, grace));
        self.changed.notify_all();
    }

    /// As [`has_ended_one`](Self::has_ended_one), where a channel was refused, which may be the source's.
    pub(crate) fn has_refused_one(&self, grace: Duration) {
        let now = self.began.elapsed();
        self.lock().hurry.refused.get_or_insert((now, grace));
        self.changed.notify_all();
    }

    /// The source has opened a return path: it keeps the main channel open until it is done.
    pub(crate) fn listens(&self) {
        self.lock().hurry.listens = true;
        self.changed.notify_all();
    }

    /// All channels are there: what was refused is not the source's.
    pub(crate) fn has_all(&self) {
        self.lock().hurry.refused = None;
    }

    /// All pages have been sent: a source may end its channels.
    pub(crate) fn calm(&self) {
        self.lock().hurry.never = true;
    }

    /// As [`awaiting`](Self::awaiting), for more of the main channel.
    pub(crate) fn awaiting_main(self: &Arc<Self>) -> Awaiting {
        self.awaits(Awaited::Main)
    }

    /// Counts the time that the main thread waits for `what` from the peer, as long as the guard
    /// lives. For the main thread alone.
    pub(crate) fn awaiting(self: &Arc<Self>, what: &'static str) -> Awaiting {
        self.awaits(Awaited::Peer(what))
    }

    /// As [`awaiting`](Self::awaiting), for room for `what` at the peer.
    pub(crate) fn awaiting_room(self: &Arc<Self>, what: &'static str) -> Awaiting {
        self.awaits(Awaited::Room(what))
    }

    fn awaits(self: &Arc<Self>, what: Awaited) -> Awaiting {
        let mut inner = self.lock();
        inner.turn += 1;
        inner.awaited = Some(what);
        Awaiting(Arc::clone(self))
    }

    /// Shuts `connection` down when `limit` is over, unless the guard is dropped before.
    pub(crate) fn cut_off(
        self: &Arc<Self>,
        connection: &Connection,
        limit: Duration,
        how: Shutdown,
    ) -> Timer {
        self.after(limit, What::ShutDown(connection.downgrade(), how))
    }

    /// Cancels the migration when `limit` is over, unless the guard is dropped before.
    pub(crate) fn cancel_after(self: &Arc<Self>, limit: Duration) -> Timer {
        self.after(limit, What::Cancel)
    }

    /// Fails the migration when `limit` is over, unless the guard is dropped before.
    pub(crate) fn end_after(self: &Arc<Self>, limit: Duration) -> Timer {
        self.after(limit, What::End(limit))
    }

    fn after(self: &Arc<Self>, limit: Duration, what: What) -> Timer {
        let mut inner = self.lock();
        inner.last_timed += 1;
        let number = inner.last_timed;
        // A limit past the end of time is no limit.
        let at = Instant::now().checked_add(limit);
        if let Some(at) = at {
            inner.timed.push(Timed { number, at, what });
            self.changed.notify_all();
        }
        Timer { watch: Arc::clone(self), number: at.map(|_| number) }
    }

    /// Watches until the migration has ended. What is waited for in vain is said to `fail`.
    pub(super) fn run(&self, fail: impl Fn(Error)) {
        let mut inner = self.lock();
        while !inner.ended {
            let now = Instant::now();
            let due = inner.take_due(now);
            let failed = inner.look(now.duration_since(self.began), self.limit);
            if failed.is_some() || !due.is_empty() {
                drop(inner);
                // Not while it is locked: what is called is the caller's.
                due.iter().for_each(|due| due.carry_out(&fail));
                failed.into_iter().for_each(&fail);
                inner = self.lock();
                continue;
            }
            inner = match inner.next(now, self.limit) {
                Some(pause) => {
                    let waited = self.changed.wait_timeout(inner, pause);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.changed.wait(inner).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    /// Ends [`run`](Self::run).
    pub(super) fn end(&self) {
        self.lock().ended = true;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A look at least so often.
fn pace(limit: Duration) -> Duration {
    (limit / LOOKS).clamp(OFTEN, SELDOM)
}

/// A time that was looked at now and then: in whole seconds, where it has any.
fn whole(idle: Duration) -> Duration {
    if idle < Duration::from_secs(1) { idle } else { Duration::from_secs(idle.as_secs()) }
}

fn over_of(idle: Duration, limit: Option<Duration>) -> bool {
    limit.is_some_and(|limit| idle >= limit)
}

impl Inner {
    fn take_due(&mut self, now: Instant) -> Vec<Timed> {
        let (due, later) = self.timed.drain(..).partition(|timed| timed.at <= now);
        self.timed = later;
        due
    }

    /// Looks whether anything has moved. An error where that is too long ago.
    fn look(&mut self, now: Duration, limit: Option<Duration>) -> Option<Error> {
        let moved = self.connections.iter().filter_map(WeakConnection::upgrade);
        let moved = moved.map(|connection| connection.moved()).fold(0, u64::wrapping_add);
        let turn = self.awaited.map(|_| self.turn);
        let idle = self.patience.look(Look { now, turn, moved });
        let (waiting_for, for_room, for_main) = match self.awaited? {
            Awaited::Main => ("more of the main channel", false, true),
            Awaited::Peer(what) => (what, false, false),
            Awaited::Room(what) => (what, true, false),
        };
        let stopped = for_main && self.hurry.is_over(now, idle);
        let over = |limit| over_of(idle, limit);
        let main_ended = |(main, grace): &(WeakConnection, Option<Duration>)| {
            (over(*grace) || over(limit)) && main.upgrade().is_some_and(|main| main.has_left())
        };
        let error = if !for_room && self.main.as_ref().is_some_and(main_ended) {
            Error::MainEnded { waiting_for }
        } else if stopped {
            Error::SourceStopped { idle: whole(idle) }
        } else if over(limit) {
            let (peer, idle) = (self.peer.clone(), whole(idle));
            Error::Stalled { waiting_for, channels: Vec::new(), peer, idle }
        } else {
            return None;
        };
        // It is said once.
        self.awaited = None;
        Some(error)
    }

    /// How long until the next look.
    fn next(&self, now: Instant, limit: Option<Duration>) -> Option<Duration> {
        let timed = self.timed.iter().map(|timed| timed.at.saturating_duration_since(now)).min();
        let grace = self.main.as_ref().and_then(|(_, grace)| *grace);
        [timed, limit.map(pace), grace.map(pace), self.hurry.grace().map(pace)]
            .into_iter()
            .flatten()
            .min()
    }
}

impl Timed {
    fn carry_out(&self, fail: impl Fn(Error)) {
        match &self.what {
            What::ShutDown(connection, how) => {
                if let Some(connection) = connection.upgrade() {
                    tracing::debug!(?connection, "has had its time");
                    connection.shut_down(*how);
                }
            }
            What::Cancel => fail(Error::Cancelled),
            What::End(limit) => fail(Error::TimeIsOver { limit: *limit }),
        }
    }
}

/// The peer is waited for as long as this lives.
#[derive(Debug)]
pub(crate) struct Awaiting(Arc<Watch>);

impl Drop for Awaiting {
    fn drop(&mut self) {
        self.0.lock().awaited = None;
    }
}

/// Something is done when a time is over, unless this is dropped before.
#[derive(Debug)]
pub(crate) struct Timer {
    watch: Arc<Watch>,
    /// `None` where it never is.
    number: Option<u64>,
}

impl Timer {
    /// Stops the timer. Returns whether the time was over before: then it is done, or about to be.
    pub(crate) fn stop(&mut self) -> bool {
        let Some(number) = self.number.take() else { return false };
        let mut inner = self.watch.lock();
        let before = inner.timed.len();
        inner.timed.retain(|timed| timed.number != number);
        inner.timed.len() == before
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.stop();
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn look(patience: &mut Patience, seconds: u32, turn: Option<u64>, moved: u64) -> u64 {
        patience.look(Look { now: SECOND * seconds, turn, moved }).as_secs()
    }

    #[test]
    fn time_counts_only_while_something_is_waited_for_and_nothing_moves() {
        let mut patience = Patience::default();
        // Nothing is waited for.
        assert_eq!(look(&mut patience, 10, None, 0), 0);
        assert_eq!(look(&mut patience, 20, None, 0), 0);
        // It is, and nothing moves.
        assert_eq!(look(&mut patience, 21, Some(1), 0), 0);
        assert_eq!(look(&mut patience, 24, Some(1), 0), 3);
        // A byte.
        assert_eq!(look(&mut patience, 25, Some(1), 1), 0);
        assert_eq!(look(&mut patience, 26, Some(1), 1), 1);
        // Something else is waited for: what was waited for before has come.
        assert_eq!(look(&mut patience, 29, Some(2), 1), 0);
        assert_eq!(look(&mut patience, 30, Some(2), 1), 1);
        // A connection that ends takes its bytes with it.
        assert_eq!(look(&mut patience, 31, Some(2), 0), 0);
        // The caller takes its time.
        assert_eq!(look(&mut patience, 99, None, 0), 0);
        assert_eq!(look(&mut patience, 100, Some(3), 0), 0);
    }

    /// What a watch says that looks after so many seconds.
    fn look_after(watch: &Watch, seconds: u32) -> Option<Error> {
        watch.lock().look(SECOND * seconds, watch.limit)
    }

    /// A connection and the other end of it.
    fn pair() -> (Connection, UnixStream) {
        let (left, right) = UnixStream::pair().unwrap();
        (Connection::from_socket(left).unwrap(), right)
    }

    #[test]
    fn bytes_of_any_connection_are_progress_and_so_is_the_next_wait() {
        use std::io::Write;

        let ((first, _first_peer), (second, _second_peer)) = (pair(), pair());
        let watch = Watch::new(Some(10 * SECOND));
        watch.add(&first);
        watch.add(&second);
        let awaiting = watch.awaiting("a word");
        assert!(look_after(&watch, 0).is_none() && look_after(&watch, 9).is_none());
        first.clone().write_all(b"x").unwrap();
        assert!(look_after(&watch, 11).is_none() && look_after(&watch, 20).is_none());
        second.clone().write_all(b"x").unwrap();
        assert!(look_after(&watch, 22).is_none() && look_after(&watch, 31).is_none());
        // It has come, and something else is waited for without a look in between.
        drop(awaiting);
        let awaiting = watch.awaiting("another");
        assert!(look_after(&watch, 33).is_none() && look_after(&watch, 42).is_none());
        // Nothing is.
        drop(awaiting);
        assert!(look_after(&watch, 99).is_none());
        let _awaiting = watch.awaiting("the last");
        assert!(look_after(&watch, 100).is_none());
        let stalled = look_after(&watch, 110);
        assert!(
            matches!(stalled, Some(Error::Stalled { idle, .. }) if idle == SECOND * 10),
            "{stalled:?}"
        );
        assert!(look_after(&watch, 200).is_none(), "it is said once");
    }

    #[test]
    fn an_ended_main_channel_is_said_after_the_grace_or_the_limit_and_not_before() {
        // The grace, the limit, and when it is said.
        for (grace, limit, at) in [
            (Some(3), Some(10), 3),
            (Some(3), None, 3),
            (Some(10), Some(3), 3),
            (None, Some(10), 10),
        ] {
            let (main, peer) = pair();
            let watch = Watch::new(limit.map(|limit| limit * SECOND));
            watch.set_main(&main, grace.map(|grace| grace * SECOND));
            let _awaiting = watch.awaiting("a sync");
            drop(peer);
            assert!(look_after(&watch, 0).is_none() && look_after(&watch, at - 1).is_none());
            let said = look_after(&watch, at);
            assert!(matches!(said, Some(Error::MainEnded { waiting_for: "a sync" })), "{said:?}");
        }
    }

    #[test]
    fn a_main_channel_that_is_there_has_the_limit_and_not_the_grace() {
        let (main, _peer) = pair();
        let watch = Watch::new(Some(10 * SECOND));
        watch.set_main(&main, Some(3 * SECOND));
        let _awaiting = watch.awaiting("a sync");
        assert!(look_after(&watch, 0).is_none() && look_after(&watch, 9).is_none());
        assert!(matches!(look_after(&watch, 10), Some(Error::Stalled { .. })));
    }

    #[test]
    fn a_peer_is_said_with_its_address() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let stream = std::net::TcpStream::connect(address).unwrap();
        let watch = Watch::new(Some(SECOND));
        watch.set_peer("the destination", &Connection::from_socket(stream).unwrap());
        let _awaiting = watch.awaiting("a word");
        assert!(look_after(&watch, 0).is_none());
        let said = look_after(&watch, 1).unwrap().to_string();
        assert!(said.contains(&format!("the destination at {address}")), "{said}");
    }

    #[test]
    fn it_is_looked_eight_times_within_a_limit_but_neither_all_the_time_nor_hardly_ever() {
        for (limit, expected) in [(800, 100), (8, 5), (80_000, 1000)] {
            assert_eq!(pace(Duration::from_millis(limit)), Duration::from_millis(expected));
        }
    }

    #[test]
    fn the_watch_sleeps_until_the_first_of_its_timers_and_looks_and_for_ever_without() {
        let (main, _peer) = pair();
        let (watch, now) = (Watch::new(None), Instant::now());
        let next = |limit| watch.lock().next(now, limit);
        assert_eq!(next(None), None);
        let _later = watch.cut_off(&main, 7200 * SECOND, Shutdown::Both);
        let _limit = watch.cut_off(&main, 3600 * SECOND, Shutdown::Both);
        let timer = next(None).unwrap();
        assert!((3600 * SECOND..7200 * SECOND).contains(&timer), "{timer:?}");
        assert_eq!(next(Some(8 * SECOND)), Some(SECOND));
        watch.set_main(&main, Some(4 * SECOND));
        assert_eq!(next(Some(8 * SECOND)), Some(SECOND / 2));
        assert_eq!(next(Some(2 * SECOND)), Some(SECOND / 4));
    }

    /// Runs a watch of `limit` until it fails.
    fn fails(watch: &Arc<Watch>) -> Error {
        let (said, error) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(|| watch.run(|error| said.send(error).unwrap()));
            let error = error.recv_timeout(60 * SECOND).unwrap();
            watch.end();
            error
        })
    }

    #[test]
    fn a_wait_in_vain_is_said_with_what_was_waited_for_and_from_whom() {
        let watch = Watch::new(Some(Duration::from_millis(50)));
        watch.name_peer("the source".to_owned());
        let _awaiting = watch.awaiting("a word");
        let error = fails(&watch).to_string();
        assert!(error.contains("the source") && error.contains("a word"), "{error}");
    }

    #[test]
    fn an_ended_main_channel_is_said_even_without_another_limit() {
        let (main, right) = pair();
        let watch = Watch::new(None);
        watch.set_main(&main, Some(Duration::from_millis(50)));
        let _awaiting = watch.awaiting("a sync");
        drop(right);
        assert!(matches!(fails(&watch), Error::MainEnded { waiting_for: "a sync" }));
    }

    #[test]
    fn a_source_that_had_a_channel_refused_or_ended_has_stopped_if_no_more_of_the_main_channel_comes()
     {
        let grace = Duration::from_millis(50);
        for hurry in [Watch::has_refused_one, Watch::has_ended_one] {
            let watch = Watch::new(None);
            watch.listens();
            hurry(&watch, grace);
            let _awaiting = watch.awaiting_main();
            assert!(matches!(fails(&watch), Error::SourceStopped { .. }));
        }
        // Not where something else is waited for, where all have come, and where all pages have; and not of
        // one that waits for no answer: it may be gone, and what it has sent be on its way.
        let limit = Some(Duration::from_millis(200));
        let stalls = |watch: &Arc<Watch>| matches!(fails(watch), Error::Stalled { .. });
        let watch = Watch::new(limit);
        watch.has_ended_one(grace);
        let awaiting = watch.awaiting_main();
        assert!(stalls(&watch));
        drop(awaiting);
        let watch = Watch::new(limit);
        watch.listens();
        watch.has_ended_one(grace);
        let awaiting = watch.awaiting("a sync");
        assert!(stalls(&watch));
        drop(awaiting);
        let watch = Watch::new(limit);
        watch.listens();
        watch.has_refused_one(grace);
        watch.has_all();
        let awaiting = watch.awaiting_main();
        assert!(stalls(&watch));
        drop(awaiting);
        let watch = Watch::new(limit);
        watch.listens();
        watch.calm();
        watch.has_ended_one(grace);
        let _awaiting = watch.awaiting_main();
        assert!(stalls(&watch));
    }

    #[test]
    fn room_that_is_waited_for_in_vain_is_not_put_down_to_an_ended_main_channel() {
        let (main, right) = pair();
        drop(right);
        let watch = Watch::new(Some(Duration::from_millis(50)));
        watch.set_main(&main, Some(Duration::ZERO));
        let _awaiting = watch.awaiting_room("room");
        assert!(matches!(fails(&watch), Error::Stalled { waiting_for: "room", .. }));
    }

    #[test]
    fn a_stream_that_panics_when_it_is_cut_off_does_not_end_the_watch() {
        let panics = |_| -> std::io::Result<()> { panic!("on purpose") };
        let given = Connection::from_stream(std::io::empty(), std::io::sink(), panics);
        let watch = Watch::new(Some(Duration::from_millis(50)));
        let _limit = watch.cut_off(&given, Duration::ZERO, Shutdown::Both);
        let _awaiting = watch.awaiting("a word");
        assert!(matches!(fails(&watch), Error::Stalled { .. }));
    }

    #[test]
    fn a_timer_says_whether_its_time_was_over_and_one_that_was_stopped_does_nothing() {
        let watch = Watch::new(None);
        for limit in [3600 * SECOND, Duration::MAX] {
            let mut stopped = watch.cancel_after(limit);
            assert!(!stopped.stop() && !stopped.stop());
        }
        let mut timer = watch.cancel_after(Duration::ZERO);
        assert!(matches!(fails(&watch), Error::Cancelled));
        assert!(timer.stop());
    }

    #[test]
    fn a_connection_is_cut_off_when_its_time_is_over_and_only_then() {
        let ((cut, mut cut_peer), (kept, kept_peer)) = (pair(), pair());
        let watch = Watch::new(None);
        std::thread::scope(|scope| {
            scope.spawn(|| watch.run(|error| panic!("{error}")));
            // Far away: the machine may be slow between it and the drop.
            let left_alone = watch.cut_off(&kept, 3600 * SECOND, Shutdown::Both);
            drop(watch.cut_off(&kept, 3600 * SECOND, Shutdown::Both));
            assert_eq!(watch.lock().timed.len(), 1);
            drop(left_alone);
            assert!(watch.lock().timed.is_empty());
            let _limit = watch.cut_off(&cut, Duration::from_millis(30), Shutdown::Both);
            assert_eq!(std::io::Read::read(&mut cut_peer, &mut [0]).unwrap(), 0);
            kept_peer.set_nonblocking(true).unwrap();
            std::io::Read::read(&mut &kept_peer, &mut [0]).unwrap_err();
            watch.end();
        });
    }
}
