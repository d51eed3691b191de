//! Pre-copy as a policy: rounds until what is left fits the downtime, then the last one.
//!
//! ```text
//! round of all pages → round of those dirtied since → … → pause → last round, device state
//! ```
//!
//! A VMM gives a [`Guest`], which says what was dirtied and can be stopped, and a [`Policy`];
//! [`Precopy::run`] drives a [`Source`] by them. After each round it estimates how long sending the
//! rest would take: the pages left, each with the bytes that the last ones with data took on the
//! wire, at the bandwidth of the last rounds.

mod policy;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

pub use policy::{AtTimeout, Policy};
use policy::{Decider, Decision, Round};

use crate::engine::watch::Timer;
use crate::error::{Error, Unfinished};
use crate::page_set::PageSet;
use crate::progress::Stats;
use crate::source::Source;

/// Why a VMM could not do what [`Guest`] asks.
pub type GuestError = Box<dyn std::error::Error + Send + Sync>;

/// A running guest, as its VMM sees it.
///
/// Dirty tracking must be on before [`Precopy::run`] is called.
pub trait Guest {
    /// Adds to `pages` what was dirtied since the last call, and forgets it: whatever is written
    /// later is of the next call. With the guest paused, that is final.
    ///
    /// # Errors
    /// They end the migration.
    fn dirtied(&mut self, pages: &mut PageSet) -> Result<(), GuestError>;

    /// Stops the guest, and with it all else that writes its memory: device back ends, vhost, DMA.
    ///
    /// # Errors
    /// They end the migration. The guest must run then.
    fn pause(&mut self) -> Result<(), GuestError>;

    /// The state of the paused guest's devices, as [`Source::finish`] takes it.
    ///
    /// # Errors
    /// They end the migration.
    fn device_state(&mut self) -> Result<Option<Vec<u8>>, GuestError>;

    /// Slows the guest's vCPUs down by `percent`, 0 to 99, from what they do unthrottled. Called only
    /// where the policy has a [throttle](Policy::throttle), and by 0 where the guest stays.
    ///
    /// # Errors
    /// They end the migration.
    fn throttle(&mut self, percent: u8) -> Result<(), GuestError> {
        _ = percent;
        Ok(())
    }

    /// Called after each round.
    fn progress(&mut self, snapshot: &Snapshot) {
        _ = snapshot;
    }
}

/// How far a migration is, as of the end of its last round.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// Rounds that have been sent.
    pub rounds: u32,
    /// Guest memory that is left to be sent, in bytes.
    pub bytes_left: u64,
    /// Guest memory that was dirtied in the last round, in bytes a second.
    pub dirty_rate: f64,
    /// Bytes a second on the wire, in the last rounds.
    pub bandwidth: f64,
    /// How long it would take to send what is left.
    pub estimate: Duration,
    /// By how many percent the guest is slowed down.
    pub throttle: u8,
    /// Since the first round began.
    pub elapsed: Duration,
}

/// A guest that was not moved, and what it is to do.
///
/// Its text does not repeat its [`source`](std::error::Error::source): print the whole chain.
#[allow(clippy::exhaustive_enums, reason = "a VMM deals with each")]
#[derive(Debug)]
pub enum NotMoved {
    /// The guest is here and runs: it was never stopped.
    Running(Error),
    /// The guest is here and has been stopped: it is to be resumed.
    Paused(Error),
    /// The destination may have the guest: it stays stopped until somebody has looked there.
    Unclear(Error),
}

impl NotMoved {
    /// What ended the migration.
    pub fn error(&self) -> &Error {
        let (Self::Running(error) | Self::Paused(error) | Self::Unclear(error)) = self;
        error
    }
}

impl fmt::Display for NotMoved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Running(_) => "the migration failed; the guest runs on here",
            Self::Paused(_) => "the migration failed; the guest is to be resumed here",
            Self::Unclear(_) => {
                "it is not known whether the destination has the guest: look there before it is \
                 resumed here"
            }
        })
    }
}

impl std::error::Error for NotMoved {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(self.error())
    }
}

/// A guest's way to its destination.
#[derive(Clone, Debug, Default)]
pub struct Precopy {
    policy: Policy,
    snapshot: Arc<Mutex<Snapshot>>,
}

impl Precopy {
    /// A migration by `policy`.
    pub fn new(policy: Policy) -> Self {
        Self { policy, snapshot: Arc::default() }
    }

    /// How far it is. A clone can be asked from another thread while it runs.
    pub fn snapshot(&self) -> Snapshot {
        *self.snapshot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, snapshot: Snapshot) {
        *self.snapshot.lock().unwrap_or_else(PoisonError::into_inner) = snapshot;
    }

