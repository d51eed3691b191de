//! What keeps count and finds what is wrong.

use multifd_core::wire::Uuid;
use multifd_core::{Compression, PageSize};

use super::blocks::Blocks;
use super::finding::Place;
use super::findings::Findings;
use super::numbers::Numbers;
use super::parser::ChannelParser;
use super::report::{ChannelReport, MainReport, RoundReport};
use crate::stream::Configuration;

/// Rounds that are kept apart, at most: a sync on the main channel is only 8 bytes.
const MOST_ROUNDS: u64 = 100_000;

/// Keeps count of what goes over a migration's connections and finds what is against the format.
///
/// It has to be told of the main channel up to its list of RAM blocks
/// ([`knows_ram`](Self::knows_ram)) before a channel is [connected](Self::connect). From there on
/// the connections may come in any order; but that a page comes on two of them in one round is
/// only noticed where none is ahead of another by a round or more.
#[derive(Debug)]
pub struct Inspector {
    pub(super) page_size: PageSize,
    pub(super) configuration: Configuration,
    pub(super) main: MainReport,
    pub(super) main_is_over: bool,
    pub(super) knows_ram: bool,
    pub(super) blocks: Blocks,
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

impl Default for Inspector {
    fn default() -> Self {
        Self::new()
    }
}

impl Inspector {
    /// An inspector that has seen nothing yet.
    pub fn new() -> Self {
        Self {
            page_size: PageSize::default(),
            configuration: Configuration::default(),
            main: MainReport::default(),
            main_is_over: false,
            knows_ram: false,
            blocks: Blocks::default(),
            channels: Vec::new(),
            rounds: Vec::new(),
            numbers: Numbers::default(),
            uuid: None,
            compression: None,
            findings: Findings::default(),
        }
    }

    /// Whether the main channel has listed the RAM blocks.
    pub fn knows_ram(&self) -> bool {
        self.knows_ram
    }

    /// Whether the main channel is at its end or cannot be followed any further.
    pub fn main_is_over(&self) -> bool {
        self.main_is_over
    }

    /// Whether the main channel has been followed to its end.
    pub(super) fn main_is_whole(&self) -> bool {
        self.main.is_whole
    }

    /// What is wrong or unusual so far, in the order in which it was found. More is found when the
    /// connections are compared with each other, in the end.
    pub fn findings(&self) -> &Findings {
        &self.findings
    }

    /// A parser for one more channel. Its events are for [`channel`](Self::channel).
    pub fn connect(&mut self) -> ChannelParser {
        self.channels.push(Channel::default());
        ChannelParser::new(self.channels.len() - 1, self.page_size)
    }

    /// The counts of a round, from 0.
    pub(super) fn round(&mut self, round: u64) -> &mut RoundReport {
        let round = round.min(MOST_ROUNDS - 1) as usize;
        if round >= self.rounds.len() {
            self.rounds.resize_with(round + 1, RoundReport::default);
        }
        &mut self.rounds[round]
    }
}
