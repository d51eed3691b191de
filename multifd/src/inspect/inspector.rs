//! What takes in the bytes of a migration's connections.

use std::time::Duration;

use super::channel::PacketRecord;
use super::findings::Findings;
use super::parser::ChannelParser;
use super::report::Report;
use super::tally::{Channel, Tally};
use crate::stream::{Limits, MainDecoder, MainEvent, StreamError};

/// Takes in the bytes that go over a migration's connections, in pieces of any size, keeps count and
/// finds what is against the format.
///
/// The connections may come in any order, but no channel's packets before the main channel's
/// [`MainEvent::RamStart`]: the channels' pages are in the RAM blocks that it lists. That a page comes
/// on two connections in one round is only noticed where no connection is ahead of another by a round
/// or more.
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
    /// It has been followed to its end, and so many bytes came behind it.
    Over {
        trailing: u64,
    },
    /// It cannot be followed any further.
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
            decoder: MainDecoder::new(Limits::default()),
            main: Main::Open,
            parsers: Vec::new(),
            tally: Tally::default(),
        }
    }

    /// Adds a multifd channel. Returns its place among the channels, from 0, by which it is known
    /// from here on: not always the id in its initial packet.
    pub fn connect(&mut self) -> usize {
        let channel = self.parsers.len();
        self.parsers.push(ChannelParser::new(channel));
        self.tally.channels.push(Channel::default());
        channel
    }

    /// Takes bytes of the main channel off the front of `bytes`, up to the end of the next event, and
    /// returns this. `None` when all of `bytes` has been taken.
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

    /// Takes bytes of a channel off the front of `bytes`, up to the end of the next packet, and
    /// returns this. `None` when all of `bytes` has been taken. `time` is how long after the
    /// migration's start the bytes came, where that is known.
    ///
    /// # Panics
    /// With a channel that has not been [connected](Self::connect).
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

    /// What is wrong or unusual so far, in the order in which it was found. More is found when the
    /// connections are compared with each other, in the end.
    pub fn findings(&self) -> &Findings {
        &self.tally.findings
    }

    /// Ends all connections, and compares them with each other.
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
                    self.main = Main::Over { trailing: 0 }
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
