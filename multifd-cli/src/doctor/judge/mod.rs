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

use crate::doctor::finding::{Finding, Level};
use crate::doctor::system::System;

/// All findings about `system`, in the order in which they should be fixed.
pub(super) fn judge(system: &System) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(version) = &system.simulated {
        // What is in this machine does not matter: libqpl does not see it.
        findings.push(simulated(version));
        libraries::judge(system, platform::Accelerators::Ready, &mut findings);
        return findings;
    }
    let there = platform::judge(system, &mut findings);
    if there == platform::Accelerators::Ready {
        device::judge(system, &mut findings);
        queue::judge(system, &mut findings);
    }
    libraries::judge(system, there, &mut findings);
    findings.push(in_software());
    findings
}

/// What would be the hardware of the other codecs that accelerators have.
fn in_software() -> Finding {
    let found = "codecs uadk and qatzip work here, on the CPU";
    Finding::new(Level::Note, "codecs", found).meaning(
        "Their accelerators, that of a HiSilicon Kunpeng (UADK) and Intel's QAT (QATzip), are neither used nor looked for. \
         What goes over the wire is the same.",
    )
}

fn simulated(version: &str) -> Finding {
    let found = format!("simulated (multifd-iaa-sim {version}): not a device of this machine");
    Finding::new(Level::Note, "iaa", found).meaning(
        "libqpl has opened the simulation in place of libaccel-config, since LD_LIBRARY_PATH or LD_PRELOAD \
         says so. Without that, multifd doctor looks at the machine's own devices.",
    )
}
