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
    findings.push(codec(system));
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

fn codec(system: &System) -> Finding {
    match &system.codec {
        Availability::Available(by) => {
            Finding::new(Level::Note, "codec", format!("codec qpl works here, by {by}"))
        }
        Availability::Unavailable(reason) => {
            let found = format!("codec qpl does not work here: {reason}");
            Finding::problem("codec", found)
        }
    }
}
