//! All that a board says, at one moment.

use std::time::Duration;

use multifd::Stats;
use multifd::core::MethodStats;

use super::migration::{How, Migration};

/// The number of migrations that have ended with each of [`How::RESULTS`].
pub(super) type Results = [u64; How::RESULTS.len()];

/// All that a board says, at one moment.
#[derive(Debug)]
pub(super) struct View {
    /// relay or recv.
    pub(super) service: &'static str,
    /// When the service began, in seconds since 1970.
    pub(super) since: f64,
    pub(super) stopping: bool,
    /// The most migrations at once.
    pub(super) limit: Option<usize>,
    pub(super) results: Results,
    pub(super) totals: Totals,
    /// Connections that were refused, by reason.
    pub(super) refused: Vec<(String, u64)>,
    /// Lines that could not be written, by where they were to go.
    pub(super) lost: [(&'static str, u64); 2],
    pub(super) running: Vec<Migration>,
    /// The last ones, the very last first.
    pub(super) ended: Vec<Migration>,
}

/// What all migrations have moved, those that run included.
#[derive(Clone, Debug, Default)]
pub(super) struct Totals {
    pub(super) from: Sum,
    pub(super) to: Sum,
    pub(super) cpu: Duration,
}

/// What was moved on one side.
#[derive(Clone, Debug, Default)]
pub(super) struct Sum {
    pub(super) normal_pages: u64,
    pub(super) zero_pages: u64,
    pub(super) payload_bytes: u64,
    pub(super) wire_bytes: u64,
    /// What the codecs have counted.
    pub(super) counts: MethodStats,
}

impl Totals {
    /// The sides by their names in labels.
    pub(super) fn sides(&self) -> [(&'static str, &Sum); 2] {
        [("from", &self.from), ("to", &self.to)]
    }
}

impl Sum {
    pub(super) fn add(&mut self, stats: &Stats) {
        let total = stats.total();
        self.normal_pages += total.normal_pages;
        self.zero_pages += stats.zero_pages();
        self.payload_bytes += total.payload_bytes;
        self.wire_bytes += stats.wire_bytes();
        self.counts += stats.method.clone();
    }
}
