//! How a caller's mistake ends the process.

use std::process;

/// Says on standard error which function was misused, with which job and how, and aborts.
pub(crate) fn misuse(function: &str, address: usize, what: &str) -> ! {
    eprintln!("qpl-sim: {function}: job {address:#x}: {what}");
    process::abort()
}

/// Says on standard error what makes it impossible to go on, and aborts.
pub(crate) fn give_up(what: &str) -> ! {
    eprintln!("qpl-sim: {what}");
    process::abort()
}
