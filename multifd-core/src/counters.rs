//! What a method counts on a channel.

use std::collections::BTreeMap;
use std::ops::{Add, AddAssign};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The running counts of one method on one channel, by name. Clones share the counts, so that
/// whoever watches the migration reads them while it runs.
///
/// The default has no counts, for a method that has nothing to say beyond what the channel counts.
#[derive(Clone, Debug, Default)]
pub struct MethodCounters {
    names: &'static [&'static str],
    counts: Arc<[AtomicU64]>,
}

impl MethodCounters {
    /// Counts by these names, each 0: `raw pages`, for example.
    pub fn new(names: &'static [&'static str]) -> Self {
        Self { names, counts: names.iter().map(|_| AtomicU64::new(0)).collect() }
    }

    /// Adds to the count whose name has the index `index`.
    ///
    /// # Panics
    /// With an index past the last name.
    pub fn add(&self, index: usize, more: u64) {
        self.counts[index].fetch_add(more, Relaxed);
    }

    /// The counts now.
    pub fn snapshot(&self) -> MethodStats {
        let counts = self.counts.iter().map(|count| count.load(Relaxed));
        MethodStats(self.names.iter().copied().zip(counts).collect())
    }
}

/// What methods have counted, on one channel or on several added up, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MethodStats(BTreeMap<&'static str, u64>);

impl MethodStats {
    /// The count called `name`.
    pub fn get(&self, name: &str) -> Option<u64> {
        self.0.get(name).copied()
    }

    /// All counts, by their names in order.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.0.iter().map(|(&name, &count)| (name, count))
    }

    /// Whether nothing is counted.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl AddAssign for MethodStats {
    fn add_assign(&mut self, more: Self) {
        for (name, count) in more.0 {
            *self.0.entry(name).or_default() += count;
        }
    }
}

impl Add for MethodStats {
    type Output = Self;

    fn add(mut self, more: Self) -> Self {
        self += more;
        self
    }
}

impl std::iter::Sum for MethodStats {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), Add::add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_read_while_they_grow_and_added_up_by_name() {
        let one = MethodCounters::new(&["raw pages", "hardware pages"]);
        let watched = one.clone();
        one.add(0, 2);
        one.add(0, 1);
        assert_eq!(watched.snapshot().get("raw pages"), Some(3));
        let other = MethodCounters::new(&["raw pages", "software pages"]);
        other.add(0, 4);
        other.add(1, 5);
        let sum: MethodStats = [one.snapshot(), other.snapshot()].into_iter().sum();
        let sum: Vec<_> = sum.iter().collect();
        assert_eq!(sum, [("hardware pages", 0), ("raw pages", 7), ("software pages", 5)]);
        assert!(MethodCounters::default().snapshot().is_empty());
    }
}
