//! The destination of a migration.

mod builder;
mod main_channel;

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use multifd_core::channel::{PacketBuffer, Target};
use multifd_core::ram::{Ram, RamDigests};
use multifd_core::wire::RamPacket;
use multifd_core::{PageSize, Registry};

pub use builder::DestinationBuilder;
pub(crate) use main_channel::find_blocks;
use main_channel::{MainChannel, ReturnPath, TakePiece};

use crate::driver::{Blocking, MainReader};
use crate::engine::Receiving;
use crate::engine::accept::{self, Accept, Acceptor, Entrance};
use crate::engine::barrier::AT_SYNC;
use crate::engine::cancel::CancelToken;
use crate::engine::channels::{self, Codec, Intake};
use crate::engine::session::{Failure, Session, Stopped, Terms, Waiter, Wake};
use crate::error::{Error, Refused};
use crate::progress::{Progress, Stats};
use crate::server::Place;
use crate::stream::{BlockInfo, Configuration, Limits, MainDecoder};
use crate::transport::{Connection, Impatient, Link, Listener, Uri, Watched};
use crate::vm::Vm;

/// The destination of a migration: takes in a VM's RAM and its device state.
///
/// ```text
/// DestinationBuilder::listen → receive → (store what arrived, or start the VM) → confirm
/// ```
#[derive(Debug)]
pub struct Destination {
    limits: Limits,
    acceptor: Arc<Acceptor<IntoRam>>,
    migration: Migration,
}

/// What the source has announced, before the first page.
#[non_exhaustive]
#[derive(Clone, Copy, Debug)]
pub struct Incoming<'a> {
    /// Machine type and what else the source says of itself.
    pub configuration: &'a Configuration,
    /// The RAM blocks that come, with their sizes.
    pub blocks: &'a [BlockInfo],
    /// The size of a page.
    pub page_size: PageSize,
    /// What has come before the list of RAM blocks: whole FULL sections. A VMM of one's own may have
    /// its configuration here: see
    /// [`FullSection::of_early_state`](crate::stream::FullSection::of_early_state).
    pub early_state: &'a [u8],
}

/// A VM that has arrived whole: every channel was at the last sync when the main channel ended.
///
/// The source still holds the VM and, with a return path, waits: [`confirm`](Self::confirm) lets
/// it go. Dropping this instead tells it that the migration failed, and its guest goes on there.
#[derive(Debug)]
pub struct Arrived {
    /// What it is beside its RAM.
    pub vm: Vm,
    /// The RAM.
    pub ram: Arc<Ram>,
    /// Whether the source waits for a confirmation.
    pub return_path: bool,
    migration: Migration,
}

/// What a migration holds until its end, however it ends. Dropping it fails the migration.
#[derive(Debug)]
struct Migration {
    session: Arc<Session<State>>,
    progress: Progress,
    channel_timeout: Duration,
    return_path: ReturnPath,
    /// The source has closed a main channel that cannot be looked at without reading.
    source_left: Arc<AtomicBool>,
    /// The VM goes where it cannot be taken back from.
    committed: bool,
    over: bool,
    /// Its place among many migrations, while it is there.
    place: Option<Place>,
}

/// What the threads of a destination know of each other: the RAM, from when the main channel has
/// announced it.
type State = Receiving<Option<Filled>>;

/// The RAM that pages go to, and the hashes of what they have brought.
#[derive(Clone, Debug)]
struct Filled {
    ram: Arc<Ram>,
    digests: Arc<RamDigests>,
}

/// Has the channels' pages written to RAM.
#[derive(Debug)]
struct IntoRam {
    codec: Codec,
    grace: Option<Duration>,
}

impl Intake for IntoRam {
    type More = Option<Filled>;
    type Vm = Filled;

    fn codec(&self) -> &Codec {
        &self.codec
    }

    fn grace(&self) -> Option<Duration> {
        self.grace
    }

    fn vm(filled: &Option<Filled>) -> Option<(Filled, PageSize)> {
        filled.as_ref().map(|filled| (filled.clone(), filled.ram.page_size()))
    }

    fn digests(filled: &Filled) -> Option<Arc<RamDigests>> {
        Some(Arc::clone(&filled.digests))
    }

    fn target(
        &self,
        _: &Session<State>,
        filled: &Filled,
        _: u8,
        _: &RamPacket<'_>,
    ) -> Result<Target, Failure> {
        Ok(Target::Ram(Arc::clone(&filled.ram)))
    }

