//! The accelerators of one side. Each has a queue, and engines that take pages from it in order.

use iaa_timing::{Device, Speed as EngineSpeed, Time};

use crate::parameters::{DeviceFigures, Speed};
use crate::workload::PAGE;

#[derive(Debug)]
pub(super) struct Devices {
    devices: Vec<Device>,
    /// That of any page: all are equally large.
    page: Time,
}

impl Devices {
    /// The devices of one side. Each engine has this speed.
    pub(super) fn new(figures: &DeviceFigures, speed: Speed) -> Self {
        let throughput = speed.bytes_per_second().round() as u64;
        let speed = EngineSpeed { latency: figures.latency_ns, throughput };
        let device = Device::new(figures.engines.get().into(), figures.queue_depth.into());
        let devices = vec![device; figures.count.into()];
        Self { devices, page: speed.time_of(PAGE as u32, 1.0) }
    }

    /// The time of a page in an engine.
    pub(super) fn service_ns(&self) -> u64 {
        self.page.busy
    }

    /// Submits a page to the first device, from `turn` on, whose queue has room. Returns when the
    /// page is done; `None` if every queue is full.
    pub(super) fn submit(&mut self, now: u64, turn: &mut usize) -> Option<u64> {
        let count = self.devices.len();
        for step in 0..count {
            let at = (*turn + step) % count;
            if let Some(done) = self.devices[at].submit(now, self.page) {
                *turn = (at + 1) % count;
                return Some(done);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU8;

    use super::*;
    use crate::parameters::Parameters;

    #[test]
    fn devices_take_turns_and_a_full_one_is_passed_over() {
        let figures = Parameters::default().devices;
        let (engines, latency_ns) = (NonZeroU8::MIN, 7);
        let figures = DeviceFigures { count: 2, engines, queue_depth: 1, latency_ns, ..figures };
        let mut two = Devices::new(&figures, Speed::nearest(PAGE as f64 * 1e7));
        let mut turn = 0;
        let done: Vec<_> = (0..5).map(|_| two.submit(0, &mut turn)).collect();
        assert_eq!(done, [Some(107), Some(107), Some(207), Some(207), None]);
    }
}
