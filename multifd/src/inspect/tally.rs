//! The counts and findings so far.

use multifd_core::wire::Uuid;
use multifd_core::{Compression, PageSize};

use super::blocks::Blocks;
use super::finding::Place;
use super::findings::Findings;
use super::numbers::Numbers;
use super::report::{ChannelReport, MainReport, RoundReport};
use crate::stream::Configuration;

/// The most rounds that are counted separately: a peer can send a round in 8 bytes.
const MOST_ROUNDS: u64 = 100_000;

/// The counts and findings so far.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) page_size: PageSize,
    pub(super) configuration: Configuration,
    pub(super) main: MainReport,
    /// `None` until the main channel has listed them.
    pub(super) blocks: Option<Blocks>,
    pub(super) channels: Vec<Channel>,
    pub(super) rounds: Vec<RoundReport>,
    pub(super) numbers: Numbers,
    pub(super) uuid: Option<Uuid>,
    pub(super) compression: Option<Compression>,
    pub(super) findings: Findings,
}

/// What is known about a channel.
#[derive(Debug, Default)]
pub(super) struct Channel {
    pub(super) report: ChannelReport,
    /// The highest packet number so far.
    pub(super) last_num: Option<u64>,
    /// SYNC packets with pages.
    pub(super) syncs_with_pages: u64,
    /// The first packet with pages after the last SYNC so far, and the number of such packets.
    pub(super) behind_sync: Option<(Place, u64)>,
    /// Where its first packet with device state is.
    pub(super) first_device_state: Option<Place>,
    /// It is malformed or ends within a packet: what it should have carried is unknown.
    pub(super) is_broken: bool,
    /// Its size in bytes, once it has ended.
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