    /// Moves `guest` by `source`, which is connected and has sent nothing yet. The guest is the
    /// destination's then, and must not run here again.
    ///
    /// # Errors
    /// Whatever fails; [`NotMoved`] says whose the guest is and whether it runs. A throttle has been
    /// taken back by then.
    pub fn run(&self, source: Source, guest: &mut impl Guest) -> Result<Stats, NotMoved> {
        // What is there is of the migration before.
        self.note(Snapshot::default());
        let mut decider = Decider::new(self.policy.clone(), source.ram().page_size().bytes());
        let moved = self.send(source, guest, &mut decider);
        if moved.is_err() && decider.throttled() > 0 {
            if let Err(error) = guest.throttle(0) {
                tracing::warn!(%error, "the guest stays slowed down");
            }
        }
        moved
    }

    fn send(
        &self,
        mut source: Source,
        guest: &mut impl Guest,
        decider: &mut Decider,
    ) -> Result<Stats, NotMoved> {
        let sent = self.rounds(&mut source, guest, decider);
        let mut pages = sent.map_err(NotMoved::Running)?;
        guest.pause().map_err(|error| NotMoved::Running(Error::Guest(error)))?;
        let paused = |error| NotMoved::Paused(Error::Guest(error));
        // Only now is it final. What the last look took has not been sent yet.
        guest.dirtied(&mut pages).map_err(paused)?;
        let state = guest.device_state().map_err(paused)?;
        tracing::debug!(pages = pages.len(), "the last round");
        source.finish(&pages, state.as_deref()).map_err(|unfinished| match unfinished {
            Unfinished::Failed(error) => NotMoved::Paused(error),
            Unfinished::Unclear(error) => NotMoved::Unclear(error),
        })
    }

    /// Sends rounds until the guest is to be stopped, for no longer than the policy waits before it
    /// gives up. Returns what is left.
    fn rounds(
        &self,
        source: &mut Source,
        guest: &mut impl Guest,
        decider: &mut Decider,
    ) -> Result<PageSet, Error> {
        let limit = self.policy.cancel_after();
        let mut timer = limit.map(|limit| source.cancel_after(limit));
        let sent = self.send_rounds(source, guest, decider);
        let late = timer.as_mut().is_some_and(Timer::stop);
        match sent {
            Ok(_) | Err(Error::Cancelled) if late => Err(self.too_slow()),
            sent => sent,
        }
    }

    fn send_rounds(
        &self,
        source: &mut Source,
        guest: &mut impl Guest,
        decider: &mut Decider,
    ) -> Result<PageSet, Error> {
        let ram = Arc::clone(source.ram());
        // What was dirtied so far is in the first round: that sends everything.
        guest.dirtied(&mut PageSet::none(&ram)).map_err(Error::Guest)?;
        let mut pages = PageSet::all(&ram);
        let began = Instant::now();
        for rounds in 1.. {
            let mut round = Self::round(source, &pages, began)?;
            pages = PageSet::none(&ram);
            guest.dirtied(&mut pages).map_err(Error::Guest)?;
            round.dirty = pages.len();
            let decision = decider.after(round);
            let snapshot = snapshot(rounds, &round, decider, ram.page_size().bytes());
            tracing::debug!(?snapshot, ?decision, "a round is over");
            self.note(snapshot);
            guest.progress(&snapshot);
            match decision {
                Decision::Round => {}
                Decision::Throttle(percent) => guest.throttle(percent).map_err(Error::Guest)?,
                Decision::SwitchOver => break,
                Decision::GiveUp => return Err(self.too_slow()),
            }
        }
        Ok(pages)
    }

    /// Sends a round.
    fn round(source: &mut Source, pages: &PageSet, began: Instant) -> Result<Round, Error> {
        let before = source.progress().snapshot();
        let begun = Instant::now();
        source.round(pages)?;
        let after = source.progress().snapshot();
        Ok(Round {
            normal_pages: after.total().normal_pages - before.total().normal_pages,
            pages: pages.len(),
            wire_bytes: after.wire_bytes() - before.wire_bytes(),
            took: begun.elapsed(),
            dirty: 0,
            elapsed: began.elapsed(),
        })
    }

    fn too_slow(&self) -> Error {
        let Snapshot { rounds, .. } = self.snapshot();
        Error::NotConverging { rounds, downtime: self.policy.downtime_limit() }
    }
}

fn snapshot(rounds: u32, round: &Round, decider: &Decider, page_bytes: usize) -> Snapshot {
    let bytes_left = round.dirty * page_bytes as u64;
    Snapshot {
        rounds,
        bytes_left,
        dirty_rate: bytes_left as f64 / round.took.as_secs_f64().max(1e-9),
        bandwidth: decider.bandwidth(),
        estimate: decider.estimate(),
        throttle: decider.throttled(),
        elapsed: round.elapsed,
    }
}
