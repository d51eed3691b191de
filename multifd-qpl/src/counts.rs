//! What is counted on one channel, by path.

use multifd_core::MethodCounters;

/// What is counted, by its place among the names. A channel without hardware has the first two.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Counted {
    /// Pages that went or came as they are.
    Raw,
    /// Pages that the channel's engine made shorter, or restored: a device, or the CPU where there
    /// is no hardware path.
    Engine,
    /// Pages that the CPU did since the devices' queues were full.
    Busy,
    /// Pages that the CPU did since a device failed, or was given up.
    Fault,
    /// Submissions to queues that were full.
    Retries,
    /// Jobs that failed or were refused, including rejections caused by the data.
    Errors,
}

/// The names of the counts of a channel that uses devices.
pub(crate) const HARDWARE: &[&str] = &[
    "raw pages",
    "hardware pages",
    "software pages (busy)",
    "software pages (fault)",
    "hardware retries",
    "hardware errors",
];
/// The names where libqpl does the pages on the CPU.
pub(crate) const SOFTWARE: &[&str] = &["raw pages", "software pages"];
/// The names where this crate does the pages on the CPU, without libqpl.
pub(crate) const PORTABLE: &[&str] = &["raw pages", "portable pages"];

/// One channel's counts. Those of a packet become visible when all of it is done: one that is given
/// up half-way and done again counts once.
#[derive(Debug)]
pub(crate) struct Counts {
    counters: MethodCounters,
    packet: [u64; HARDWARE.len()],
}

impl Counts {
    pub(crate) fn new(names: &'static [&'static str]) -> Self {
        Self { counters: MethodCounters::new(names), packet: Default::default() }
    }

    /// The counts, to be read while they grow.
    pub(crate) fn counters(&self) -> MethodCounters {
        self.counters.clone()
    }

    /// Begins a packet.
    pub(crate) fn begin(&mut self) {
        self.packet = Default::default();
    }

    /// Counts a page of the packet.
    pub(crate) fn page(&mut self, counted: Counted) {
        self.packet[counted as usize] += 1;
    }

    /// Ends the packet.
    pub(crate) fn commit(&mut self) {
        for (index, count) in self.packet.into_iter().enumerate().filter(|&(_, count)| count > 0) {
            self.counters.add(index, count);
        }
    }
}
