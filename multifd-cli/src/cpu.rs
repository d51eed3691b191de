//! CPU time.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// That of this process so far: of all its threads, in user and in system mode.
pub(crate) fn cpu_time() -> Duration {
    clock_gettime(ClockId::ProcessCPUTime).try_into().unwrap_or_default()
}
