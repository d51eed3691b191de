//! What a simulated migration has used.

use std::ops::AddAssign;

/// What one round, or all rounds together, used. Times are in nanoseconds.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Time from the start to the end.
    pub elapsed_ns: u64,
    /// Pages with data.
    pub normal_pages: u64,
    /// Pages without data.
    pub zero_pages: u64,
    /// Bytes on the link, without what TCP adds.
    pub wire_bytes: u64,
    /// Time for which the link was in use.
    pub link_ns: u64,
    /// CPU time of the thread that hands out pages.
    pub feed_ns: u64,
    /// Time for which the source's channels waited for room in their sockets.
    pub blocked_ns: u64,
    /// The source's side.
    pub source: SideTally,
    /// The destination's side.
    pub destination: SideTally,
}

/// What the channels of one side and their devices did. Times are in nanoseconds.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SideTally {
    /// Pages that were prepared or placed.
    pub pages: u64,
    /// CPU time of all channels, without polling.
    pub busy_ns: u64,
    /// CPU time for which channels only waited for a device.
    pub polling_ns: u64,
    /// Time for which engines were in use, of all engines together.
    pub engine_ns: u64,
    /// Attempts to submit a page.
    pub submissions: u64,
    /// Attempts that found every queue full.
    pub refused: u64,
    /// Pages that engines compressed or decompressed.
    pub hardware_pages: u64,
    /// Pages that the CPU compressed or decompressed.
    pub software_pages: u64,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, more: Self) {
        self.elapsed_ns += more.elapsed_ns;
        self.normal_pages += more.normal_pages;
        self.zero_pages += more.zero_pages;
        self.wire_bytes += more.wire_bytes;
        self.link_ns += more.link_ns;
        self.feed_ns += more.feed_ns;
        self.blocked_ns += more.blocked_ns;
        self.source += more.source;
        self.destination += more.destination;
    }
}

impl AddAssign for SideTally {
    fn add_assign(&mut self, more: Self) {
        self.pages += more.pages;
        self.busy_ns += more.busy_ns;
        self.polling_ns += more.polling_ns;
        self.engine_ns += more.engine_ns;
        self.submissions += more.submissions;
        self.refused += more.refused;
        self.hardware_pages += more.hardware_pages;
        self.software_pages += more.software_pages;
    }
}
