//! What a channel has carried, readable while it runs.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::counters::{MethodCounters, MethodStats};

/// The running counts of one channel. Shared with whoever watches.
#[derive(Debug, Default)]
pub struct ChannelCounters {
    packets: AtomicU64,
    normal_pages: AtomicU64,
    zero_pages: AtomicU64,
    payload_bytes: AtomicU64,
    wire_bytes: AtomicU64,
    method: OnceLock<MethodCounters>,
}

/// The counts of one channel, or of several added up, at one moment.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChannelStats {
    /// Packets, those that only synchronise included.
    pub packets: u64,
    /// Pages with data.
    pub normal_pages: u64,
    /// Pages found zero on the channel.
    pub zero_pages: u64,
    /// Bytes of payload: what the normal pages were compressed to.
    pub payload_bytes: u64,
    /// All bytes of the channel.
    pub wire_bytes: u64,
}

impl ChannelCounters {
    /// The counts now. While the channel runs, they may be of different packets.
    pub fn snapshot(&self) -> ChannelStats {
        ChannelStats {
            packets: self.packets.load(Relaxed),
            normal_pages: self.normal_pages.load(Relaxed),
            zero_pages: self.zero_pages.load(Relaxed),
            payload_bytes: self.payload_bytes.load(Relaxed),
            wire_bytes: self.wire_bytes.load(Relaxed),
        }
    }

    /// What the codec has counted by now; nothing before the channel is set up.
    pub fn method_stats(&self) -> MethodStats {
        self.method.get().map(MethodCounters::snapshot).unwrap_or_default()
    }

    pub(super) fn set_method(&self, counters: MethodCounters) {
        // A second channel that counts here keeps the first one's.
        _ = self.method.set(counters);
    }

    pub(super) fn add(&self, more: ChannelStats) {
        self.packets.fetch_add(more.packets, Relaxed);
        self.normal_pages.fetch_add(more.normal_pages, Relaxed);
        self.zero_pages.fetch_add(more.zero_pages, Relaxed);
        self.payload_bytes.fetch_add(more.payload_bytes, Relaxed);
        self.wire_bytes.fetch_add(more.wire_bytes, Relaxed);
    }
}

impl std::ops::Add for ChannelStats {
    type Output = Self;

    fn add(self, more: Self) -> Self {
        Self {
            packets: self.packets + more.packets,
            normal_pages: self.normal_pages + more.normal_pages,
            zero_pages: self.zero_pages + more.zero_pages,
            payload_bytes: self.payload_bytes + more.payload_bytes,
            wire_bytes: self.wire_bytes + more.wire_bytes,
        }
    }
}

impl std::iter::Sum for ChannelStats {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, one| sum + one)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counts_of_several_channels_are_added_each_to_its_own() {
        let channel = |n| ChannelStats {
            packets: n,
            normal_pages: 2 * n,
            zero_pages: 3 * n,
            payload_bytes: 4 * n,
            wire_bytes: 5 * n,
        };
        assert_eq!(
            [channel(1), channel(10), channel(5)].into_iter().sum::<ChannelStats>(),
            channel(16)
        );
    }

    #[test]
    fn the_codecs_counts_are_there_from_when_it_is_set_up() {
        let method = MethodCounters::new(&["jobs"]);
        let counters = ChannelCounters::default();
        assert_eq!(counters.method_stats(), MethodStats::default());
        counters.set_method(method.clone());
        method.add(0, 3);
        assert_eq!(counters.method_stats().get("jobs"), Some(3));
    }
}
