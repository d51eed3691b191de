//! From the state of a machine to findings. Nothing is read here.
//!
//! A mere consequence of another finding is left out: without a device, there is no finding about its
//! driver.

mod device;
mod fault;
mod libraries;
mod platform;
mod queue;
mod setup;
#[cfg(test)]
mod tests;

use crate::doctor::finding::Finding;
use crate::doctor::system::System;

/// All findings about `system`, in the order in which they should be fixed.
pub(super) fn judge(system: &System) -> Vec<Finding> {
    let mut findings = Vec::new();
    let there = platform::judge(system, &mut findings);
    if there == platform::Accelerators::Ready {
        device::judge(system, &mut findings);
        queue::judge(system, &mut findings);
    }
    libraries::judge(system, there, &mut findings);
    findings
}
