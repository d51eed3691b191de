//! How much CPU time a migration takes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::thread::{Pid, gettid};
use rustix::time::{ClockId, clock_gettime};

/// The CPU time that threads take, those of a migration (see [`Threads::cpu_time`](crate::Threads::cpu_time)) and
/// others that [are counted](Self::count_this_thread) with them. Clones are the same count.
#[derive(Clone, Debug, Default)]
pub struct CpuTime(Arc<Mutex<Used>>);

#[derive(Debug, Default)]
struct Used {
    /// That of threads that are over.
    before: Duration,
    running: Vec<Pid>,
}

/// A thread that is counted, until this is dropped.
#[derive(Debug)]
pub struct CountedThread {
    cpu_time: CpuTime,
    thread: Pid,
    /// What it had taken before.
    began: Duration,
}

impl CpuTime {
    /// None so far.
    pub fn new() -> Self {
        Self::default()
    }

    /// User and system time by now, exact for threads that are over. Of those that run it is what
    /// `/proc/self/task` says, all since they began; nothing where there is no `/proc`.
    pub fn so_far(&self) -> Duration {
        let used = self.lock();
        let running = used.running.iter().filter_map(|&thread| of_running(thread));
        running.fold(used.before, Duration::saturating_add)
    }

    /// Counts the calling thread until the result is dropped, which is to be in the same thread.
    #[must_use]
    pub fn count_this_thread(&self) -> CountedThread {
        let thread = gettid();
        self.lock().running.push(thread);
        CountedThread { cpu_time: self.clone(), thread, began: of_this_thread() }
    }

    fn lock(&self) -> MutexGuard<'_, Used> {
        // Nothing under this lock panics half-way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for CountedThread {
    fn drop(&mut self) {
        let taken = of_this_thread().saturating_sub(self.began);
        let mut used = self.cpu_time.lock();
        used.running.retain(|&thread| thread != self.thread);
        used.before = used.before.saturating_add(taken);
    }
}

fn of_this_thread() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    Duration::from_secs(seconds).saturating_add(Duration::from_nanos(time.tv_nsec.unsigned_abs()))
}

/// What the scheduler has counted of a thread of this process.
fn of_running(thread: Pid) -> Option<Duration> {
    let path = format!("/proc/self/task/{}/schedstat", thread.as_raw_nonzero());
    let text = std::fs::read_to_string(path).ok()?;
    let nanoseconds = text.split_ascii_whitespace().next()?.parse().ok()?;
    Some(Duration::from_nanos(nanoseconds))
}

#[cfg(test)]
mod tests {
    use std::hint::black_box;
    use std::time::Instant;

    use super::*;

    /// Works for a while; returns the CPU time that this thread has taken.
    fn work(time: Duration) {
        let began = of_this_thread();
        let mut sum = 0_u64;
        while of_this_thread().saturating_sub(began) < time {
            sum = black_box(sum.wrapping_mul(31) + 1);
        }
    }

    #[test]
    fn threads_that_run_and_those_that_are_over_are_counted() {
        let cpu_time = CpuTime::new();
        assert_eq!(cpu_time.so_far(), Duration::ZERO);
        let (own, time) = (cpu_time.clone(), Duration::from_millis(40));
        std::thread::spawn(move || {
            let _counted = own.count_this_thread();
            work(time);
            let (running, began) = (own.so_far(), Instant::now());
            // The scheduler counts at its ticks.
            while own.so_far() < time / 2 {
                assert!(began.elapsed() < Duration::from_secs(10), "{running:?}");
            }
        })
        .join()
        .unwrap();
        let one = cpu_time.so_far();
        assert!(one >= time, "{one:?}");
        // One that is not counted does not matter, nor what came before.
        std::thread::spawn(move || work(time)).join().unwrap();
        assert_eq!(cpu_time.so_far(), one);
        let counted = cpu_time.count_this_thread();
        drop(counted);
        assert!(cpu_time.so_far() < one + time);
    }
}
