//! Whether the libraries are there, and what codec qpl makes of it all.

use multifd::core::Availability;
use qpl_sys::Library;

use super::platform::Accelerators;
use crate::doctor::finding::{Finding, Level};
use crate::doctor::system::System;

pub(super) fn judge(system: &System, there: Accelerators, findings: &mut Vec<Finding>) {
    findings.push(libqpl(system, there));
    // Nothing but the hardware path uses it.
    if there != Accelerators::Absent {
        findings.push(accel_config(system));
    }
    findings.extend(codec(system));
}

fn libqpl(system: &System, there: Accelerators) -> Finding {
    const SUBJECT: &str = "libqpl";
    let error = match &system.libqpl {
        Ok(libqpl) => {
            return Finding::ok(SUBJECT, format!("libqpl {} ({})", libqpl.version, libqpl.origin));
        }
        Err(error) => error,
    };
    if system.libqpl_named {
        return Finding::problem(SUBJECT, error.to_string())
            .meaning("Codec qpl takes the library that is named, or none, on the CPU too.")
            .mend([format!("unset {}", Library::VARIABLE)]);
    }
    // Without an accelerator, what is built in stands in for it.
    let level = if there == Accelerators::Absent { Level::Note } else { Level::Problem };
    Finding::new(level, SUBJECT, error.to_string()).mend(["sudo apt install libqpl1"])
}

fn accel_config(system: &System) -> Finding {
    const SUBJECT: &str = "libaccel-config";
    match &system.accel_config {
        Some(file) => Finding::ok(SUBJECT, file.display().to_string()),
        None => Finding::problem(SUBJECT, "libaccel-config.so.1 is not where the loader looks")
            .meaning("libqpl finds the devices by it, and opens it at run time (status 501).")
            .mend(["sudo apt install libaccel-config1 accel-config    # Fedora: sudo dnf install accel-config"]),
    }
}

/// How codec qpl works here, less what was said of libqpl already.
fn codec(system: &System) -> Option<Finding> {
    const SUBJECT: &str = "codec";
    let said = system.libqpl.as_ref().err().map(ToString::to_string).unwrap_or_default();
    match &system.codec {
        Availability::Available(by) => {
            let by = by.trim_end_matches(&said).trim_end_matches("; ");
            Some(Finding::new(Level::Note, SUBJECT, format!("codec qpl works here, by {by}")))
        }
        Availability::Unavailable(reason) if *reason == said => None,
        Availability::Unavailable(reason) => {
            Some(Finding::problem(SUBJECT, format!("codec qpl does not work here: {reason}")))
        }
    }
}
