//! What a service knows of its migrations, for whoever watches it.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::thread::Thread;
use std::time::{Duration, Instant};

use super::clock;
use super::events::{Event, Events, Over};
use super::live::Live;
use super::migration::{About, Ended, How, Migration};
use super::view::{Results, Totals, View};

/// How often running migrations are looked at, which says how exact their rounds are.
const OFTEN: Duration = Duration::from_millis(50);

/// How often is looked for refused connections while nothing runs, and how often they are told at most.
const SELDOM: Duration = Duration::from_secs(1);

/// The most migrations that are kept after their end.
const KEPT: usize = 64;

/// How many connections were refused in all, by reason.
type Refusals = Vec<(String, u64)>;

/// What a service knows of its migrations: those that run, the last that have ended, and the sums of all. Clones share it.
///
/// A thread looks at the running ones twenty times a second, and every other page about them looks, too;
/// it changes nothing of them. See [`Rounds`](super::rounds::Rounds) for how exact rounds are.
#[derive(Clone)]
pub(crate) struct Board(Arc<Shared>);

struct Shared {
    what: &'static str,
    began: f64,
    refused: Box<dyn Fn() -> Refusals + Send + Sync>,
    events: Events,
    state: Mutex<State>,
    watcher: OnceLock<Thread>,
}

#[derive(Default)]
struct State {
    begun: u64,
    limit: Option<usize>,
    stopping: bool,
    running: BTreeMap<u64, Live>,
    ended: VecDeque<Migration>,
    results: Results,
    /// Of those that have ended.
    totals: Totals,
    /// The refusals that events have told, and when they did last.
    told: BTreeMap<String, u64>,
    told_at: Option<Instant>,
}

/// Whether a service takes migrations.
#[derive(Clone, Copy, Debug)]
pub(super) struct Health {
    pub(super) running: usize,
    /// As many run as may at once.
    pub(super) is_full: bool,
    pub(super) stopping: bool,
}

/// A migration on a [`Board`]. One that is dropped without [`end`](Self::end) has failed.
#[derive(Debug)]
pub(crate) struct Running {
    board: Board,
    id: u64,
}

impl Board {
    /// A board of a service that is `what`: relay or recv. `refused` says how many connections were
    /// refused, by reason; the counts must never fall, and it must not use the board.
    pub(crate) fn new(
        what: &'static str,
        events: Events,
        refused: impl Fn() -> Refusals + Send + Sync + 'static,
    ) -> Self {
        let shared = Arc::new(Shared {
            what,
            began: clock::unix_seconds(),
            refused: Box::new(refused),
            events,
            state: Mutex::default(),
            watcher: OnceLock::new(),
        });
        let weak = Arc::downgrade(&shared);
        let thread = std::thread::Builder::new().name("watch".to_owned());
        // Without it, rounds are those of whoever asks.
        if let Ok(thread) = thread.spawn(move || watch(&weak)) {
            _ = shared.watcher.set(thread.thread().clone());
        }
        Self(shared)
    }

    /// Says how many migrations may run at once.
    pub(crate) fn set_limit(&self, limit: usize) {
        self.lock().limit = Some(limit);
    }

    /// Puts a migration on the board that begins now.
    pub(crate) fn begin(&self, about: About) -> Running {
        let mut state = self.lock();
        state.begun += 1;
        let id = state.begun;
        let live = Live::new(id, about);
        let About { from_codec, to_codec, .. } = &live.about;
        let (who, from_codec, to_codec) = (live.who.clone(), from_codec.clone(), to_codec.clone());
        let to_codec = to_codec.as_deref();
        let began = Event::Began { who: &who, from_codec: &from_codec, to_codec };
        // Under the lock, so that no event of the migration comes before it.
        self.0.events.say(&began);
        state.running.insert(id, live);
        drop(state);
        self.0.events.audit(&began, false);
        if let Some(watcher) = self.0.watcher.get() {
            watcher.unpark();
        }
        Running { board: self.clone(), id }
    }

