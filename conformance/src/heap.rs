//! The heap of the process, counted.
#![allow(unsafe_code, reason = "an allocator is")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Bytes that are allocated now; 0 as long as nobody counts.
static LIVE: AtomicUsize = AtomicUsize::new(0);

/// The most that there have been since the count was last begun.
static PEAK: AtomicUsize = AtomicUsize::new(0);

/// The system's allocator, which counts what it hands out. [`suite!`](crate::suite) makes it that of
/// the test program, so that a decoder which allocates by a length that it has read is found out.
#[derive(Debug, Default)]
pub struct CountedHeap(());

impl CountedHeap {
    /// The allocator, for `#[global_allocator]`.
    pub const fn new() -> Self {
        Self(())
    }
}

// SAFETY: every call goes to the system's allocator as it is, and its answer comes back as it is;
// the counts are only numbers.
unsafe impl GlobalAlloc for CountedHeap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps to the contract of the same function.
        let memory = unsafe { System.alloc(layout) };
        count(!memory.is_null(), layout.size(), 0);
        memory
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps to the contract of the same function.
        let memory = unsafe { System.alloc_zeroed(layout) };
        count(!memory.is_null(), layout.size(), 0);
        memory
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        // SAFETY: the caller keeps to the contract of the same function.
        let memory = unsafe { System.realloc(memory, layout, bytes) };
        count(!memory.is_null(), bytes, layout.size());
        memory
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps to the contract of the same function.
        unsafe { System.dealloc(memory, layout) };
        count(true, 0, layout.size());
    }
}

/// Counts `more` bytes allocated and `less` freed, where that has `worked`.
fn count(worked: bool, more: usize, less: usize) {
    if worked {
        let live = LIVE.fetch_add(more, Relaxed) + more;
        PEAK.fetch_max(live, Relaxed);
        LIVE.fetch_sub(less, Relaxed);
    }
}

/// How much the heap grows.
#[derive(Debug)]
pub(crate) struct Growth {
    before: usize,
}

impl Growth {
    /// From now on; `None` where the heap is not counted.
    pub(crate) fn from_now() -> Option<Self> {
        let before = LIVE.load(Relaxed);
        PEAK.store(before, Relaxed);
        (before > 0).then_some(Self { before })
    }

    /// The most bytes that there have been on top of those at the beginning.
    pub(crate) fn peak(&self) -> usize {
        PEAK.load(Relaxed).saturating_sub(self.before)
    }
}
