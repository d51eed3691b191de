//! The devices: how many jobs they hold, and when each is done.
//!
//! Time is computed, not slept through: an engine begins with a job when the one before ends, even if
//! a thread sleeps too long meanwhile. So delays do not add up, and with a backlog the engines give
//! what they are configured to.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::config::Config;

/// All devices. Jobs go to one after the other.
pub(crate) struct Devices {
    devices: Vec<Mutex<Device>>,
    next: AtomicUsize,
    queue_depth: usize,
    /// Nanoseconds.
    latency: f64,
    /// Nanoseconds a byte, of one engine.
    byte_time: f64,
}

/// The place of one job in a device's queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot {
    device: usize,
}

/// One device: a shared work queue, and engines behind it.
struct Device {
    /// When each engine is free.
    engines: Vec<u64>,
    /// Slots that are taken.
    taken: usize,
    /// When slots are free again of those jobs for which that is certain.
    ends: BinaryHeap<Reverse<u64>>,
}

impl Devices {
    pub(crate) fn new(config: &Config) -> Self {
        let device =
            || Device { engines: vec![0; config.engines], taken: 0, ends: BinaryHeap::new() };
        Self {
            devices: (0..config.devices).map(|_| Mutex::new(device())).collect(),
            next: AtomicUsize::new(0),
            queue_depth: config.queue_depth,
            latency: config.latency as f64,
            byte_time: match config.throughput {
                0 => 0.0,
                bytes => 1e9 / bytes as f64,
            },
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.devices.is_empty()
    }

    /// A free slot, of the device whose turn it is or one after it. `None` where all are full.
    pub(crate) fn take_slot(&self, now: u64) -> Option<Slot> {
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        let turns = (first..first + self.devices.len()).map(|turn| turn % self.devices.len());
        turns.map(|device| Slot { device }).find(|&slot| {
            let mut device = self.device(slot);
            device.free_until(now);
            let is_free = device.taken < self.queue_depth;
            device.taken += usize::from(is_free);
            is_free
        })
    }

    /// Gives back a slot that no job has used.
    pub(crate) fn give_back(&self, slot: Slot) {
        self.device(slot).taken -= 1;
    }

    /// Has the engine that is free first do a job of so many bytes, `factor` times as slowly as
    /// engines are. Returns when the job is due.
    ///
    /// An engine is busy with a job's bytes alone: the latency of one overlaps with the next.
    pub(crate) fn schedule(&self, slot: Slot, now: u64, bytes: u32, factor: f64) -> u64 {
        let busy = (f64::from(bytes) * self.byte_time * factor).round() as u64;
        let latency = (self.latency * factor).round() as u64;
        let mut device = self.device(slot);
        let free = device.engines.iter_mut().min().expect("a device has an engine at least");
        *free = now.max(*free) + busy;
        *free + latency
    }

    /// The job of that slot ends at `end`, and the slot with it.
    pub(crate) fn release(&self, slot: Slot, end: u64) {
        self.device(slot).ends.push(Reverse(end));
    }

    fn device(&self, slot: Slot) -> MutexGuard<'_, Device> {
        self.devices[slot.device].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Device {
    fn free_until(&mut self, now: u64) {
        while self.ends.peek().is_some_and(|&Reverse(end)| end <= now) {
            self.ends.pop();
            self.taken -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::Faults;

    fn devices(devices: usize, engines: usize, queue_depth: usize) -> Devices {
        let latency = 1000;
        let throughput = 1_000_000_000;
        let config =
            Config { devices, engines, queue_depth, latency, throughput, ..Config::default() };
        Devices::new(&config)
    }

    #[test]
    fn engines_work_side_by_side_and_one_job_after_the_other() {
        let devices = devices(1, 2, 10);
        let due = |now| devices.schedule(devices.take_slot(now).unwrap(), now, 4096, 1.0);
        assert_eq!([due(0), due(0), due(0), due(0)], [5096, 5096, 9192, 9192]);
        assert_eq!(due(1_000_000), 1_005_096);
    }

    #[test]
    fn a_backlog_is_served_at_the_configured_throughput_whatever_the_jitter() {
        const JOBS: u64 = 10_000;
        let devices = devices(1, 2, JOBS as usize);
        let faults = Faults::new(&Config { jitter: 0.5, ..Config::default() });
        let due = (0..JOBS).map(|job| {
            let slot = devices.take_slot(0).unwrap();
            devices.schedule(slot, 0, 4096, faults.jitter(job))
        });
        let took = due.max().unwrap() as f64;
        let exact = (JOBS * 4096 / 2) as f64;
        assert!((took / exact - 1.0).abs() < 0.001, "{took} ns instead of {exact}");
    }

    #[test]
    fn a_slot_is_free_when_its_job_ends_and_no_sooner() {
        let devices = devices(1, 1, 2);
        let [first, second] = [(); 2].map(|()| devices.take_slot(0).unwrap());
        assert!(devices.take_slot(0).is_none());
        devices.release(second, 500);
        assert!(devices.take_slot(499).is_none());
        let third = devices.take_slot(500).unwrap();
        assert!(devices.take_slot(1 << 40).is_none(), "the first is not computed yet");
        devices.give_back(third);
        devices.release(first, 400);
        assert!(devices.take_slot(500).is_some() && devices.take_slot(500).is_some());
    }

    #[test]
    fn jobs_go_to_devices_in_turn_and_past_those_that_are_full() {
        let devices = devices(2, 1, 2);
        let taken: Vec<_> =
            std::iter::from_fn(|| devices.take_slot(0)).map(|slot| slot.device).collect();
        assert_eq!(taken, [0, 1, 0, 1]);
        devices.release(Slot { device: 0 }, 1);
        assert_eq!(devices.take_slot(1).unwrap().device, 0);
    }
}
