//! CPU time of the calling thread: what other threads do, such as those of a simulated device, is not in it.

use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// The CPU time that this thread has had so far.
fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// The CPU time of some work.
pub fn cpu_time(work: impl FnOnce()) -> Duration {
    let started = thread_time();
    work();
    thread_time() - started
}

/// Runs a future to its end. Returns the CPU time up to its first wait, at which `pause` is called, and from
/// there on, if it waits but once; `pause` is in neither.
pub fn cpu_time_around_a_pause(
    future: impl Future<Output = ()>,
    pause: impl FnOnce(),
) -> Option<[Duration; 2]> {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    let mut poll = Poll::Pending;
    let before = cpu_time(|| poll = future.as_mut().poll(&mut context));
    pause();
    let mut polls = 0;
    let after = cpu_time(|| {
        while poll.is_pending() {
            polls += 1;
            poll = future.as_mut().poll(&mut context);
        }
    });
    (polls <= 1).then_some([before, after])
}
