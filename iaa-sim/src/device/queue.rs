//! One shared work queue of a device.

use std::fmt::Debug;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::ring::{Ring, Waiting};
use crate::counters::Counters;
use crate::descriptor::Descriptor;

/// A queue: how much it holds, and where that is.
#[derive(Debug)]
pub(super) struct Queue {
    enabled: AtomicBool,
    source: Source,
}

#[derive(Debug)]
enum Source {
    /// Here, put in by a submission.
    Ring { ring: Ring, depth: usize, places: AtomicUsize },
    /// Elsewhere.
    Pull(Box<dyn Pull>),
}

/// Where a queue has its descriptors, if not with it.
pub trait Pull: Debug + Send + Sync {
    /// Takes the next one. Not called by two threads at a time.
    fn pull(&self, now: u64) -> Pulled;

    /// Takes nothing more in before that time.
    fn close_until(&self, time: u64);
}

/// What came of [`Pull::pull`].
#[derive(Clone, Copy, Debug)]
pub enum Pulled {
    /// A descriptor, and since when it was there.
    One(Descriptor, u64),
    /// What is not a descriptor.
    Malformed,
    /// Nothing, up to a time if one is given.
    Nothing(Option<u64>),
}

/// What an engine is given.
pub(super) enum Taken {
    One(Waiting),
    None { until: Option<u64> },
}

pub(super) enum FromQueue {
    Waiting(Waiting),
    Pulled { descriptor: Descriptor, arrived: u64 },
    Nothing { until: Option<u64> },
}

impl Queue {
    pub(super) fn new(depth: usize) -> Self {
        let source = Source::Ring { ring: Ring::new(depth), depth, places: AtomicUsize::new(0) };
        Self { enabled: AtomicBool::new(true), source }
    }

    pub(super) fn pulling(pull: Box<dyn Pull>) -> Self {
        Self { enabled: AtomicBool::new(true), source: Source::Pull(pull) }
    }

    pub(super) fn is_enabled(&self) -> bool {
        self.enabled.load(Ordering::Acquire)
    }

    pub(super) fn disable(&self) {
        self.enabled.store(false, Ordering::Release);
        self.close_until(u64::MAX);
    }

    pub(super) fn close_until(&self, time: u64) {
        if let Source::Pull(pull) = &self.source {
            pull.close_until(time);
        }
    }

    /// A place for one more descriptor, if there is one. Neither locks nor allocates.
    pub(super) fn take_place(&self) -> bool {
        let Source::Ring { depth, places, .. } = &self.source else { return false };
        let more = |taken: usize| (taken < *depth).then_some(taken + 1);
        places.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).is_ok()
    }

    pub(super) fn give_place_back(&self) {
        if let Source::Ring { places, .. } = &self.source {
            places.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// Puts a descriptor into a place that was taken. Neither locks nor allocates.
    pub(super) fn put(&self, waiting: &Waiting) {
        if let Source::Ring { ring, .. } = &self.source {
            let had_room = ring.put(waiting);
            debug_assert!(had_room, "each place has its slot");
        }
    }

    pub(super) fn take(&self, now: u64, counters: &Counters) -> FromQueue {
        match &self.source {
            Source::Ring { ring, .. } => match ring.take() {
                Some(waiting) => {
                    self.give_place_back();
                    FromQueue::Waiting(waiting)
                }
                None => FromQueue::Nothing { until: None },
            },
            Source::Pull(pull) => loop {
                match pull.pull(now) {
                    Pulled::One(descriptor, arrived) => {
                        return FromQueue::Pulled { descriptor, arrived };
                    }
                    Pulled::Malformed => counters.malformed_writes.one(),
                    Pulled::Nothing(until) => return FromQueue::Nothing { until },
                }
            },
        }
    }

    /// Takes all descriptors out, and says how many they were.
    pub(super) fn drain(&self) -> u64 {
        // What is elsewhere stays there: the queue is closed.
        let Source::Ring { ring, .. } = &self.source else { return 0 };
        let mut drained = 0;
        while ring.take().is_some() {
            self.give_place_back();
            drained += 1;
        }
        drained
    }
}
