//! The main channel, counted and checked.

use super::DeviceState;
use super::blocks::Blocks;
use super::finding::{Connection, FindingKind, Place};
use super::tally::Tally;
use crate::stream::{MainDecoder, MainEvent, StreamError};

impl Tally {
    /// Counts and checks the event that `decoder` has just given.
    pub(super) fn main(&mut self, decoder: &MainDecoder, event: &MainEvent) {
        self.main.bytes = decoder.offset();
        match event {
            MainEvent::Configuration(configuration) => {
                self.configuration = configuration.clone();
                self.page_size = decoder.page_size();
            }
            MainEvent::RamStart { blocks, sync, .. } => {
                self.blocks = Some(Blocks::new(blocks));
                self.main.sync = Some(*sync);
                self.main.sections += 1;
            }
            MainEvent::OpenReturnPath => self.main.return_path = true,
            MainEvent::Sync => self.main.syncs += 1,
            MainEvent::ZeroPage { block, offset } => {
                self.main.zero_pages += 1;
                self.round(self.main.syncs).main_zero_pages += 1;
                self.main_page(*block, *offset);
            }
            MainEvent::Page { block, offset, .. } => {
                self.main.normal_pages += 1;
                self.round(self.main.syncs).main_normal_pages += 1;
                self.main_page(*block, *offset);
            }
            MainEvent::BodyEnd { .. } => self.main.sections += 1,
            MainEvent::EarlyState(section) => self.main.early_state_bytes += section.len() as u64,
            MainEvent::Postcopy => self.main.postcopy = true,
            MainEvent::DeviceState(bytes) => {
                self.main.is_whole = true;
                self.main_device_state(decoder.footers(), bytes);
            }
            _ => {}
        }
    }

    /// Notes the error that ends the main channel after `bytes` bytes.
    pub(super) fn main_error(&mut self, bytes: u64, error: &StreamError) {
        self.main.bytes = bytes;
        self.note_main(error.offset, FindingKind::Main(error.kind.to_string()));
    }

    /// Notes that `bytes` bytes came after the end of the main channel.
    pub(super) fn trailing(&mut self, bytes: u64) {
        if bytes > 0 {
            self.note_main(self.main.bytes, FindingKind::Trailing(bytes));
        }
    }

    /// Notes a page that has just come on the main channel.
    fn main_page(&mut self, block: usize, offset: u64) {
        let Some(blocks) = &mut self.blocks else { return };
        blocks.count_on_main(block);
        let page = offset / self.page_size.bytes() as u64;
        let before = blocks.mark(block, page, self.main.syncs, Connection::Main);
        let block = || blocks.name(block).clone();
        let kind = match before {
            None => return,
            Some(Connection::Main) => {
                FindingKind::RepeatedInRound { offset, block: block(), pages: 1 }
            }
            Some(other) => FindingKind::TwoConnections { offset, block: block(), other, pages: 1 },
        };
        self.note_main(self.main.bytes, kind);
    }

    fn main_device_state(&mut self, footers: bool, bytes: &[u8]) {
        let offset = self.main.bytes - bytes.len() as u64;
        let (state, found) = DeviceState::parse(bytes, offset, self.page_size, footers);
        self.main.device_state = Some(state);
        for (offset, kind) in found {
            self.note_main(offset, kind);
        }
    }

    fn note_main(&mut self, offset: u64, kind: FindingKind) {
        let connection = Connection::Main;
        self.findings.add(Place { connection, offset, packet: None, packet_num: None }, kind);
    }
}
