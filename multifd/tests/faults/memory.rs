//! Memory that cannot be read or written any more after some time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};

use multifd::core::ram::BlockMemory;
use multifd::core::vm_memory::{MmapRegion, VolatileSlice};

/// Blows at the nth use while it is armed, and stays blown.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fuse(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    armed: AtomicBool,
    left: AtomicU32,
    blown: AtomicBool,
}

impl Fuse {
    pub(crate) fn new(uses: u32) -> Self {
        let fuse = Self::default();
        fuse.0.left.store(uses, SeqCst);
        fuse
    }

    pub(crate) fn arm(&self, armed: bool) {
        self.0.armed.store(armed, SeqCst);
    }

    /// It fails where there is nothing to be counted.
    pub(crate) fn blow(&self) {
        self.0.blown.store(true, SeqCst);
    }

    pub(crate) fn is_blown(&self) -> bool {
        self.0.blown.load(SeqCst)
    }

    /// Whether this use is still good.
    pub(crate) fn holds(&self) -> bool {
        if !self.0.armed.load(SeqCst) {
            return true;
        }
        let left = self.0.left.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1));
        if left.is_err() {
            self.0.blown.store(true, SeqCst);
        }
        left.is_ok()
    }
}

/// A mapping that is gone when the fuse is.
#[derive(Debug)]
pub(crate) struct Fused {
    pub(crate) memory: MmapRegion<()>,
    pub(crate) fuse: Fuse,
    /// It is the note that something was written which fails.
    pub(crate) in_marks: bool,
}

impl BlockMemory for Fused {
    fn bytes(&self) -> u64 {
        BlockMemory::bytes(&self.memory)
    }

    fn slice(&self, offset: usize, len: usize) -> Option<VolatileSlice<'_>> {
        (self.in_marks || self.fuse.holds())
            .then(|| BlockMemory::slice(&self.memory, offset, len))?
    }

    fn mark_dirty(&self, _: usize, _: usize) {
        assert!(!self.in_marks || self.fuse.holds(), "a test's: it cannot be noted");
    }
}
