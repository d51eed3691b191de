//! A relay between the two sides of a migration, which changes the codec and the number of
//! channels on the way.
//!
//! ```text
//! source ── main channel ────────────────── bytes as they are ───────────────→ destination
//!        ←─ return path ─────────────────── bytes as they are ────────────────
//!        ── M channels ─→ decode ─→ queue of packets ─→ encode ── N channels ─→
//! ```
//!
//! It takes a migration from a source, QEMU or [`Source`](crate::Source), and gives it to a
//! destination, QEMU or [`Destination`](crate::Destination), live: to both it is the other side.
//! It holds no RAM, only the packets that are on their way, so its memory depends on the number of
//! channels and on the codecs alone. What the destination cannot take yet waits at the source.
//!
//! # Syncs
//!
//! The main channel is passed on byte for byte as it comes, and followed to know the RAM blocks and
//! where syncs are. A sync is passed when the main channel and all of the source's channels are at
//! it; then each channel to the destination sends its SYNC, behind every page that came before, and
//! no page that came after is queued until all have. The destination, which waits at the same sync
//! of the same main channel, so never has a page of a round overtaken by one of the round before.
//! It needs no more: which of its channels a page comes on, and in which order within a round, is
//! free.
//!
//! All channels to the destination are connected before it gets to see more of the main channel than
//! its first bytes, as a source would do it: a destination takes the channels that are there at the
//! first sync for all.
//!
//! # Failure
//!
//! Whatever fails on either side, a cancellation included, closes all connections: both sides see
//! the other go away, as they would without a relay. The relay says nothing of its own on the
//! return path.

mod answers;
mod builder;
mod forward;
mod from;
mod main_channel;
mod state;
mod tap;
mod to;

use std::io::{self, ErrorKind, Read};
use std::net::Shutdown;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use multifd_core::{MethodDescriptor, MethodStats, PageSize};

pub use builder::RelayBuilder;
pub use tap::{Tap, Wire};

use crate::destination::accept::{Acceptor, MAIN_MAGIC};
use crate::driver::MainReader;
use crate::error::{Error, Side};
use crate::net::{self, Listener, Stream};
use crate::progress::{Progress, Stats};
use crate::session::{CancelToken, Session, Stopped, Wake};
use crate::source::LAST_WORD;
use crate::stream::{Limits, MainDecoder};
use crate::uri::Uri;
use forward::Forward;
use from::IntoQueue;
use main_channel::MainChannel;
use state::{Answers, State};
use tap::Taps;
use to::{Destination, Sending};

/// How often a relay looks whether the migration is over while it waits for the source to close.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// A relay of one migration.
///
/// ```text
/// RelayBuilder::listen → run
/// ```
///
/// Dropping it cancels the migration.
#[derive(Debug)]
pub struct Relay {
    session: Arc<Session<State>>,
    acceptor: Arc<Acceptor<IntoQueue>>,
    destination: Destination,
    from_channels: u8,
    limits: Limits,
    threads: Threads,
}

/// The counters of both sides of a relay, to be read while it runs.
#[derive(Clone, Debug)]
pub struct RelayProgress {
    /// What has come from the source.
    pub from: Progress,
    /// What has gone to the destination.
    pub to: Progress,
}

/// A migration that has gone through, as far as a relay can see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relayed {
    /// What came from the source, and what its codec counted.
    pub from: (Stats, MethodStats),
    /// What went to the destination, and what its codec counted.
    pub to: (Stats, MethodStats),
    /// The destination has said, on the return path, that it has everything. Without a return path
    /// nobody knows more than that it has closed its connection after the last byte.
    pub confirmed: bool,
    /// The size of a page.
    pub page_size: PageSize,
    /// Time since the source connected.
    pub elapsed: Duration,
}

/// The threads of a relay, but for those of the source's channels.
#[derive(Debug)]
struct Threads {
    accepting: Option<JoinHandle<Option<()>>>,
    answers: Option<JoinHandle<Option<()>>>,
    sending: Vec<Sending>,
}