    fn received(&self, _: &Session<State>, _: Option<PacketBuffer>) -> Result<(), Failure> {
        Ok(())
    }
}

impl Accept for IntoRam {
    fn receive(
        &self,
        session: &Session<State>,
        number: u8,
        _: &[u8],
        link: Link,
    ) -> Result<(), Failure> {
        channels::receive(session, self, number, link)
    }
}

impl Destination {
    /// A destination, to be set up: see [`DestinationBuilder`].
    pub fn builder(registry: &Registry) -> DestinationBuilder<'_> {
        DestinationBuilder::new(registry)
    }

    fn build(
        setup: &DestinationBuilder<'_>,
        listener: impl FnOnce() -> Result<Option<Listener>, Error>,
    ) -> Result<Self, Error> {
        let (migration, intake) = prepare(setup, &setup.terms, Some(setup.admission.timeout))?;
        let listener = listener()?;
        let secure = setup.secure.clone();
        let acceptor =
            Acceptor::start(&migration.session, listener, &setup.admission, secure, intake)?;
        Ok(Self { limits: setup.limits.clone(), acceptor, migration })
    }

    /// Where it listens, with the port that was picked where port 0 was asked for; [`Uri::Unnamed`]
    /// where it does not listen.
    pub fn uri(&self) -> &Uri {
        self.acceptor.uri()
    }

    /// Where the program hands in connections that it has accepted itself, beside those that the
    /// destination accepts. For as long as the destination waits for its source.
    pub fn entrance(&self) -> Entrance {
        self.acceptor.entrance()
    }

    /// The counters, to be read while the migration runs.
    pub fn progress(&self) -> Progress {
        self.migration.progress.clone()
    }

    /// The means to cancel the migration from another thread.
    pub fn cancel_token(&self) -> CancelToken {
        self.migration.session.cancel_token()
    }

    /// Waits for a source and takes its VM in. `provide` gives the RAM when the source has said
    /// what it has: a block of the same name and size for each of the source's.
    ///
    /// # Errors
    /// The first error of any channel, or that of `provide`. With a return path the source is told,
    /// and its guest goes on there. What is in the RAM is then no VM.
    pub fn receive(
        self,
        provide: impl FnOnce(&Incoming<'_>) -> Result<Arc<Ram>, Error>,
    ) -> Result<Arrived, Error> {
        self.receive_all(provide, None)
    }

    /// As [`receive`](Self::receive), and gives the device state to `take` as it comes, from its first
    /// byte on, in place of keeping it for [`Vm::device_state`]. It is whole only when this
    /// returns.
    ///
    /// # Errors
    /// As [`receive`](Self::receive), and those of `take`.
    pub fn receive_in_pieces(
        self,
        provide: impl FnOnce(&Incoming<'_>) -> Result<Arc<Ram>, Error>,
        mut take: impl FnMut(&[u8]) -> Result<(), Error>,
    ) -> Result<Arrived, Error> {
        self.receive_all(provide, Some(&mut take))
    }

    fn receive_all(
        self,
        provide: impl FnOnce(&Incoming<'_>) -> Result<Arc<Ram>, Error>,
        take: Option<&mut TakePiece<'_>>,
    ) -> Result<Arrived, Error> {
        let Self { limits, acceptor, mut migration } = self;
        let received = acceptor.wait_for_main().and_then(|(main, greeting)| {
            let stream = migration.begin(&main);
            // It was read to tell the connections apart.
            let stream = io::Cursor::new(greeting).chain(stream);
            let wait_for_all = || acceptor.wait_for_all(&main);
            let received = migration.follow(stream, limits, &wait_for_all, provide, take)?;
            migration.look_after(&main)?;
            Ok(received)
        });
        let received = received.map_err(|failure| acceptor.explain(failure));
        drop(acceptor);
        migration.arrived(received)
    }
}

/// [`DestinationBuilder::decode`].
fn decode<R: Read + Send + 'static>(
    setup: &DestinationBuilder<'_>,
    main: impl Read,
    channels: Vec<R>,
    provide: impl FnOnce(&Incoming<'_>) -> Result<Arc<Ram>, Error>,
) -> Result<Arrived, Error> {
    // Files and the like take their time.
    let terms = Terms { progress_timeout: None, ..setup.terms.clone() };
    let (mut migration, intake) = prepare(setup, &terms, None)?;
    let session = &Arc::clone(&migration.session);
    let intake = Arc::new(intake);
    for stream in channels {
        // Where an earlier channel has failed already, the main channel's end says so.
        let added = session.update(Wake::Nobody, |state| state.connections.add_given());
        let arrival = added.unwrap_or_default();
        let intake = Arc::clone(&intake);
        let receive = move |session: &Session<State>| {
            let stream = Blocking::new(stream);
            session.settle(accept::take_given(session, &*intake, arrival, stream))
        };
        session.spawn("recv", receive)?;
    }
    let wait_for_all = || accept::wait_for_all(session, setup.admission.timeout, None);
    let received = migration.follow(main, setup.limits.clone(), &wait_for_all, provide, None);
    migration.arrived(received)
}

fn prepare(
    setup: &DestinationBuilder<'_>,
    terms: &Terms,
    grace: Option<Duration>,
) -> Result<(Migration, IntoRam), Error> {
    if setup.channels == 0 {
        return Err(Error::ChannelCount(0));
    }
    let methods = setup.codec.find(setup.registry)?;
    let progress = Progress::new(setup.channels);
    let migration = Migration {
        session: Session::new(
            State::new(setup.channels, setup.uuid, setup.admission.most_waiting, None),
            terms,
        )?,
        progress: progress.clone(),
        channel_timeout: setup.admission.timeout,
        return_path: ReturnPath::default(),
        source_left: Arc::default(),
        committed: false,
        over: false,
        place: None,
    };
    Ok((migration, IntoRam { codec: Codec { methods, progress }, grace }))
}

impl Migration {
    /// Begins with the main channel `main`, which is read from the stream that is returned.
    fn begin(&mut self, main: &Connection) -> Watched {
        let watch = self.session.watch();
        // No shorter limit before the source says that it waits for an answer.
        watch.set_main(main, None);
        watch.set_peer("the source", main);
        self.return_path.stream = Some(Impatient::new(main, watch));
        Watched::new(main, watch)
    }

    /// Notices when the source closes the main channel, of which everything has come, where that
    /// cannot be looked at later.
    fn look_after(&self, main: &Connection) -> Result<(), Error> {
        if main.can_poll() || !self.return_path.is_open() {
            return Ok(());
        }
        let (mut main, left) = (main.clone(), Arc::clone(&self.source_left));
        let read = move |_: &Session<_>| {
            // Nothing comes any more: whatever this ends with, the source does not wait.
            _ = main.read(&mut [0]);
            left.store(true, Ordering::Release);
            Ok(())
        };
        self.session.spawn("after", read)
    }

    fn source_has_left(&self) -> bool {
        let stream = self.return_path.stream.as_ref();
        stream.is_some_and(|stream| !stream.connection().is_silent())
            || self.source_left.load(Ordering::Acquire)
    }

    /// Follows the main channel, then waits for the channels to end where nothing else tells that
    /// they are done.
    fn follow(
        &mut self,
        main: impl Read,
        limits: Limits,
        wait_for_all: &dyn Fn() -> Result<(), Failure>,
        provide: impl FnOnce(&Incoming<'_>) -> Result<Arc<Ram>, Error>,
        take: Option<&mut TakePiece<'_>>,
    ) -> Result<(Vm, Arc<Ram>), Failure> {
        let mut decoder = MainDecoder::new(limits);
        if take.is_some() {
            decoder = decoder.giving_device_state_in_pieces();
        }
        let main = MainChannel {
            session: &self.session,
            progress: &self.progress,
            reader: MainReader::new(main, decoder),
            return_path: &mut self.return_path,
            grace: self.channel_timeout,
            wait_for_all,
        };
        let received = main.run(provide, take)?;
        if !self.return_path.is_open() {
            self.wait_for_channels()?;
        }
        Ok(received)
    }

    fn wait_for_channels(&self) -> Result<(), Stopped> {
        let (limit, what) = (self.channel_timeout, "the source to close its channels");
        let ended = self
            .session
            .wait_for(Waiter::Main, what, limit, |state| state.barrier.all_ended().then_some(()))?;
        if ended.is_none() {
            tracing::warn!("the source keeps its channels open after the end of the migration");
        }
        Ok(())
    }

    fn arrived(mut self, received: Result<(Vm, Arc<Ram>), Failure>) -> Result<Arrived, Error> {
        let (mut vm, ram) = match self.session.settle(received) {
            Ok(received) => received,
            Err(Stopped) => return Err(self.fail()),
        };
        vm.uuid = self.session.look(|state| state.connections.begun_uuid()).unwrap_or_default();
        Ok(Arrived { vm, ram, return_path: self.return_path.is_open(), migration: self })
    }

    /// Tells the source of a migration that has stopped, and gives the reason.
    fn fail(&mut self) -> Error {
        self.over = true;
        if let Err(error) = self.return_path.refuse() {
            tracing::debug!(%error, "the source cannot be told");
        }
        let (refused, behind) =
            self.session.look(|state| (state.refused.clone(), state.barrier.behind()));
        self.session.reason().lacking(AT_SYNC, behind).after(&refused)
    }

    fn confirm(&mut self) -> Result<Stats, Error> {
        let promised = match self.promise() {
            // Whatever else has ended the migration meanwhile, this is what matters. Nothing that is
            // said now would take it back.
            Err(Failure::Error(error @ Error::Unconfirmed(_))) => {
                self.over = true;
                self.session.end();
                return Err(error);
            }
            promised => promised,
        };
        if let Err(Stopped) = self.session.settle(promised) {
            return Err(self.fail());
        }
        self.over = true;
        if self.return_path.is_open() {
            // Past the promise nothing can fail any more.
            _ = self.wait_for_channels();
        }
        self.session.end();
        Ok(self.progress.snapshot())
    }

    /// Tells the source that the VM is safe here, if nothing has failed since it arrived and the
    /// source still waits for it. Nothing fails the migration from then on.
    fn promise(&mut self) -> Result<(), Failure> {
        if self.committed {
            // Whatever is in the way now: the VM is not here any more.
            let unheard = |error: Error| Error::Unconfirmed(io::Error::other(error.to_string()));
            return Ok(self.return_path.confirm().map_err(unheard)?);
        }
        if self.return_path.is_open() && self.source_has_left() {
            return Err(Error::SourceGone.into());
        }
        self.session.check()?;
        self.return_path.confirm()?;
        // Whoever cancels only now is too late.
        _ = self.session.succeed();
        Ok(())
    }
}

impl Arrived {
    /// The connections that were refused until now.
    pub fn refused(&self) -> Refused {
        self.migration.session.look(|state| state.refused.clone())
    }

    /// Pages that the source has never sent. A source sends every page at least once, unless it
    /// knows that nobody needs it (free page hinting, unplugged memory); so where neither is in
    /// use, a page missing is a channel missing.
    pub fn missing_pages(&self) -> u64 {
        self.ram.missing_pages()
    }

    /// Says that the VM is about to go where it cannot be taken back from, as to another process. From then on nothing ends the
    /// migration: no cancellation, no limit of time, no connection that fails. What is left is to [confirm](Self::confirm), which
    /// then refuses nothing any more, to [leave it unclear](Self::leave_unclear), or, where the VM did not go after all, to drop
    /// this.
    ///
    /// # Errors
    /// The migration has failed since the VM arrived, or the source has left, as far as is known. Only dropping is left then.
    pub fn commit(&mut self) -> Result<(), Error> {
        let migration = &mut self.migration;
        if migration.return_path.is_open() && migration.source_has_left() {
            return Err(Error::SourceGone);
        }
        match migration.session.succeed() {
            Ok(()) => {
                migration.committed = true;
                Ok(())
            }
            Err(Stopped) => Err(migration.session.reason()),
        }
    }

    /// Says nothing to the source, neither that the VM is here nor that it is not, because that is not known. A source of this
    /// library's does not know it either then ([`Unfinished::Unclear`](crate::Unfinished::Unclear)), and its guest goes on if its
    /// caller says so; a QEMU takes it for a failure, and its guest goes on.
    pub fn leave_unclear(mut self) {
        self.migration.over = true;
        self.migration.session.end();
    }

    /// Tells the source that everything is safely stored, or running: it gives its VM up. Returns
    /// what was counted.
    ///
    /// # Errors
    /// A failure since the VM arrived: the source keeps the VM, and is told so if it can be. But after
    /// [`Error::Unconfirmed`] the source may have heard that it has arrived, and have let it go: look
    /// there, and until then let the guest run on neither side and keep what has arrived.
    pub fn confirm(mut self) -> Result<Stats, Error> {
        self.migration.confirm()
    }
}

impl Drop for Migration {
    fn drop(&mut self) {
        if !self.over {
            if !self.committed {
                self.session.fail(Error::Cancelled);
            }
            self.fail();
        }
    }
}
