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
//! free. It gets to see the sync on the main channel only when all its channels have their SYNC: a
//! relay that fails never leaves it waiting for one.
//!
//! All channels to the destination are connected before it gets to see more of the main channel than
//! its header and CONFIGURATION, as a source would do it: a destination takes the channels that are
//! there at the first sync for all.
//!
//! # Postcopy
//!
//! A source that switches to postcopy says so on the main channel, behind a sync. From then on the
//! main channel and the return path are passed on as they are, to the end; the multifd channels are
//! silent. The guest may be running at the destination from then on, so a relay that fails leaves it
//! [`Unclear`](crate::Unfinished::Unclear) whose it is. The extra connection of postcopy-preempt says
//! nothing by which it could be known, and is not passed on: turn that capability off.
//!
//! # Failure
//!
//! Whatever fails on either side, a cancellation included, closes all connections: both sides see
//! the other go away, as they would without a relay. The relay says nothing of its own on the
//! return path. Whose the guest is then, [`Relay::run`] says as far as anybody between the two can
//! know.

mod builder;
mod intake;
mod main_channel;
mod pipe;
mod return_path;
mod state;
mod tap;

use std::net::Shutdown;
use std::sync::Arc;
use std::time::{Duration, Instant};

use multifd_core::ram::SentPages;
use multifd_core::{PageSize, Registry};

pub use builder::RelayBuilder;
pub use tap::{Tap, Wire};

use crate::engine::accept::{Acceptor, Entrance};
use crate::engine::cancel::CancelToken;
use crate::engine::channels::{self, Channels, Codec};
use crate::engine::hearing::Hearing;
use crate::engine::outgoing::Outgoing;
use crate::engine::pace::{Pace, Paced};
use crate::engine::queue::SYNCS;
use crate::engine::return_path::{LAST_WORD, Owner, hear_last_word};
use crate::engine::session::{Failure, Session, Stopped, Waiter, Wake};
use crate::error::{Error, Refused, Side, Unfinished};
use crate::progress::{Progress, Stats};
use crate::server::Place;
use crate::stream::{Limits, MainDecoder};
use crate::transport::{Connection, Listener, Uri, Watched};
use intake::IntoQueue;
use main_channel::MainChannel;
use pipe::{End, Pipe};
use return_path::ToSource;
use state::{Relaying, State};
use tap::Taps;

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
    channels: Channels,
    page_size: Option<PageSize>,
    tap: Option<Arc<dyn Tap>>,
    /// Its place among many migrations, while it is there.
    place: Option<Place>,
}

/// The counters of both sides of a relay, to be read while it runs.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub struct RelayProgress {
    /// What has come from the source.
    pub from: Progress,
    /// What has gone to the destination.
    pub to: Progress,
}

/// A migration that has gone through, as far as a relay can see.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relayed {
    /// What came from the source.
    pub from: Stats,
    /// What went to the destination.
    pub to: Stats,
    /// The destination has said, on the return path, that it has everything. Without a return path
    /// nobody knows more than that it has closed its connection after the last byte.
    pub confirmed: bool,
    /// Connections from elsewhere that were refused.
    pub refused: Refused,
    /// The size of a page.
    pub page_size: PageSize,
    /// Time since the source connected.
    pub elapsed: Duration,
}

