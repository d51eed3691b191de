//! What a simulated migration has used.

use std::ops::AddAssign;

/// What one round, or all of them, took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Tally {
    pub(in super::super) elapsed_ns: u64,
    pub(in super::super) normal_pages: u64,
    pub(in super::super) zero_pages: u64,
    pub(in super::super) wire_bytes: u64,
    pub(in super::super) link_ns: u64,
    /// Of the thread that hands out pages.
    pub(in super::super) feed_ns: u64,
    /// Time that channels of the source waited for room in their sockets.
    pub(in super::super) blocked_ns: u64,
    pub(in super::super) source: SideTally,
    pub(in super::super) destination: SideTally,
}

/// What the channels of one side and their devices did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct SideTally {
    pub(in super::super) pages: u64,
    /// CPU time of all channels, without polling.
    pub(in super::super) busy_ns: u64,
    /// CPU time in which they only waited for a device.
    pub(in super::super) polling_ns: u64,
    /// Of all engines.
    pub(in super::super) engine_ns: u64,
    /// Tries to submit a page, and those that found every queue full.
    pub(in super::super) submissions: u64,
    pub(in super::super) refused: u64,
    pub(in super::super) hardware_pages: u64,
    pub(in super::super) software_pages: u64,
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
