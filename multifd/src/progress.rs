//! Statistics of a migration while it runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use multifd_core::MethodStats;
use multifd_core::channel::{ChannelCounters, ChannelStats};

/// A view of a migration's counters, to be kept and read from any thread while it runs.
#[derive(Clone, Debug)]
pub struct Progress {
    channels: Arc<[Arc<ChannelCounters>]>,
    main: Arc<MainCounters>,
}

/// The counters of a migration at one moment.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stats {
    /// What each channel has carried, by its number.
    pub channels: Vec<ChannelStats>,
    /// What the codec has counted on all channels.
    pub method: MethodStats,
    /// Zero pages that came on the main channel.
    pub main_zero_pages: u64,
    /// Bytes of the main channel.
    pub main_bytes: u64,
    /// Syncs of all channels with the main channel: one at the start, then one a round.
    pub syncs: u64,
    /// Time since the migration began.
    pub elapsed: Duration,
}

#[derive(Debug)]
pub(crate) struct MainCounters {
    began: Instant,
    zero_pages: AtomicU64,
    bytes: AtomicU64,
    syncs: AtomicU64,
}

impl Progress {
    pub(crate) fn new(channels: u8) -> Self {
        let main = MainCounters {
            began: Instant::now(),
            zero_pages: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            syncs: AtomicU64::new(0),
        };
        Self { channels: (0..channels).map(|_| Arc::default()).collect(), main: Arc::new(main) }
    }

    /// The counters now.
    pub fn snapshot(&self) -> Stats {
        Stats {
            channels: self.channels.iter().map(|channel| channel.snapshot()).collect(),
            method: self.channels.iter().map(|channel| channel.method_stats()).sum(),
            main_zero_pages: self.main.zero_pages.load(Relaxed),
            main_bytes: self.main.bytes.load(Relaxed),
            syncs: self.main.syncs.load(Relaxed),
            elapsed: self.main.began.elapsed(),
        }
    }

    /// The counters of a channel. A number past the last is not counted: the channel is about to
    /// be refused.
    pub(crate) fn counters(&self, number: u8) -> Arc<ChannelCounters> {
        self.channels.get(usize::from(number)).map(Arc::clone).unwrap_or_default()
    }

    pub(crate) fn count_zero_page(&self) {
        self.main.zero_pages.fetch_add(1, Relaxed);
    }

    pub(crate) fn count_sync(&self) {
        self.main.syncs.fetch_add(1, Relaxed);
    }

    pub(crate) fn set_main_bytes(&self, bytes: u64) {
        self.main.bytes.store(bytes, Relaxed);
    }
}

impl Stats {
    /// The sum of all channels.
    pub fn total(&self) -> ChannelStats {
        self.channels.iter().copied().sum()
    }

    /// Zero pages on all channels, the main channel included.
    pub fn zero_pages(&self) -> u64 {
        self.total().zero_pages + self.main_zero_pages
    }

    /// Bytes on all channels, the main channel included.
    pub fn wire_bytes(&self) -> u64 {
        self.total().wire_bytes + self.main_bytes
    }
}
