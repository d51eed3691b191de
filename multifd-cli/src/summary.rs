//! What a migration has moved, as the program reports it.

use std::time::Duration;

use multifd::Stats;
use multifd::core::MethodStats;
use serde::{Serialize, Serializer};

use crate::size::Bytes;

/// The counts of one migration.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Summary {
    /// Guest memory, of all rounds together.
    pub(crate) guest_bytes: u64,
    pub(crate) normal_pages: u64,
    pub(crate) zero_pages: u64,
    /// What the normal pages were compressed to.
    pub(crate) payload_bytes: u64,
    /// All channels, the main channel included.
    pub(crate) wire_bytes: u64,
    /// Bytes of normal pages for each byte of payload; `None` without normal pages.
    pub(crate) ratio: Option<f64>,
    /// Writes of guest memory that were to go without a copy; `None` where none was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) zero_copy: Option<ZeroCopy>,
    pub(crate) seconds: f64,
    pub(crate) guest_bytes_per_second: f64,
    /// What the codec has counted.
    #[serde(serialize_with = "counts")]
    pub(crate) codec_stats: MethodStats,
}

/// Writes of guest memory that were to go without a copy.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct ZeroCopy {
    writes: u64,
    /// Those that the kernel copied all the same.
    copied: u64,
}

impl Summary {
    pub(crate) fn new(stats: &Stats, page_bytes: usize, time: Duration) -> Self {
        let total = stats.total();
        let page_bytes = page_bytes as u64;
        let guest_bytes = (total.normal_pages + stats.zero_pages()) * page_bytes;
        let normal_bytes = total.normal_pages * page_bytes;
        let seconds = time.as_secs_f64();
        Self {
            guest_bytes,
            normal_pages: total.normal_pages,
            zero_pages: stats.zero_pages(),
            payload_bytes: total.payload_bytes,
            wire_bytes: stats.wire_bytes(),
            ratio: (total.payload_bytes > 0)
                .then(|| normal_bytes as f64 / total.payload_bytes as f64),
            zero_copy: (stats.zero_copy.writes > 0).then_some(ZeroCopy {
                writes: stats.zero_copy.writes,
                copied: stats.zero_copy.copied,
            }),
            seconds,
            guest_bytes_per_second: guest_bytes as f64 / seconds.max(1e-9),
            codec_stats: stats.method.clone(),
        }
    }

    /// Guest memory in GiB/s.
    pub(crate) fn speed(&self) -> f64 {
        self.guest_bytes_per_second / f64::from(1 << 30)
    }

    /// The summary in one sentence.
    pub(crate) fn sentence(&self) -> String {
        let ratio = self.ratio.map_or_else(String::new, |ratio| format!(" (ratio {ratio:.2})"));
        let counted = counted(&self.codec_stats);
        let counted = counted.map_or_else(String::new, |counted| format!("; {counted}"));
        let zero_copy = self.zero_copy.map_or_else(String::new, |ZeroCopy { writes, copied }| {
            format!("; {writes} writes by zero-copy send, of which the kernel copied {copied}")
        });
        format!(
            "{} of guest memory in {:.2} s ({:.2} GiB/s): {} on the wire, {} pages with \
             data{ratio}, {} zero pages{counted}{zero_copy}",
            Bytes(self.guest_bytes),
            self.seconds,
            self.speed(),
            Bytes(self.wire_bytes),
            self.normal_pages,
            self.zero_pages,
        )
    }
}

/// What a codec has counted, by name.
pub(crate) fn counts<S: Serializer>(stats: &MethodStats, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(stats.iter())
}

/// What a codec has counted, for a person: `7 raw pages`. `None` if all counts are 0.
pub(crate) fn counted(stats: &MethodStats) -> Option<String> {
    let counts = stats.iter().filter(|&(_, count)| count > 0);
    let counts: Vec<_> = counts.map(|(name, count)| format!("{count} {name}")).collect();
    (!counts.is_empty()).then(|| counts.join(", "))
}

#[cfg(test)]
mod tests {
    use multifd::core::MethodCounters;

    use super::*;

    #[test]
    fn what_was_not_counted_is_not_mentioned() {
        let counters = MethodCounters::new(&["raw pages", "busy pages", "hardware pages"]);
        assert_eq!(counted(&counters.snapshot()), None);
        counters.add(0, 7);
        counters.add(2, 12);
        let counted = counted(&counters.snapshot());
        assert_eq!(counted.as_deref(), Some("12 hardware pages, 7 raw pages"));
    }
}
