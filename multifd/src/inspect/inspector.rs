//! Inspecting the bytes of a migration's connections.

use std::time::Duration;

use super::channel::PacketRecord;
use super::findings::Findings;
use super::parser::ChannelParser;
use super::report::Report;
use super::tally::{Channel, Tally};
use crate::stream::{Limits, MainDecoder, MainEvent, StreamError};

/// Inspects the bytes of a migration's connections, in pieces of any size.
///
/// The bytes of different connections may come in any order, with one exception: before a channel's
/// first packet, the main channel must have listed the RAM blocks ([`MainEvent::RamStart`]), because
/// the pages are in those blocks. A page on two connections in one round is only found if no
/// connection is ahead of another by a round or more.
///
/// Memory grows by 8 bytes for each page that is sent and by some hundred bytes for each round,
/// whatever a peer claims. The device state is kept until it is complete, up to 256 MiB.
#[derive(Debug)]
pub struct Inspector {
    decoder: MainDecoder,
    main: Main,
    parsers: Vec<ChannelParser>,
    tally: Tally,
}

/// How far the main channel has come.
#[derive(Debug)]
enum Main {
    Open,
    /// It is complete, and `trailing` bytes came after its end.
    Over {
        trailing: u64,
    },
    /// It is malformed: the rest is skipped.
    Broken,
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
            decoder: MainDecoder::new(Limits::default()).passing_postcopy(),
            main: Main::Open,
            parsers: Vec::new(),
            tally: Tally::default(),
        }
    }

    /// Adds a multifd channel. Returns its index: the first channel has 0, the second 1 and so on,
    /// whatever ids their initial packets give.
    pub fn connect(&mut self) -> usize {
        let channel = self.parsers.len();
        self.parsers.push(ChannelParser::new(channel));
        self.tally.channels.push(Channel::default());
        channel
    }

    /// Takes bytes of the main channel off the front of `bytes`, up to the end of the next event, and
    /// returns the event. `None` when all of `bytes` is taken.
    pub fn main_bytes(&mut self, bytes: &mut &[u8]) -> Option<MainEvent> {
        if matches!(self.main, Main::Open) {
            let event = self.decoder.next(bytes);
            if let Some(event) = self.main_event(event) {
                return Some(event);
            }
        }
        if let Main::Over { trailing } = &mut self.main {
            *trailing += bytes.len() as u64;
        }
        *bytes = &[];
        None
    }

    /// Takes bytes of the channel with the index `channel` off the front of `bytes`, up to the end of
    /// the next packet, and returns the packet. `None` when all of `bytes` is taken. `time` is when
    /// the bytes came, since the start of the migration, if that is known.
    ///
    /// # Panics
    /// If `channel` is not an index that [`connect`](Self::connect) has returned.
    pub fn channel_bytes(
        &mut self,
        channel: usize,
        bytes: &mut &[u8],
        time: Option<Duration>,
    ) -> Option<PacketRecord> {
        while let Some(event) = self.parsers[channel].next(bytes, self.decoder.page_size()) {
            let record = self.tally.channel(&event, time);
            if record.is_some() {
                return record;
            }
        }
        None
    }

    /// The findings so far, in the order in which they were found. [`finish`](Self::finish) adds those
    /// of a comparison of the connections.
    pub fn findings(&self) -> &Findings {
        &self.tally.findings
    }

    /// Ends all connections, compares them with each other and returns the report.
    pub fn finish(mut self) -> Report {
        if matches!(self.main, Main::Open) {
            let event = self.decoder.finish();
            self.main_event(event);
        }
        if let Main::Over { trailing } = self.main {
            self.tally.trailing(trailing);
        }
        self.parsers.iter_mut().for_each(|parser| self.tally.end(parser));
        self.tally.conclude()
    }

    fn main_event(&mut self, event: Result<Option<MainEvent>, StreamError>) -> Option<MainEvent> {
        match event {
            Ok(event) => {
                if let Some(event) = &event {
                    self.tally.main(&self.decoder, event);
                }
                if self.decoder.is_over() {
                    self.main = Main::Over { trailing: 0 };
                }
                event
            }
            Err(error) => {
                self.main = Main::Broken;
                self.tally.main_error(self.decoder.offset(), &error);
                None
            }
        }
    }
}
