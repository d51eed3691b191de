//! Huge pages that are yet to be made.
//!
//! Threads that write for the first time to the same huge page at the same time each have the kernel clear 2 MiB, of
//! which all but one are thrown away. Channels do just that: a source gives them one packet after the other, and one huge
//! page holds the pages of four packets.

use std::sync::Once;

use rustix::mm::{Advice, madvise};
use rustix::param::page_size;
use vm_memory::VolatileSlice;

/// Which huge pages of a block have been made.
#[derive(Debug)]
pub(super) struct HugePages {
    /// Bytes of the first one before the block.
    lead: u64,
    made: Box<[Once]>,
}

/// Bytes of a huge page, where small ones have 4 KiB.
const BYTES: u64 = 2 << 20;

impl HugePages {
    /// Those of a block of so many bytes at an address.
    pub(super) fn new(address: usize, bytes: u64) -> Self {
        let lead = address as u64 % BYTES;
        let count = (lead + bytes).div_ceil(BYTES);
        Self { lead, made: (0..count).map(|_| Once::new()).collect() }
    }

    /// Has the huge page made that holds the byte at `offset` in the block, which is going to be written and lies at the
    /// start of `page()`. Returns when it is there, whichever thread was the first.
    pub(super) fn make<'a>(&self, offset: u64, page: impl FnOnce() -> VolatileSlice<'a>) {
        let index = usize::try_from((self.lead + offset) / BYTES).unwrap_or(usize::MAX);
        if let Some(made) = self.made.get(index) {
            made.call_once(|| populate(page()));
        }
    }
}

/// Has the system make memory for `page`; where it has huge pages, that is one of these.
fn populate(page: VolatileSlice<'_>) {
    let guard = page.ptr_guard_mut();
    // A guest's page may be smaller than the system's.
    let before = guard.as_ptr().addr() % page_size();
    let start = guard.as_ptr().wrapping_sub(before);
    // SAFETY: the bytes are mapped while the memory is borrowed, and so are those before them in the same page of the
    // system. They all hold the same afterwards, as if what they hold had been written there again.
    let populated =
        unsafe { madvise(start.cast(), before + guard.len(), Advice::LinuxPopulateWrite) };
    // Before Linux 5.14, or where the memory is of another kind, the first write makes it.
    _ = populated;
}