    /// From now on, no new migrations are taken.
    pub(crate) fn set_stopping(&self) {
        let mut state = self.lock();
        if !std::mem::replace(&mut state.stopping, true) {
            self.0.events.say(&Event::Stopping { running: state.running.len() });
        }
    }

    /// The service has stopped: this is the last event. Waits until events are written.
    pub(crate) fn stopped(&self) {
        let refused = self.look();
        let mut state = self.lock();
        state.tell(&refused, &self.0.events, Duration::ZERO);
        let [done, failed, unclear, cancelled] = state.results;
        drop(state);
        self.0.events.say(&Event::Stopped { done, failed, unclear, cancelled });
        self.0.events.finish();
    }

    /// How many migrations run, and whether new ones are taken; as much as a probe asks for.
    pub(super) fn health(&self) -> Health {
        let state = self.lock();
        let running = state.running.len();
        let is_full = state.limit.is_some_and(|limit| running >= limit);
        Health { running, is_full, stopping: state.stopping }
    }

    /// Everything, at one moment.
    pub(super) fn view(&self) -> View {
        let refused = (self.0.refused)();
        let mut state = self.lock();
        state.tell(&refused, &self.0.events, SELDOM);
        let State { running, totals, .. } = &mut *state;
        let mut totals = totals.clone();
        let running = running.values_mut();
        let running: Vec<_> = running.map(|live| live.shown(&self.0.events, &mut totals)).collect();
        View {
            service: self.0.what,
            since: self.0.began,
            stopping: state.stopping,
            limit: state.limit,
            results: state.results,
            totals,
            refused,
            lost: self.0.events.lost(),
            running,
            ended: state.ended.iter().rev().cloned().collect(),
        }
    }

    /// Looks at the running migrations and at what was refused, and has events say what is new.
    fn look(&self) -> Refusals {
        let refused = (self.0.refused)();
        let mut state = self.lock();
        for live in state.running.values_mut() {
            live.look(&self.0.events);
        }
        state.tell(&refused, &self.0.events, SELDOM);
        refused
    }

    fn end(&self, id: u64, ended: Ended) {
        let mut state = self.lock();
        let Some(mut live) = state.running.remove(&id) else { return };
        let how = ended.how;
        let migration = live.end(ended, &self.0.events, &mut state.totals);
        state.results[how.index()] += 1;
        let event = Event::Ended(Over::new(&migration));
        self.0.events.say(&event);
        state.ended.push_back(migration.clone());
        if state.ended.len() > KEPT {
            state.ended.pop_front();
        }
        drop(state);
        self.0.events.audit(&event, true);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Counts of a migration whose counters panic are as good as before.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Running {
    /// The migration's number, by which events and pages name it.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// The migration has ended. Returns when that is in the audit file, on its disk.
    pub(crate) fn end(self, ended: Ended) {
        self.board.end(self.id, ended);
        // Dropped now, it is no longer there.
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let why = match std::thread::panicking() {
            true => "the program panicked",
            false => "the program gave it up and did not say why",
        };
        // Nothing happens where it has ended.
        self.board
            .end(self.id, Ended { how: How::Failed, why: Some(why.to_owned()), stored: None });
    }
}

impl State {
    /// Has events tell what was refused, if none has within the time `since`: strangers decide how often that is.
    fn tell(&mut self, refused: &Refusals, events: &Events, since: Duration) {
        if self.told_at.is_some_and(|at| at.elapsed() < since) {
            return;
        }
        for (reason, total) in refused {
            let told = self.told.entry(reason.clone()).or_default();
            if *total > *told {
                let connections = *total - *told;
                events.say(&Event::Refused { reason, connections, total: *total });
                *told = *total;
                self.told_at = Some(Instant::now());
            }
        }
    }
}

/// Looks at a board regularly, until it is gone.
fn watch(board: &Weak<Shared>) {
    while let Some(shared) = board.upgrade() {
        let board = Board(shared);
        board.look();
        let idle = board.lock().running.is_empty();
        drop(board);
        std::thread::park_timeout(if idle { SELDOM } else { OFTEN });
    }
}

impl fmt::Debug for Board {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Board").field("what", &self.0.what).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