impl Relay {
    /// A relay, to be set up: see [`RelayBuilder`].
    pub fn builder(registry: &Registry) -> RelayBuilder<'_> {
        RelayBuilder::new(registry)
    }

    fn build(
        setup: &RelayBuilder<'_>,
        to: Outgoing,
        listener: impl FnOnce() -> Result<Option<Listener>, Error>,
    ) -> Result<Self, Error> {
        let to_channels = to.count(setup.to_channels)?;
        if setup.from_channels == 0 {
            return Err(Error::ChannelCount(0));
        }
        let from = setup.from_codec.find(setup.registry)?;
        let methods = setup.to_codec.find(setup.registry)?;
        let channels = Channels {
            to,
            connect_timeout: setup.connect_timeout,
            sent: SentPages::of(&methods.descriptor()),
            methods,
            level: setup.to_level,
            count: to_channels,
            // Pages go on as they came.
            detect_zero_pages: false,
            digests: None,
            pace: setup.max_bandwidth.map(|limit| Arc::new(Pace::new(limit))),
            progress: Progress::new(to_channels),
            // What it sends is its own buffers, which are used again.
            zero_copy: None,
        };
        channels.methods.descriptor().level(setup.to_level)?;
        let codec = Codec { methods: from, progress: Progress::new(setup.from_channels) };
        let grace = Some(setup.admission.timeout);
        let intake = IntoQueue { codec, grace, tap: setup.tap.clone() };
        let listener = listener()?;
        let most_waiting = setup.admission.most_waiting;
        let state =
            State::new(setup.from_channels, setup.uuid, most_waiting, Relaying::new(to_channels));
        let session = Session::new(state, &setup.terms)?;
        channels.to.register(&session);
        let secure = setup.from_secure.clone();
        let started = Acceptor::start(&session, listener, &setup.admission, secure, intake);
        let acceptor = started.inspect_err(|_| session.end())?;
        let (page_size, tap) = (setup.page_size, setup.tap.clone());
        Ok(Self { session, acceptor, channels, page_size, tap, place: None })
    }

    /// Where it listens, with the port that was picked where port 0 was asked for; [`Uri::Unnamed`]
    /// where it does not listen.
    pub fn uri(&self) -> &Uri {
        self.acceptor.uri()
    }

    /// Where the program hands in connections from the source that it has accepted itself, beside
    /// those that the relay accepts.
    pub fn entrance(&self) -> Entrance {
        self.acceptor.entrance()
    }

    /// The counters, to be read while the migration runs.
    pub fn progress(&self) -> RelayProgress {
        let (from, to) = (&self.acceptor.intake.codec.progress, &self.channels.progress);
        RelayProgress { from: from.clone(), to: to.clone() }
    }

    /// The means to cancel the migration from another thread.
    pub fn cancel_token(&self) -> CancelToken {
        self.session.cancel_token()
    }

    /// Waits for a source, connects to the destination, and relays the migration to its end.
    ///
    /// # Errors
    /// The first error of either side, with the side. All connections are closed then.
    /// [`Unfinished::Failed`]: the destination cannot have the guest, which goes on at the source, if
    /// that is a live one. [`Unfinished::Unclear`]: the end of the RAM has been passed on, and the
    /// device state behind it may have been; the destination has said neither that it has the guest
    /// nor that it has not, or it has, and the source could not be told. What fails after the source
    /// has been told that the destination has the guest is no error.
    pub fn run(self) -> Result<Relayed, Unfinished> {
        let source = self.acceptor.wait_for_main();
        let source = source.map_err(|failure| failure.map(Error::on(Side::From)));
        let began = Instant::now();
        let relayed = source.and_then(|(source, greeting)| self.relay(&source, &greeting));
        let relayed = relayed.map_err(|failure| self.acceptor.explain(failure));
        if let Err(Failure::Error(error)) = &relayed {
            hear_last_word(&self.session, error);
        }
        if let Err(Stopped) = self.session.settle(relayed) {
            let behind = self.session.look(|state| state.more.queue.behind());
            let error = self.session.reason().lacking(SYNCS, behind);
            let refused = self.session.look(|state| state.more.refused);
            let error = refused.map_or(error, Error::DestinationRefused);
            let error = self.session.look(|state| error.after(&state.refused));
            // Every thread has ended: nothing more will be heard.
            let owner = self.session.look(|state| match &state.more {
                // It may go on there, as one that was not answered.
                relaying if relaying.source_untold => Owner::Unclear,
                relaying => relaying.return_path.owner(),
            });
            Unfinished::judge(owner, error)?;
        }
        self.session.end();
        Ok(self.relayed(began))
    }

    /// What a migration that has gone through has moved.
    fn relayed(&self, began: Instant) -> Relayed {
        let RelayProgress { from, to } = self.progress();
        let (confirmed, page_size) = self.session.look(|state| {
            let vm = state.more.vm.as_ref();
            // It has announced its RAM.
            let page_size = vm.map_or(PageSize::Kib4, |vm| vm.page_size);
            (state.more.return_path.is_confirmed(), page_size)
        });
        let (from, to) = (from.snapshot(), to.snapshot());
        let refused = self.session.look(|state| state.refused.clone());
        Relayed { from, to, confirmed, refused, page_size, elapsed: began.elapsed() }
    }

    fn relay(&self, source: &Connection, greeting: &[u8]) -> Result<(), Failure> {
        let session = &self.session;
        // Both ways: what is answered must not wait for a source that has stopped reading.
        session.register(source, Shutdown::Both);
        let destination = self.channels.main(session);
        let destination = destination.map_err(|failure| failure.map(Error::on(Side::To)))?;
        let watch = session.watch();
        // A destination that is slow may hold up what the source has sent before it closed.
        watch.set_main(source, None);
        watch.name_peer("the source or the destination".to_owned());
        let end = |stream, side, wire| {
            let taps = Taps::new(self.tap.as_ref(), side, wire);
            // What the destination answers is not limited.
            let pace = self.channels.pace.as_ref().filter(|_| wire == Wire::Main);
            End { paced: Paced::new(Watched::clone(&stream), session, pace), stream, side, taps }
        };
        let back = Pipe::new(
            end(Watched::unwatched(&destination), Side::To, Wire::ReturnPath),
            end(Watched::unwatched(source), Side::From, Wire::ReturnPath),
        );
        let hearing = ToSource::new(back, self.acceptor.door.admission.timeout);
        let hearing = Arc::new(Hearing::new(&destination, hearing));
        let listening = Arc::clone(&hearing);
        let listen = move |session: &Session<State>| {
            session.settle(return_path::listen(&listening, session))
        };
        session.spawn("return", listen)?;
        let mut pipe = Pipe::new(
            end(Watched::new(source, watch), Side::From, Wire::Main),
            end(Watched::new(&destination, watch), Side::To, Wire::Main),
        );
        self.follow(&mut pipe, &hearing, greeting)?;
        let confirmed = self.finish(&mut pipe)?;
        self.end_channels(confirmed)
    }

    /// Follows the main channel until everything has come from the source.
    fn follow(
        &self,
        pipe: &mut Pipe,
        hearing: &Hearing<ToSource>,
        greeting: &[u8],
    ) -> Result<(), Failure> {
        let mut limits = Limits::default();
        limits.page_size = self.page_size;
        let main = MainChannel {
            session: &self.session,
            acceptor: &self.acceptor,
            channels: &self.channels,
            tap: self.tap.as_ref(),
            decoder: MainDecoder::new(limits).passing_device_state().passing_postcopy(),
            pipe,
            hearing,
        };
        main.run(greeting)
    }

    /// Waits until the source has closed the main channel, of which everything has come. Returns
    /// whether the destination has confirmed before; it must have where there is a return path, and
    /// then the migration has succeeded.
    fn finish(&self, main: &mut Pipe) -> Result<bool, Failure> {
        self.close_main(main)?;
        if !self.session.look(|state| state.more.return_path.is_open()) {
            return Ok(false);
        }
        let what = "the confirmation";
        let confirmed = self
            .session
            .wait_for(Waiter::Main, what, LAST_WORD, |state| state.more.is_told().then_some(()))?;
        if confirmed.is_none() {
            return Err(Error::SourceLeft.into());
        }
        self.session.succeed()?;
        Ok(true)
    }

    /// Passes on that the source closes the main channel, and whatever it says before. A source that
    /// has been told that the destination has everything has a limited time for it.
    fn close_main(&self, main: &mut Pipe) -> Result<(), Failure> {
        main.from.stream = Watched::unwatched(main.from.stream.connection());
        let mut buffer = [0; 4096];
        loop {
            match main.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => main.write(&buffer[..count])?,
                // What has been confirmed tells whether that matters.
                Err(error) => {
                    tracing::debug!(%error, "the main channel, after its end");
                    break;
                }
            }
        }
        main.to.stream.close();
        self.session.update(Wake::Main, |state| state.more.main_over = true)?;
        Ok(())
    }

    /// Passes on that the source closes its channels, and waits until the destination has closed
    /// where nothing else tells that it is done.
    fn end_channels(&self, confirmed: bool) -> Result<(), Failure> {
        let (limit, what) =
            (self.acceptor.door.admission.timeout, "the source to close its channels");
        let ended = self
            .session
            .wait_for(Waiter::Main, what, limit, |state| state.barrier.all_ended().then_some(()))?;
        if ended.is_none() {
            tracing::warn!("the source keeps its channels open after the end of the migration");
        }
        if confirmed {
            channels::finish_succeeded(&self.session)?;
        } else {
            channels::finish(&self.session)?;
            self.session.wait_patiently(Waiter::Main, "the destination to close", |state| {
                state.more.return_path.is_over().then_some(())
            })?;
        }
        Ok(self.session.succeed()?)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.session.end();
    }
}
