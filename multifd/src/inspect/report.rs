//! What an inspection has found.

use std::ops::AddAssign;

use multifd_core::wire::{BlockName, Uuid};
use multifd_core::{Compression, PageSize};

use super::{DeviceState, Findings, Trace};
use crate::stream::{Configuration, SyncForm};

/// What a migration was made of.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Report {
    /// The machine, as the main channel gives it.
    pub configuration: Configuration,
    /// The page size.
    pub page_size: PageSize,
    /// The VM's UUID, as the first channel gives it.
    pub uuid: Option<Uuid>,
    /// The codec of the first packet with pages.
    pub compression: Option<Compression>,
    /// The main channel.
    pub main: MainReport,
    /// The multifd channels, in the order in which they were connected.
    pub channels: Vec<ChannelReport>,
    /// What came before the first sync (the setup phase), between the first and the second, and so on;
    /// then what came after the last sync, if anything did. At most 100,000: the last one also counts
    /// all later rounds.
    pub rounds: Vec<RoundReport>,
    /// The RAM blocks in the order of the main channel's list.
    pub blocks: Vec<BlockReport>,
    /// What is wrong or unusual.
    pub findings: Findings,
}

impl Report {
    /// The counts of all channels together.
    pub fn total(&self) -> Counts {
        self.channels.iter().fold(Counts::default(), |mut total, channel| {
            total += channel.counts;
            total
        })
    }
}

/// The main channel.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct MainReport {
    /// Its length in bytes, up to where it could be decoded.
    pub bytes: u64,
    /// How it tells the destination to wait for all channels.
    pub sync: Option<SyncForm>,
    /// How many such syncs it has.
    pub syncs: u64,
    /// START, PART and END sections of RAM.
    pub sections: u64,
    /// Pages on it that are all zero.
    pub zero_pages: u64,
    /// Pages on it with data.
    pub normal_pages: u64,
    /// Whether the source has asked for answers.
    pub return_path: bool,
    /// Bytes of state that devices sent before the pages.
    pub early_state_bytes: u64,
    /// Whether the source has switched to postcopy: what came on it from then on is not looked at.
    pub postcopy: bool,
    /// Whether it was decoded to its end.
    pub is_whole: bool,
    /// The device state.
    pub device_state: Option<DeviceState>,
}

/// A multifd channel.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ChannelReport {
    /// The number in its initial packet.
    pub id: Option<u8>,
    /// SYNC packets.
    pub syncs: u64,
    /// Packets with neither pages nor SYNC.
    pub empty: u64,
    /// Packets with device state.
    pub device_state: u64,
    /// What it carried.
    pub counts: Counts,
    /// Its progress over time.
    pub trace: Trace,
}

/// What was sent between two syncs.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct RoundReport {
    /// On all channels; SYNC packets are of the round that they end.
    pub counts: Counts,
    /// Zero pages on the main channel.
    pub main_zero_pages: u64,
    /// Pages with data on the main channel.
    pub main_normal_pages: u64,
    /// Bytes by channel. It may be shorter than the list of channels: the missing ones have 0.
    pub channel_bytes: Vec<u64>,
}

impl RoundReport {
    /// Whether it has no pages.
    pub fn is_empty(&self) -> bool {
        let Counts { normal_pages, zero_pages, .. } = self.counts;
        normal_pages + zero_pages + self.main_zero_pages + self.main_normal_pages == 0
    }
}

/// A RAM block.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct BlockReport {
    /// Its name.
    pub name: BlockName,
    /// Its size in bytes.
    pub bytes: u64,
    /// Its size in pages.
    pub pages: u64,
    /// What the channels carried of it.
    pub counts: Counts,
    /// Pages of it that came on the main channel.
    pub main_pages: u64,
    /// How many of its pages came at least once.
    pub sent: u64,
    /// How many came more than once.
    pub sent_again: u64,
    /// How often the most frequent page came, at most 65535.
    pub most_times: u32,
}

/// Packets and pages on multifd channels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Packets, including SYNC packets but not initial packets.
    pub packets: u64,
    /// Pages with data.
    pub normal_pages: u64,
    /// Pages that are all zero.
    pub zero_pages: u64,
    /// Normal pages that are not compressed, if that is known: all of them with codec none, by the
    /// lengths of the chunks with QPL and UADK. 0 with other codecs.
    pub raw_pages: u64,
    /// Bytes of payload.
    pub payload_bytes: u64,
    /// Bytes on the wire, including device state.
    pub wire_bytes: u64,
}

impl Counts {
    /// Bytes of normal pages for each byte of payload; `None` without payload.
    pub fn ratio(&self, page_size: PageSize) -> Option<f64> {
        let pages = self.normal_pages as f64 * page_size.bytes() as f64;
        (self.payload_bytes > 0).then(|| pages / self.payload_bytes as f64)
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.packets += other.packets;
        self.normal_pages += other.normal_pages;
        self.zero_pages += other.zero_pages;
        self.raw_pages += other.raw_pages;
        self.payload_bytes += other.payload_bytes;
        self.wire_bytes += other.wire_bytes;
    }
}
