//! What else the machine does.

use std::fs;

/// The load, over one minute, above which figures do not count.
const QUIET: f64 = 0.5;

/// The machine's load over the last minute, where it is known.
pub fn load() -> Option<f64> {
    let load = fs::read_to_string("/proc/loadavg").ok()?;
    load.split_whitespace().next()?.parse().ok()
}

/// Says above the figures that they do not count, where the machine does something else or that is
/// not known. Returns whether it does.
pub fn mark_if_busy() -> bool {
    mark_if_busy_above(QUIET)
}

/// The same with another load, over one minute, above which figures do not count.
#[allow(clippy::print_stdout, reason = "the mark belongs to the figures")]
pub fn mark_if_busy_above(quiet: f64) -> bool {
    match load() {
        Some(load) if load <= quiet => return false,
        Some(load) => println!(
            "BUSY: the load was {load:.2} at the start, above {quiet}: these figures do not count. \
             Wait a minute, after a build, too.\n"
        ),
        None => println!("BUSY? The machine's load is not known: these figures may not count.\n"),
    }
    true
}
