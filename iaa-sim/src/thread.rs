//! What makes a thread one of the device's and not of the program's.

use std::{mem, ptr};

/// To be called on a thread of the simulation when it starts.
pub(crate) fn become_a_device() {
    // The program's signals are for the program's threads.
    // SAFETY: zeros are a value of the type, which is plain data.
    let mut all: libc::sigset_t = unsafe { mem::zeroed() };
    // SAFETY: the set is borrowed for the call.
    unsafe { libc::sigfillset(&mut all) };
    for fault in [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE] {
        // SAFETY: the set is borrowed for the call, and the signal exists.
        unsafe { libc::sigdelset(&mut all, fault) };
    }
    // SAFETY: the set lives through the call; the old one is not asked for.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &all, ptr::null_mut()) };
    // By default a wait may end 50 µs too late.
    // SAFETY: it sets a number of this thread.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1 as libc::c_ulong) };
}
