//! How much device state is accepted.

use crate::size;

/// How much device state is accepted.
#[derive(Debug, clap::Args)]
pub(crate) struct DeviceStateLimit {
    /// The most device state to accept
    #[arg(long, value_name = "SIZE", default_value = "256M", value_parser = size::parse)]
    device_state_limit: u64,
}

impl DeviceStateLimit {
    /// What to do where there is more.
    pub(crate) const ALLOW_MORE: &str = "allow more with --device-state-limit";

    pub(crate) fn bytes(&self) -> u64 {
        self.device_state_limit
    }

    /// [`bytes`](Self::bytes), as lengths of memory are given.
    pub(crate) fn in_memory(&self) -> usize {
        usize::try_from(self.device_state_limit).unwrap_or(usize::MAX)
    }
}
