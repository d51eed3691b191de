//! Memory that a service needs no more.

/// Gives memory that is free back to the system. glibc keeps what many threads had at once for as many threads; others
/// do not, or not as much.
pub(super) fn give_back() {
    #[cfg(target_env = "gnu")]
    #[allow(unsafe_code, reason = "the one way to tell glibc")]
    // SAFETY: it takes a number alone, and may be called by any thread at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}
