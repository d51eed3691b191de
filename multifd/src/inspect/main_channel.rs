//! What the main channel says.

use super::DeviceState;
use super::blocks::Blocks;
use super::finding::{Connection, FindingKind, Place};
use super::inspector::Inspector;
use crate::stream::{MainDecoder, MainEvent, StreamError};

impl Inspector {
    /// Takes in what `decoder` has just said of the main channel.
    pub fn main(&mut self, decoder: &MainDecoder, event: Result<&MainEvent, &StreamError>) {
        self.main.bytes = decoder.offset();
        match event {
            Ok(event) => self.main_event(decoder, event),
            Err(error) => {
                self.main_is_over = true;
                self.note_main(error.offset, FindingKind::Main(error.kind.to_string()));
            }
        }
    }

    /// Notes that the main channel has `bytes` more bytes behind its end.
    pub fn trailing(&mut self, bytes: u64) {
        if bytes > 0 {
            self.note_main(self.main.bytes, FindingKind::Trailing(bytes));
        }
    }

    fn main_event(&mut self, decoder: &MainDecoder, event: &MainEvent) {
        match event {
            MainEvent::Configuration(configuration) => {
                self.configuration = configuration.clone();
                self.page_size = decoder.page_size();
            }
            MainEvent::RamStart { blocks, sync, .. } => {
                self.blocks = Blocks::new(blocks);
                self.main.sync = Some(*sync);
                self.main.sections += 1;
                self.knows_ram = true;
            }
            MainEvent::OpenReturnPath => self.main.return_path = true,
            MainEvent::Sync => self.main.syncs += 1,
            MainEvent::ZeroPage { block, offset } => {
                self.main.zero_pages += 1;
                self.round(self.main.syncs).main_zero_pages += 1;
                self.main_page(decoder.offset(), *block, *offset);
            }
            MainEvent::Page { block, offset, .. } => {
                self.main.normal_pages += 1;
                self.round(self.main.syncs).main_normal_pages += 1;
                self.main_page(decoder.offset(), *block, *offset);
            }
            MainEvent::BodyEnd { .. } => self.main.sections += 1,
            MainEvent::DeviceState(bytes) => {
                self.main_device_state(decoder, bytes);
                self.main.is_whole = true;
                self.main_is_over = true;
            }
            _ => {}
        }
    }

    /// Notes a page that has come on the main channel; `end` is where it ends there.
    fn main_page(&mut self, end: u64, block: usize, offset: u64) {
        self.blocks.count_on_main(block);
        let page = offset / self.page_size.bytes() as u64;
        let before = self.blocks.mark(block, page, self.main.syncs, Connection::Main);
        let block = self.blocks.name(block).to_owned();
        match before {
            None => {}
            Some(Connection::Main) => {
                self.note_main(end, FindingKind::RepeatedInRound { offset, block, pages: 1 });
            }
            Some(other) => {
                let kind = FindingKind::TwoConnections { offset, block, other, pages: 1 };
                self.note_main(end, kind);
            }
        }
    }

    fn main_device_state(&mut self, decoder: &MainDecoder, bytes: &[u8]) {
        let offset = decoder.offset() - bytes.len() as u64;
        let (state, found) = DeviceState::parse(bytes, offset, self.page_size, decoder.footers());
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
