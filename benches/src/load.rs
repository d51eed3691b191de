//! What else the machine does.

use std::fs;

/// The load, over one minute, above which figures do not count.
const QUIET: f64 = 0.5;

/// Says above the figures that they do not count, where the machine does something else or that is
/// not known. Returns whether it does.
#[allow(clippy::print_stdout, reason = "the mark belongs to the figures")]
pub fn mark_if_busy() -> bool {
    let load = fs::read_to_string("/proc/loadavg").ok();
    let load = load.and_then(|it| it.split_whitespace().next()?.parse::<f64>().ok());
    match load {
        Some(load) if load <= QUIET => return false,
        Some(load) => println!(
            "BUSY: the load was {load:.2} at the start, above {QUIET}: these figures do not count. \
             Wait a minute, after a build, too.\n"
        ),
        None => println!("BUSY? The machine's load is not known: these figures may not count.\n"),
    }
    true
}
