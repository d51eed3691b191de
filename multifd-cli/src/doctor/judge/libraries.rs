//! Whether the libraries are there, and whether codec qpl works.

use qpl_sys::Library;

use super::platform::Accelerators;
use crate::doctor::finding::{Finding, Level};
use crate::doctor::system::{Package, System};

pub(super) fn judge(system: &System, there: Accelerators, findings: &mut Vec<Finding>) {
    findings.push(libqpl(system, there));
    // Only the hardware path uses it.
    if there != Accelerators::Absent {
        findings.push(accel_config(system));
    }
    if findings.iter().all(|finding| finding.level != Level::Problem) {
        findings.push(job(system));
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
            .meaning("Codec qpl uses the library that is named there, or none, on the CPU too.")
            .mend([format!("unset {}", Library::VARIABLE)]);
    }
    // Without an accelerator, the built-in encoder replaces it.
    let level = if there == Accelerators::Absent { Level::Note } else { Level::Problem };
    Finding::new(level, SUBJECT, error.to_string())
        .mend([system.distribution.install(Package::Libqpl)])
}

fn accel_config(system: &System) -> Finding {
    const SUBJECT: &str = "libaccel-config";
    match &system.accel_config {
        _ if system.simulated.is_some() => Finding::ok(SUBJECT, "the simulation is in its place"),
        Some(file) => Finding::ok(SUBJECT, file.display().to_string()),
        None => Finding::problem(SUBJECT, "libaccel-config.so.1 is not where the loader looks")
            .meaning("libqpl finds the devices by it, and opens it at run time; without it, its status is 501.")
            .mend([system.distribution.install(Package::AccelConfig)]),
    }
}

/// Whether a job can be set up on a device. After another problem this would only be a consequence.
fn job(system: &System) -> Finding {
    const SUBJECT: &str = "job";
    match &system.hardware {
        Ok(_) => Finding::ok(SUBJECT, "libqpl can set a hardware job up"),
        Err(reason) => {
            let reason = reason.trim_end_matches("; see multifd doctor");
            let problem =
                Finding::problem(SUBJECT, format!("libqpl cannot set a hardware job up: {reason}"));
            if system.simulated.is_some() {
                return problem.meaning(
                    "The simulation has no devices, by its settings, or could not make them: then it has \
                     said why in a line that begins with iaa-sim.",
                );
            }
            problem
                .meaning(
                    "There is no other problem, so libqpl sees something that this command does not: \
                     check whether this runs in a container without the devices.",
                )
                .mend(["sudo accel-config list", "sudo dmesg | grep -i idxd"])
        }
    }
}

/// How codec qpl works here, without what other findings say of libqpl and the devices.
fn codec(system: &System) -> Option<Finding> {
    const SUBJECT: &str = "codec";
    let said = system.libqpl.as_ref().err().map(ToString::to_string).unwrap_or_default();
    match &system.codec {
        Ok(by) => {
            let reason = match &system.hardware {
                Ok(_) => "",
                Err(reason) => reason,
            };
            let by = by.trim_end_matches(&said).trim_end_matches(reason).trim_end_matches("; ");
            Some(Finding::new(Level::Note, SUBJECT, format!("codec qpl works here, by {by}")))
        }
        Err(reason) if *reason == said => None,
        Err(reason) => {
            Some(Finding::problem(SUBJECT, format!("codec qpl does not work here: {reason}")))
        }
    }
}
