//! What the library refuses, though there are devices.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use qpl_sys::Status;

use crate::config::Config;

/// The refusals of a process.
pub(crate) struct Refusals {
    seed: u64,
    init: f64,
    /// The number of the next initialisation for hardware.
    next_init: AtomicU64,
    after: Option<u64>,
    /// The number of the next submission.
    next_submission: AtomicU64,
    /// Whether a submission was refused.
    refuses: AtomicBool,
}

impl Refusals {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            seed: config.devices.seed,
            init: config.init,
            next_init: AtomicU64::new(0),
            after: config.refuse_after,
            next_submission: AtomicU64::new(0),
            refuses: AtomicBool::new(false),
        }
    }

    /// The status with which the next initialisation for hardware fails, if it does.
    pub(crate) fn of_init(&self) -> Option<Status> {
        const STATUSES: [Status; 3] = [
            Status::INIT_LIBACCEL_NOT_FOUND,
            Status::INIT_LIBACCEL,
            Status::INIT_WORK_QUEUES_NOT_AVAILABLE,
        ];
        if self.refuses.load(Ordering::Relaxed) {
            return Some(Status::INIT_WORK_QUEUES_NOT_AVAILABLE);
        }
        let draw = self.draw(self.next_init.fetch_add(1, Ordering::Relaxed));
        // From 0 to below 1.
        let unit = (draw >> 11) as f64 / (1_u64 << 53) as f64;
        (unit < self.init).then(|| STATUSES[(draw % 3) as usize])
    }

    /// The status with which the next submission is refused, if it is.
    pub(crate) fn of_submission(&self) -> Option<Status> {
        const STATUSES: [Status; 2] =
            [Status::NOT_SUPPORTED_BY_WQ, Status::INIT_WORK_QUEUES_NOT_AVAILABLE];
        let after = self.after?;
        let number = self.next_submission.fetch_add(1, Ordering::Relaxed);
        if number < after {
            return None;
        }
        self.refuses.store(true, Ordering::Relaxed);
        Some(STATUSES[(number % 2) as usize])
    }

    /// `SplitMix64`'s output of that number.
    fn draw(&self, number: u64) -> u64 {
        let value =
            self.seed.wrapping_add(number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ (value >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn initialisations_fail_at_their_rate_and_with_each_status() {
        for (rate, expected) in [(0.0, 0..=0), (0.3, 2800..=3200), (1.0, 10_000..=10_000)] {
            let refusals = Refusals::new(&Config { init: rate, ..Config::default() });
            let failed: Vec<_> = (0..10_000).filter_map(|_| refusals.of_init()).collect();
            assert!(expected.contains(&failed.len()), "{} at {rate}", failed.len());
            assert!(rate == 0.0 || (501..=503).all(|status| failed.contains(&Status(status))));
        }
    }

    #[test]
    fn once_a_submission_is_refused_so_is_all_that_follows() {
        let refusals = Refusals::new(&Config { refuse_after: Some(2), ..Config::default() });
        assert_eq!(
            [refusals.of_submission(), refusals.of_submission(), refusals.of_init()],
            [None; 3]
        );
        let refused = [refusals.of_submission(), refusals.of_submission()];
        assert_eq!(refused.map(|status| status.map(|status| status.0)), [Some(8), Some(503)]);
        assert_eq!(refusals.of_init(), Some(Status::INIT_WORK_QUEUES_NOT_AVAILABLE));
    }
}
