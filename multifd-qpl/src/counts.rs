//! What is counted on one channel, by path.

use multifd_core::MethodStats;

use crate::hardware::Hardware;

/// Pages by what made them shorter, or restored them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    /// A device.
    pub(crate) hardware: u64,
    /// The CPU, since the devices' queues were full.
    pub(crate) busy: u64,
    /// The CPU, since the device failed, or was given up.
    pub(crate) fault: u64,
    /// The CPU, where there is no hardware path.
    pub(crate) cpu: u64,
    /// Nothing: pages that went or came as they are.
    pub(crate) raw: u64,
}

impl Counts {
    /// The counts by name. `cpu` is the name of what the CPU does where there is no hardware path.
    pub(crate) fn stats(&self, hardware: Option<&Hardware>, cpu: &'static str) -> MethodStats {
        let Some(hardware) = hardware else {
            return [(cpu, self.cpu), ("raw pages", self.raw)].into();
        };
        [
            ("hardware pages", self.hardware),
            ("software pages (busy)", self.busy),
            ("software pages (fault)", self.fault),
            ("raw pages", self.raw),
            ("hardware retries", hardware.retries()),
            ("hardware errors", hardware.errors()),
        ]
        .into()
    }
}
