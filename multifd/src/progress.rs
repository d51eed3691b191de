//! Statistics of a migration while it runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use multifd_core::channel::{ChannelCounters, ChannelStats};
use multifd_core::{MethodStats, PageSize};

use crate::driver::ZeroCopyCounters;
use crate::stream::BlockInfo;

/// A view of a migration's counters, to be kept and read from any thread while it runs.
#[derive(Clone, Debug)]
pub struct Progress {
    channels: Arc<[Arc<ChannelCounters>]>,
    main: Arc<MainCounters>,
    zero_copy: Arc<ZeroCopyCounters>,
}

/// The counters of a migration at one moment.
#[non_exhaustive]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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
    /// Bytes of the VM's RAM; 0 until it is announced.
    pub ram_bytes: u64,
    /// Bytes of a page; 0 until the RAM is announced.
    pub page_bytes: u64,
    /// Whether each sync but the first ends a round. Machine types before QEMU 8.1 sync more often.
    pub syncs_are_rounds: bool,
    /// Connections that came to a receiving side and were refused: see [`Refused`](crate::Refused).
    pub refused_connections: u64,
    /// Writes of guest memory that were to be sent without a copy.
    pub zero_copy: ZeroCopyStats,
    /// Time since the migration began.
    pub elapsed: Duration,
}

/// Writes of guest memory that were to be sent without a copy: see
/// [`SourceBuilder::zero_copy`](crate::SourceBuilder::zero_copy).
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ZeroCopyStats {
    /// All of them, on all channels.
    pub writes: u64,
    /// Those that were copied all the same, as far as the kernel tells: the network device cannot do without, or
    /// no more memory may be locked (`ulimit -l`).
    pub copied: u64,
}

#[derive(Debug)]
pub(crate) struct MainCounters {
    began: Instant,
    zero_pages: AtomicU64,
    bytes: AtomicU64,
    syncs: AtomicU64,
    ram_bytes: AtomicU64,
    page_bytes: AtomicU64,
    syncs_are_rounds: AtomicBool,
    refused: AtomicU64,
}

impl Progress {
    pub(crate) fn new(channels: u8) -> Self {
        let main = MainCounters {
            began: Instant::now(),
            zero_pages: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            syncs: AtomicU64::new(0),
            ram_bytes: AtomicU64::new(0),
            page_bytes: AtomicU64::new(0),
            syncs_are_rounds: AtomicBool::new(true),
            refused: AtomicU64::new(0),
        };
        let channels = (0..channels).map(|_| Arc::default()).collect();
        Self { channels, main: Arc::new(main), zero_copy: Arc::default() }
    }

    /// The counters now.
    pub fn snapshot(&self) -> Stats {
        Stats {
            channels: self.channels.iter().map(|channel| channel.snapshot()).collect(),
            method: self.channels.iter().map(|channel| channel.method_stats()).sum(),
            main_zero_pages: self.main.zero_pages.load(Relaxed),
            main_bytes: self.main.bytes.load(Relaxed),
            syncs: self.main.syncs.load(Relaxed),
            ram_bytes: self.main.ram_bytes.load(Relaxed),
            page_bytes: self.main.page_bytes.load(Relaxed),
            syncs_are_rounds: self.main.syncs_are_rounds.load(Relaxed),
            refused_connections: self.main.refused.load(Relaxed),
            zero_copy: ZeroCopyStats {
                writes: self.zero_copy.writes.load(Relaxed),
                copied: self.zero_copy.copied.load(Relaxed),
            },
            elapsed: self.main.began.elapsed(),
        }
    }

    /// The counters of a channel. A number past the last is not counted: the channel is about to
    /// be refused.
    pub(crate) fn counters(&self, number: u8) -> Arc<ChannelCounters> {
        self.channels.get(usize::from(number)).map(Arc::clone).unwrap_or_default()
    }

    pub(crate) fn zero_copy_counters(&self) -> Arc<ZeroCopyCounters> {
        Arc::clone(&self.zero_copy)
    }

    pub(crate) fn count_zero_page(&self) {
        self.main.zero_pages.fetch_add(1, Relaxed);
    }

    /// Counts a connection that is refused. Returns how many there are.
    pub(crate) fn count_refused(&self) -> u64 {
        self.main.refused.fetch_add(1, Relaxed) + 1
    }

    pub(crate) fn count_sync(&self) {
        self.main.syncs.fetch_add(1, Relaxed);
    }

    /// The RAM has been announced. Its source syncs once a round, or more often.
    pub(crate) fn set_ram(&self, page_size: PageSize, blocks: &[BlockInfo], once_a_round: bool) {
        self.main.page_bytes.store(page_size.bytes() as u64, Relaxed);
        self.main.syncs_are_rounds.store(once_a_round, Relaxed);
        let bytes = blocks.iter().map(|block| block.bytes).fold(0, u64::saturating_add);
        self.main.ram_bytes.store(bytes, Relaxed);
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

    /// Guest memory that was moved, in bytes, of all rounds together.
    pub fn guest_bytes(&self) -> u64 {
        (self.total().normal_pages + self.zero_pages()) * self.page_bytes
    }

    /// The round that is under way, from 1 on; `None` where syncs do not tell it, and before the
    /// first.
    pub fn round(&self) -> Option<u64> {
        (self.syncs_are_rounds && self.syncs > 0).then_some(self.syncs)
    }

    /// Bytes on all channels, the main channel included.
    pub fn wire_bytes(&self) -> u64 {
        self.total().wire_bytes + self.main_bytes
    }
}
