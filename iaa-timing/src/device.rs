//! A whole device with one queue.

use std::collections::VecDeque;

use crate::engines::Engines;
use crate::speed::Time;

/// A device with one queue, for work whose time is known when it is submitted: so when it is done is
/// known then, too.
#[derive(Clone, Debug)]
pub struct Device {
    engines: Engines,
    depth: usize,
    /// When an engine takes what has a place in the queue, in order.
    waiting: VecDeque<u64>,
}

impl Device {
    /// One with so many engines, at least 1, and places in its queue.
    ///
    /// # Panics
    /// Without an engine.
    #[must_use]
    pub fn new(engines: usize, depth: usize) -> Self {
        assert!(engines > 0, "a device has an engine");
        Self { engines: Engines::new(engines), depth, waiting: VecDeque::new() }
    }

    /// Submits work at `now`, which is never before the submission before. Returns when it is done;
    /// `None` where the queue is full.
    pub fn submit(&mut self, now: u64, time: Time) -> Option<u64> {
        while self.waiting.front().is_some_and(|&start| start <= now) {
            self.waiting.pop_front();
        }
        if self.waiting.len() >= self.depth {
            return None;
        }
        let (engine, _) = self.engines.next()?;
        let start = self.engines.begin(engine, now);
        if start > now {
            self.waiting.push_back(start);
        }
        Some(self.engines.end(engine, start, time))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: Time = Time { busy: 100, latency: 7 };

    #[test]
    fn work_is_done_in_order_by_as_many_engines_as_there_are() {
        let mut device = Device::new(2, 10);
        let done: Vec<_> = (0..5).filter_map(|_| device.submit(0, TIME)).collect();
        assert_eq!(done, [107, 107, 207, 207, 307]);
        assert_eq!(device.submit(1000, TIME), Some(1107));
    }

    #[test]
    fn a_full_queue_refuses_until_an_engine_takes_from_it() {
        let mut device = Device::new(1, 2);
        let done = [0, 0, 0, 0, 99, 100, 100].map(|now| device.submit(now, TIME));
        assert_eq!(done, [Some(107), Some(207), Some(307), None, None, Some(407), None]);
    }
}
