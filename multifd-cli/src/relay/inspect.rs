//! Inspecting what a source sends, while it is relayed.

use std::io;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use multifd::Side;
use multifd::driver::{MainChannelError, MainReader};
use multifd::inspect::{ChannelEvent, ChannelParser, Inspector, Report, Severity};
use multifd::relay::{Tap, Wire};
use multifd::stream::{Limits, MainDecoder};

use super::pieces::{self, Pieces, Pipe};
use crate::failure::{Failure, one_line};
use crate::output;

/// Inspects the source's side of a relay: what is against the format is said at once, everything
/// else in the [`Report`] at the end.
///
/// The channels are followed in the threads that move their bytes. The main channel needs a thread
/// of its own, since a [`MainReader`] asks for its bytes; whoever brings them waits until they are
/// looked at, so that nothing piles up, and no channel is ahead of the RAM blocks that its pages
/// are in.
#[derive(Debug)]
pub(super) struct Inspection {
    wires: Arc<Wires>,
    main: Mutex<Option<Pipe>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    began: OnceLock<Instant>,
}

/// The connections, as far as they are looked at.
#[derive(Debug)]
struct Wires {
    found: Mutex<Found>,
    /// By the numbers in their initial packets.
    channels: Vec<Mutex<Channel>>,
}

#[derive(Debug, Default)]
struct Found {
    inspector: Inspector,
    /// Findings that have been looked at.
    seen: usize,
    /// The relay has ended. That connections are cut is then no news, and in the report.
    is_over: bool,
}

#[derive(Debug, Default)]
struct Channel {
    /// There once the main channel has listed the RAM blocks.
    parser: Option<ChannelParser>,
    /// What came before that: a relay takes no more than the initial packet then.
    early: Vec<u8>,
}

impl Inspection {
    /// An inspection of a migration with this number of channels.
    pub(super) fn new(channels: u8) -> Result<Self, Failure> {
        let channels = (0..channels).map(|_| Mutex::default()).collect();
        let wires = Arc::new(Wires { found: Mutex::default(), channels });
        let (pipe, pieces) = pieces::pipe();
        let follow = {
            let wires = Arc::clone(&wires);
            move || wires.follow_main(pieces)
        };
        let thread = std::thread::Builder::new().name("multifd-inspect".to_owned()).spawn(follow);
        let thread = thread.map_err(|error| Failure::io("cannot start a thread", &error))?;
        let (main, thread) = (Mutex::new(Some(pipe)), Mutex::new(Some(thread)));
        Ok(Self { wires, main, thread, began: OnceLock::new() })
    }

    /// Ends all connections and says what they carried.
    pub(super) fn finish(&self) -> Report {
        lock(&self.wires.found).is_over = true;
        drop(lock(&self.main).take());
        if let Some(thread) = lock(&self.thread).take() {
            // Without what it still had to look at, the report says that the channel is cut.
            _ = thread.join();
        }
        self.wires.end();
        mem::take(&mut lock(&self.wires.found).inspector).finish()
    }
}

impl Tap for Inspection {
    fn pass(&self, side: Side, wire: Wire, bytes: &[u8]) {
        if side != Side::From {
            return;
        }
        let time = self.began.get_or_init(Instant::now).elapsed();
        match wire {
            Wire::Main => lock(&self.main).iter().for_each(|pipe| pipe.pass(bytes)),
            Wire::Channel(number) => self.wires.pass(number, bytes, time),
            Wire::Answers => {}
        }
    }
}

impl Wires {
    /// Follows the main channel to its end.
    fn follow_main(&self, mut pieces: Pieces) {
        let mut reader = MainReader::new(&mut pieces, MainDecoder::new(Limits::default()));
        let mut is_connected = false;
        let is_whole = loop {
            let event = match reader.next_event() {
                Ok(Some(event)) => Ok(event),
                Err(MainChannelError::Stream(error)) => Err(error),
                // What is read are pieces in memory, which do not fail.
                Ok(None) | Err(_) => break true,
            };
            let mut found = lock(&self.found);
            found.inspector.main(reader.decoder(), event.as_ref());
            found.say();
            if found.inspector.main_is_over() {
                break event.is_ok();
            }
            if found.inspector.knows_ram() && !mem::replace(&mut is_connected, true) {
                // A channel's thread has its channel before it gets at what is found.
                drop(found);
                self.connect();
            }
        };
        // Read in any case, or the relay would wait.
        let unread = reader.unread().len() as u64;
        let rest = unread + io::copy(&mut pieces, &mut io::sink()).unwrap_or_default();
        if is_whole {
            lock(&self.found).inspector.trailing(rest);
        }
    }

    /// Gives every channel a parser, in the order of their numbers.
    fn connect(&self) {
        let connect = |_| lock(&self.found).inspector.connect();
        let parsers: Vec<_> = self.channels.iter().map(connect).collect();
        for (channel, parser) in self.channels.iter().zip(parsers) {
            lock(channel).parser = Some(parser);
        }
    }

    fn pass(&self, number: u8, mut bytes: &[u8], time: Duration) {
        // The relay refuses a channel of another number.
        let Some(channel) = self.channels.get(usize::from(number)) else { return };
        let mut channel = lock(channel);
        let Channel { parser, early } = &mut *channel;
        match parser {
            None => early.extend_from_slice(bytes),
            Some(parser) => {
                self.parse(parser, &mut &mem::take(early)[..], Some(time));
                self.parse(parser, &mut bytes, Some(time));
            }
        }
    }

    fn parse(&self, parser: &mut ChannelParser, bytes: &mut &[u8], time: Option<Duration>) {
        while let Some(event) = parser.next(bytes) {
            self.take_in(&event, time);
        }
    }

    fn take_in(&self, event: &ChannelEvent<'_>, time: Option<Duration>) {
        let mut found = lock(&self.found);
        found.inspector.channel(event, time);
        found.say();
    }

    /// Notes the end of all channels.
    fn end(&self) {
        for channel in &self.channels {
            let Channel { parser, early } = mem::take(&mut *lock(channel));
            if let Some(mut parser) = parser {
                self.parse(&mut parser, &mut &early[..], None);
                self.take_in(&parser.end(), None);
            }
        }
    }
}

impl Found {
    /// Says which errors are new.
    fn say(&mut self) {
        for finding in self.inspector.findings().iter().skip(self.seen) {
            self.seen += 1;
            if finding.kind.severity() == Severity::Error && !self.is_over {
                output::note(&one_line(&format!("multifd: inspecting the source: {finding}")));
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is inspected so far is still worth a report.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
