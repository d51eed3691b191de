//! Engines: which one takes next, and when.

use crate::speed::Time;

/// The engines of a device.
#[derive(Clone, Debug)]
pub struct Engines {
    /// When each is free; `None` while it is at work and that is not known yet.
    free: Vec<Option<u64>>,
}

impl Engines {
    /// So many, which are free from 0 on.
    #[must_use]
    pub fn new(count: usize) -> Self {
        Self { free: vec![Some(0); count] }
    }

    /// The one that takes next, and when it is free: the one that is for longest, or will be first.
    /// `None` where of none that is known.
    #[must_use]
    pub fn next(&self) -> Option<(usize, u64)> {
        let free = self.free.iter().enumerate();
        let known = free.filter_map(|(engine, &free)| Some((engine, free?)));
        known.min_by_key(|&(_, free)| free)
    }

    /// An engine takes what has arrived then. Returns when it begins. When it will be free is not known
    /// before its [`end`](Self::end).
    ///
    /// # Panics
    /// Where there is no such engine.
    pub fn begin(&mut self, engine: usize, arrived: u64) -> u64 {
        self.free[engine].take().map_or(arrived, |free| free.max(arrived))
    }

    /// What an engine has begun at `start` takes so long. Returns when its completion is due.
    ///
    /// # Panics
    /// Where there is no such engine.
    pub fn end(&mut self, engine: usize, start: u64, time: Time) -> u64 {
        let free = start.saturating_add(time.busy);
        self.free[engine] = Some(free);
        free.saturating_add(time.latency)
    }

    /// How many are at work on what they have begun and not ended.
    #[must_use]
    pub fn at_work(&self) -> usize {
        self.free.iter().filter(|free| free.is_none()).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: Time = Time { busy: 100, latency: 7 };

    #[test]
    fn the_engine_that_has_been_free_for_longest_takes_next() {
        let mut engines = Engines::new(3);
        for (engine, start) in [(0, 50), (1, 20), (2, 90)] {
            assert_eq!(engines.next(), Some((engine, 0)));
            assert_eq!(engines.begin(engine, start), start);
            assert_eq!(engines.end(engine, start, TIME), start + 107);
        }
        assert_eq!(engines.next(), Some((1, 120)));
    }

    #[test]
    fn an_engine_at_work_takes_nothing_and_begins_not_before_it_is_free() {
        let mut engines = Engines::new(1);
        assert_eq!(engines.begin(0, 5), 5);
        assert_eq!((engines.next(), engines.at_work()), (None, 1));
        engines.end(0, 5, TIME);
        assert_eq!((engines.next(), engines.at_work()), (Some((0, 105)), 0));
        assert_eq!(engines.begin(0, 50), 105);
    }

    #[test]
    fn times_beyond_the_end_of_the_clock_are_its_end() {
        let mut engines = Engines::new(1);
        let start = engines.begin(0, u64::MAX - 1);
        assert_eq!(engines.end(0, start, TIME), u64::MAX);
        assert_eq!(engines.next(), Some((0, u64::MAX)));
    }
}