impl Relay {
    /// A relay, to be set up: see [`RelayBuilder`].
    pub fn builder(registry: &multifd_core::Registry) -> RelayBuilder<'_> {
        RelayBuilder::new(registry)
    }

    fn listen(setup: &RelayBuilder<'_>, listen: &Uri, to: &Uri) -> Result<Self, Error> {
        if setup.from_channels == 0 || setup.to_channels == 0 {
            return Err(Error::ChannelCount(0));
        }
        let find = |compression| {
            let method: MethodDescriptor = *setup.registry.get(compression)?;
            method.require()?;
            Ok::<_, Error>(method)
        };
        let (from, to_method) = (find(setup.from_compression)?, find(setup.to_compression)?);
        to_method.level(setup.to_level)?;
        let session = Session::new(State::new(setup.from_channels, setup.to_channels));
        let progress = Progress::new(setup.from_channels);
        let acceptor = Arc::new(Acceptor {
            session: Arc::clone(&session),
            listener: Listener::bind(listen)?,
            timeout: setup.channel_timeout,
            threads: Mutex::default(),
            intake: IntoQueue { method: from, progress, tap: setup.tap.clone() },
        });
        let accept = {
            let acceptor = Arc::clone(&acceptor);
            move |_: &Session<State>| acceptor.run()
        };
        let accepting = Some(session.spawn("multifd-accept".to_owned(), accept)?);
        Ok(Self {
            session,
            acceptor,
            destination: Destination {
                uri: to.clone(),
                method: to_method,
                level: setup.to_level,
                channels: setup.to_channels,
                connect_timeout: setup.connect_timeout,
                progress: Progress::new(setup.to_channels),
                tap: setup.tap.clone(),
            },
            from_channels: setup.from_channels,
            limits: Limits::default().with_page_size(setup.page_size),
            threads: Threads { accepting, answers: None, sending: Vec::new() },
        })
    }

    /// Where it listens, with the port that was picked where port 0 was asked for.
    pub fn uri(&self) -> &Uri {
        self.acceptor.listener.uri()
    }

    /// The counters, to be read while the migration runs.
    pub fn progress(&self) -> RelayProgress {
        let (from, to) = (&self.acceptor.intake.progress, &self.destination.progress);
        RelayProgress { from: from.clone(), to: to.clone() }
    }

    /// The means to cancel the migration from another thread. A connection that is being made to
    /// the destination is given up only when it is there or has failed.
    pub fn cancel_token(&self) -> CancelToken {
        CancelToken::new(&self.session)
    }

    /// Waits for a source, connects to the destination, and relays the migration to its end.
    ///
    /// # Errors
    /// The first error of either side, with the side. All connections are closed then, and the
    /// guest goes on at the source, if that is a live one. One case nobody can decide: where the
    /// source goes, or the relay is cancelled, when everything is sent and only the confirmation is
    /// missing, the destination may have confirmed all the same.
    pub fn run(mut self) -> Result<Relayed, Error> {
        match self.relay() {
            Ok(relayed) => Ok(relayed),
            Err(error) => {
                to::hear_last_word(&self.session, &error);
                self.session.fail(error);
                self.stop();
                Err(self.session.take_failure().unwrap_or(Error::Cancelled))
            }
        }
    }

    fn relay(&mut self) -> Result<Relayed, Error> {
        let take_main = |state: &mut State| state.as_mut().take_main();
        let source = self.session.wait(Wake::Nobody, take_main).map_err(stopped)?;
        let began = Instant::now();
        // Both ways: what is answered must not wait for a source that has stopped reading.
        self.session.register(&source, Shutdown::Both);
        let destination = self.destination.connect(&self.session)?;
        let forward = |from: (Side, &Stream), to: (Side, &Stream), wire| {
            let end = |(side, stream): (Side, &Stream)| {
                (stream.clone(), Taps::new(self.destination.tap.as_ref(), side, wire))
            };
            Forward { from: end(from), to: end(to), held: Arc::default() }
        };
        let source = (Side::From, &Stream(source));
        let destination = (Side::To, &Stream(destination));
        let answers = forward(destination, source, Wire::Answers);
        let mut main = forward(source, destination, Wire::Main);
        self.threads.answers = Some(answers::start(&self.session, answers)?);
        // The magic was read to tell the channels apart.
        let passed = main.pass(&MAIN_MAGIC).map_err(Error::system("writing to the main channel"));
        passed.map_err(Error::on(Side::To))?;
        let bytes = io::Cursor::new(MAIN_MAGIC).chain(main.clone());
        let decoder = MainDecoder::new(self.limits.clone()).passing_device_state();
        let reader = MainReader::new(bytes, decoder);
        main.hold_back();
        let page_size = self.follow(reader, main.clone())?;
        let confirmed = self.finish(main)?;
        let to = self.end_channels()?;
        self.end(confirmed)?;
        let from = self.stop();
        let progress = self.progress();
        Ok(Relayed {
            from: (progress.from.snapshot(), from),
            to: (progress.to.snapshot(), to),
            confirmed,
            page_size,
            elapsed: began.elapsed(),
        })
    }

    /// Follows the main channel until everything has come from the source.
    fn follow(
        &mut self,
        reader: MainReader<io::Chain<io::Cursor<[u8; 4]>, Forward>>,
        forward: Forward,
    ) -> Result<PageSize, Error> {
        let main = MainChannel {
            session: &self.session,
            acceptor: &self.acceptor,
            destination: &self.destination,
            from_channels: self.from_channels,
            sending: &mut self.threads.sending,
            reader,
            forward,
        };
        main.run()
    }

    /// Waits until the source has closed the main channel, of which everything has come. Returns
    /// whether the destination has confirmed before; it must have where there is a return path, and
    /// then the migration has succeeded.
    fn finish(&self, main: Forward) -> Result<bool, Error> {
        self.close_main(main)?;
        if !self.session.look(|state| state.return_path) {
            return Ok(false);
        }
        let confirmed = |state: &mut State| (state.answers == Answers::Confirmed).then_some(());
        if self.session.wait_for(LAST_WORD, confirmed).map_err(stopped)?.is_none() {
            return Err(Error::SourceLeft);
        }
        self.session.succeed().map_err(stopped)?;
        Ok(true)
    }

    /// Waits until the destination has closed where nothing else tells that it is done.
    fn end(&self, confirmed: bool) -> Result<(), Error> {
        if !confirmed {
            let closed = |state: &mut State| (state.answers != Answers::Open).then_some(());
            self.session.wait(Wake::Nobody, closed).map_err(stopped)?;
        }
        self.session.succeed().map_err(stopped)
    }

    /// Passes on that the source closes the main channel, and whatever it says before.
    fn close_main(&self, mut main: Forward) -> Result<(), Error> {
        net::set_read_timeout(&main.from.0.0, Some(LOOK_EVERY))?;
        let mut buffer = [0; 4096];
        let mut confirmed: Option<Instant> = None;
        loop {
            match main.read(&mut buffer) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.session.update(Wake::Nobody, |_| ()).map_err(stopped)?;
                    if self.session.look(|state| state.answers) == Answers::Confirmed {
                        let since = confirmed.get_or_insert_with(Instant::now);
                        if since.elapsed() > self.acceptor.timeout {
                            tracing::warn!("the source keeps its main channel open after the end");
                            break;
                        }
                    }
                }
                // What has been confirmed tells whether that matters.
                Err(error) => {
                    tracing::debug!(%error, "the main channel, after its end");
                    break;
                }
            }
        }
        _ = main.to.0.0.shutdown(Shutdown::Write);
        self.session.update(Wake::Main, |state| state.main_over = true).map_err(stopped)
    }

    /// Passes on that the source closes its channels. Returns what the codec has counted that
    /// compresses.
    fn end_channels(&mut self) -> Result<MethodStats, Error> {
        let ended = |state: &mut State| state.as_mut().all_ended().then_some(());
        let ended = self.session.wait_for(self.acceptor.timeout, ended).map_err(stopped)?;
        if ended.is_none() {
            tracing::warn!("the source keeps its channels open after the end of the migration");
        }
        self.session.update(Wake::Channels, |state| state.queue.finish()).map_err(stopped)?;
        Ok(join(self.threads.sending.drain(..)))
    }

    /// Ends all connections and waits for all threads. Returns what the codec has counted that
    /// decompresses.
    fn stop(&mut self) -> MethodStats {
        self.session.end();
        self.acceptor.listener.stop();
        if let Some(accepting) = self.threads.accepting.take() {
            _ = accepting.join();
        }
        let from = self.acceptor.take_threads().join();
        join(self.threads.sending.drain(..));
        if let Some(answers) = self.threads.answers.take() {
            _ = answers.join();
        }
        from
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Waits for threads. Returns the sum of what their codecs have counted.
fn join(threads: impl Iterator<Item = Sending>) -> MethodStats {
    let mut sum = MethodStats::new();
    for thread in threads {
        // A thread without statistics has stopped the relay, or was stopped with it.
        for (name, count) in thread.join().ok().flatten().unwrap_or_default() {
            *sum.entry(name).or_default() += count;
        }
    }
    sum
}

/// Why the relay stopped is with the session: [`Relay::run`] puts it in this one's place.
fn stopped(_: Stopped) -> Error {
    Error::Cancelled
}
