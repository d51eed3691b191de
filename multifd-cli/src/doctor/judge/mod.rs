//! What it means: from what there is on a machine to findings. Nothing is read here.
//!
//! What only follows from something else is not said: without a device, no word about its driver.

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

/// Everything that is to be said about `system`, in the order in which it would be mended.
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
