//! Something that threads wait for, and that a signal's handler may bring about.

use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// How often it has happened, and who waits for the next time. In contrast to a condition variable,
/// there is no lock, and what happens between a look and a wait is not missed.
#[derive(Debug, Default)]
pub(crate) struct Event {
    times: AtomicU32,
    waiting: AtomicU32,
}

impl Event {
    /// How often it has happened so far; to be read before the look at what is waited for.
    pub(crate) fn times(&self) -> u32 {
        self.times.load(Ordering::SeqCst)
    }

    /// It happens: one thread goes on. Neither locks nor allocates.
    pub(crate) fn happen(&self) {
        self.wake(1);
    }

    /// It happens, and all threads go on.
    pub(crate) fn happen_for_all(&self) {
        self.wake(i32::MAX);
    }

    /// Waits until it has happened more often than `seen`, or for as long. May return earlier.
    pub(crate) fn wait(&self, seen: u32, longest: Option<Duration>) {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let time = longest.map(|time| libc::timespec {
            tv_sec: time.as_secs() as libc::time_t,
            tv_nsec: libc::c_long::from(time.subsec_nanos() as i32),
        });
        let time = time.as_ref().map_or(ptr::null(), ptr::from_ref);
        let operation = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
        // SAFETY: the word lives as long as `self`, and the time is null or lives in this function.
        unsafe { libc::syscall(libc::SYS_futex, self.times.as_ptr(), operation, seen, time) };
        self.waiting.fetch_sub(1, Ordering::SeqCst);
    }

    fn wake(&self, threads: i32) {
        self.times.fetch_add(1, Ordering::SeqCst);
        if self.waiting.load(Ordering::SeqCst) > 0 {
            let operation = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;
            // SAFETY: the word lives as long as `self`; nothing else is given.
            unsafe { libc::syscall(libc::SYS_futex, self.times.as_ptr(), operation, threads) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happened_since_the_look_is_not_waited_for() {
        let event = Event::default();
        let seen = event.times();
        event.happen();
        // Would never return.
        event.wait(seen, None);
        assert_ne!(event.times(), seen);
    }

    #[test]
    fn a_wait_ends_after_its_time() {
        let event = Event::default();
        event.wait(event.times(), Some(Duration::from_millis(1)));
    }

    #[test]
    fn all_who_wait_go_on() {
        let event = Event::default();
        let seen = event.times();
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| event.wait(seen, None));
            }
            event.happen_for_all();
        });
    }
}
