//! Checks at the end, when all connections can be compared.

use multifd_core::Compression;

use super::channel::{at, field};
use super::finding::{Connection, FindingKind, Place};
use super::parser::{ChannelParser, End};
use super::report::Report;
use super::tally::Tally;

impl Tally {
    /// Notes the end of a channel.
    pub(super) fn end(&mut self, parser: &mut ChannelParser) {
        let End { channel, packet, offset, cut } = parser.end();
        self.channels[channel].end = offset;
        if let Some(cut) = cut {
            self.channels[channel].is_broken = true;
            let connection = Connection::Channel(channel);
            let place = Place { connection, offset, packet: Some(packet), packet_num: None };
            self.findings.add(place, cut);
        }
    }

    /// Compares the connections with each other. All of them have ended.
    pub(super) fn conclude(mut self) -> Report {
        self.check_ids();
        self.check_uuid();
        self.check_syncs();
        self.check_numbers();
        self.check_device_state();
        self.check_pages();
        self.findings.sort();
        Report {
            configuration: self.configuration,
            page_size: self.page_size,
            uuid: self.uuid,
            compression: self.compression,
            main: self.main,
            channels: self.channels.into_iter().map(|channel| channel.report).collect(),
            rounds: self.rounds,
            blocks: self.blocks.map_or_else(Vec::new, |blocks| blocks.reports(self.page_size)),
            findings: self.findings,
        }
    }

    fn check_ids(&mut self) {
        let channels = self.channels.len();
        for number in 0..channels {
            let Some(id) = self.channels[number].report.id else { continue };
            if usize::from(id) >= channels {
                let kind = FindingKind::ChannelId { id, channels };
                self.findings.add(at(start(Connection::Channel(number)), field::ID), kind);
            }
        }
    }

    /// A source with the capability validate-uuid gives the VM's UUID on the main channel, too.
    fn check_uuid(&mut self) {
        let expected = self.configuration.uuid();
        if let (Some(expected), Some(found)) = (expected, self.uuid) {
            if expected != found {
                let from = "the main channel";
                let place = at(start(Connection::Channel(0)), field::UUID);
                self.findings.add(place, FindingKind::Uuid { found, from, expected });
            }
        }
    }

    /// Every channel must have as many SYNC packets as the main channel has syncs; if the main channel
    /// is broken, as many as the other channels.
    fn check_syncs(&mut self) {
        let whole = || self.channels.iter().filter(|channel| !channel.is_broken);
        let most = whole().map(|channel| channel.report.syncs).max().unwrap_or_default();
        let (from, expected) = match self.main.is_whole {
            true => ("the main channel", self.main.syncs),
            false => ("another channel", most),
        };
        for (number, channel) in self.channels.iter().enumerate() {
            let found = channel.report.syncs;
            if channel.is_broken {
                continue;
            }
            let connection = Connection::Channel(number);
            if found != expected {
                let place = Place { offset: channel.end, ..start(connection) };
                self.findings.add(place, FindingKind::SyncCount { found, from, expected });
            } else if let Some((place, packets)) = channel.behind_sync {
                self.findings.add(place, FindingKind::AfterLastSync(packets));
            }
        }
    }

    /// All numbers from 0 on must have come, except those that QEMU before 9.0 leaves out: it numbers a
    /// packet with pages, then gives it the next number when it makes it a SYNC.
    fn check_numbers(&mut self) {
        if self.channels.iter().any(|channel| channel.is_broken) {
            return;
        }
        let left_out: u64 = self.channels.iter().map(|channel| channel.syncs_with_pages).sum();
        match self.numbers.missing() {
            Some((missing, first)) if missing > left_out => {
                let place = start(Connection::Channel(0));
                self.findings.add(place, FindingKind::MissingNumbers { missing, first });
            }
            _ => {}
        }
    }

    fn check_device_state(&mut self) {
        let compression = self.compression.unwrap_or(Compression::None);
        if compression == Compression::None {
            return;
        }
        for place in self.channels.iter().filter_map(|channel| channel.first_device_state) {
            self.findings.add(place, FindingKind::DeviceStateCompression(compression));
        }
    }

    fn check_pages(&mut self) {
        if self.main.postcopy {
            // The rest came later, where nobody has looked.
            return;
        }
        let Some(blocks) = &self.blocks else { return };
        let place = start(Connection::Main);
        if blocks.untracked() > 0 {
            self.findings.add(place, FindingKind::Untracked(blocks.untracked()));
            return;
        }
        for (block, pages, of) in blocks.never_sent(self.page_size) {
            self.findings.add(place, FindingKind::NeverSent { pages, of, block });
        }
    }
}

fn start(connection: Connection) -> Place {
    Place { connection, offset: 0, packet: None, packet_num: None }
}
