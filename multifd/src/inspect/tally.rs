//! What keeps count.

use multifd_core::wire::Uuid;
use multifd_core::{Compression, PageSize};

use super::blocks::Blocks;
use super::finding::Place;
use super::findings::Findings;
use super::numbers::Numbers;
use super::report::{ChannelReport, MainReport, RoundReport};
use crate::stream::Configuration;

/// Rounds that are kept apart, at most: a sync on the main channel is only 8 bytes.
const MOST_ROUNDS: u64 = 100_000;

/// What has been counted and found so far.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) page_size: PageSize,
    pub(super) configuration: Configuration,
    pub(super) main: MainReport,
    /// Once the main channel has listed them.
    pub(super) blocks: Option<Blocks>,
    pub(super) channels: Vec<Channel>,
    pub(super) rounds: Vec<RoundReport>,
    pub(super) numbers: Numbers,
    pub(super) uuid: Option<Uuid>,
    pub(super) compression: Option<Compression>,
    pub(super) findings: Findings,
}

/// What is known of a channel.
#[derive(Debug, Default)]
pub(super) struct Channel {
    pub(super) report: ChannelReport,
    /// The highest packet number so far.
    pub(super) last_num: Option<u64>,
    /// SYNC packets with pages.
    pub(super) syncs_with_pages: u64,
    /// Where the first packet with pages is behind the last SYNC so far, and how many there are.
    pub(super) behind_sync: Option<(Place, u64)>,
    /// Where its first packet with device state is.
    pub(super) first_device_state: Option<Place>,
    /// It ends where it should not, or is malformed: what it would have carried is not known.
    pub(super) is_broken: bool,
    /// The bytes of it that have come.
    pub(super) end: u64,
}

impl Tally {
    /// The counts of a round, from 0.
    pub(super) fn round(&mut self, round: u64) -> &mut RoundReport {
        let round = round.min(MOST_ROUNDS - 1) as usize;
        if round >= self.rounds.len() {
            self.rounds.resize_with(round + 1, RoundReport::default);
        }
        &mut self.rounds[round]
    }
}
