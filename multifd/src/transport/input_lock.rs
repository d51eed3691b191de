//! The receiving side of a layer, which one thread reads and others look at.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};

use super::secured::{lock, try_lock};

/// The receiving side of a layer, `T`: one thread may wait for the peer with it for any time, while others want to
/// know whether there is something to be read.
pub(super) struct InputLock<T> {
    input: Mutex<T>,
    /// Whoever has it waits for the peer, since nothing was there to be read.
    waits: AtomicBool,
}

impl<T> InputLock<T> {
    pub(super) fn new(input: T) -> Self {
        Self { input: Mutex::new(input), waits: AtomicBool::new(false) }
    }

    /// For whoever reads, however long another one that does may take.
    pub(super) fn lock(&self) -> MutexGuard<'_, T> {
        lock(&self.input)
    }

    /// For whoever looks; `None` where whoever has it waits for the peer. Another one that looks is done soon: that it
    /// does is not to pass for having nothing to be read.
    pub(super) fn lock_to_look(&self) -> Option<MutexGuard<'_, T>> {
        loop {
            if let Some(input) = try_lock(&self.input) {
                return Some(input);
            }
            if self.waits.load(Ordering::SeqCst) {
                return None;
            }
            std::thread::yield_now();
        }
    }

    /// Has whoever has locked it wait for the peer.
    pub(super) fn wait<R>(&self, wait: impl FnOnce() -> R) -> R {
        self.waits.store(true, Ordering::SeqCst);
        let waited = wait();
        self.waits.store(false, Ordering::SeqCst);
        waited
    }
}
