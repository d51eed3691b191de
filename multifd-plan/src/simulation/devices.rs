//! The accelerators of one side. Each has a queue, and engines that take pages from it in order.

use std::collections::VecDeque;

use crate::parameters::{DeviceFigures, Speed};
use crate::workload::PAGE;

#[derive(Debug)]
pub(super) struct Devices {
    devices: Vec<Device>,
    depth: usize,
    service_ns: u64,
    latency_ns: u64,
}

#[derive(Debug)]
struct Device {
    /// When each engine is free.
    engines: Vec<u64>,
    /// When each page in the queue will be taken out, in order.
    waiting: VecDeque<u64>,
}

impl Devices {
    /// The devices of one side. Each engine has this speed.
    pub(super) fn new(figures: &DeviceFigures, speed: Speed) -> Self {
        let device = || Device {
            engines: vec![0; usize::from(figures.engines.get())],
            waiting: VecDeque::with_capacity(figures.queue_depth.into()),
        };
        Self {
            devices: (0..figures.count).map(|_| device()).collect(),
            depth: figures.queue_depth.into(),
            service_ns: speed.ns(PAGE).round().max(1.0) as u64,
            latency_ns: figures.latency_ns,
        }
    }

    /// The time of a page in an engine.
    pub(super) fn service_ns(&self) -> u64 {
        self.service_ns
    }

    /// Submits a page to the first device, from `turn` on, whose queue has room. Returns when the
    /// page is done; `None` if every queue is full.
    pub(super) fn submit(&mut self, now: u64, turn: &mut usize) -> Option<u64> {
        let count = self.devices.len();
        for step in 0..count {
            let at = (*turn + step) % count;
            let device = &mut self.devices[at];
            if device.waiting(now) < self.depth {
                *turn = (at + 1) % count;
                return Some(device.accept(now, self.service_ns) + self.latency_ns);
            }
        }
        None
    }
}

impl Device {
    fn waiting(&mut self, now: u64) -> usize {
        while self.waiting.front().is_some_and(|&start| start <= now) {
            self.waiting.pop_front();
        }
        self.waiting.len()
    }

    /// Queues a page. All pages take equally long, so its start is known at once.
    fn accept(&mut self, now: u64, service_ns: u64) -> u64 {
        let engine = self.engines.iter_mut().min().expect("a device has an engine");
        let start = now.max(*engine);
        *engine = start + service_ns;
        let done = *engine;
        if start > now {
            self.waiting.push_back(start);
        }
        done
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU8;

    use super::*;
    use crate::parameters::Parameters;

    fn devices(count: u8, engines: u8, queue_depth: u16) -> Devices {
        let figures = Parameters::default().devices;
        let engines = NonZeroU8::new(engines).unwrap();
        let figures = DeviceFigures { count, engines, queue_depth, latency_ns: 7, ..figures };
        Devices::new(&figures, Speed::nearest(PAGE as f64 * 1e7))
    }

    #[test]
    fn pages_are_worked_on_in_order_by_as_many_engines_as_there_are() {
        let mut one = devices(1, 2, 10);
        let done: Vec<_> = (0..5).map(|_| one.submit(0, &mut 0).unwrap()).collect();
        assert_eq!(done, [107, 107, 207, 207, 307]);
        assert_eq!(one.submit(1000, &mut 0), Some(1107));
    }

    #[test]
    fn a_full_queue_refuses_until_an_engine_takes_from_it() {
        let mut one = devices(1, 1, 2);
        let mut submit = |now| one.submit(now, &mut 0);
        assert_eq!([submit(0), submit(0), submit(0)], [Some(107), Some(207), Some(307)]);
        assert_eq!(
            [submit(0), submit(99), submit(100), submit(100)],
            [None, None, Some(407), None]
        );
    }

    #[test]
    fn devices_take_turns_and_a_full_one_is_passed_over() {
        let mut two = devices(2, 1, 1);
        let mut turn = 0;
        let done: Vec<_> = (0..5).map(|_| two.submit(0, &mut turn)).collect();
        assert_eq!(done, [Some(107), Some(107), Some(207), Some(207), None]);
    }
}
