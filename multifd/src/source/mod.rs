//! The source of a migration.

mod builder;
mod hearing;

use std::io::{self, ErrorKind, Read, Write};
use std::iter;
use std::sync::Arc;
use std::time::Duration;

use multifd_core::ram::{BlockDigest, PageBatch, Ram, RamDigests, SentPages, is_zero};
use multifd_core::wire::InitialPacket;
use multifd_core::{Compression, MultiFdMethods, Registry};

pub use builder::{SourceBuilder, ZeroPages};
use hearing::FromDestination;

use crate::driver::{MainChannelError, MainWriter, ZeroCopyCounters};
use crate::engine::cancel::CancelToken;
use crate::engine::channels::{self, Channels, Sending};
use crate::engine::hearing::Hearing;
use crate::engine::outgoing::Outgoing;
use crate::engine::pace::{Pace, Paced};
use crate::engine::queue::{Queue, SYNCS};
use crate::engine::return_path::{ReturnPath, hear_last_word};
use crate::engine::session::{Failure, Session, Stopped, Waiter, Wake};
use crate::engine::watch::Timer;
use crate::error::{Error, Unfinished};
use crate::page_set::PageSet;
use crate::progress::{Progress, Stats};
use crate::stream::{BlockInfo, MainEncoder};
use crate::transport::{Connection, Watched};

/// The source of a migration: sends a VM's RAM in rounds, then its device state.
///
/// ```text
/// SourceBuilder::connect → round (all pages) → round (pages dirtied since) … → finish
/// ```
///
/// The guest may run until [`finish`](Self::finish); its memory is only read. Whatever fails before,
/// the guest can go on here; `finish` says whose it is. Dropping a source cancels the migration.
#[derive(Debug)]
pub struct Source {
    session: Arc<Session<State>>,
    ram: Arc<Ram>,
    zero_pages: ZeroPages,
    main: MainWriter<Paced<Watched, State>>,
    main_connection: Connection,
    hearing: Arc<Hearing<FromDestination>>,
    channels: Channels,
    expected_digests: Option<Vec<BlockDigest>>,
}

/// Where a device state comes from.
enum DeviceState<'a> {
    None,
    Bytes(&'a [u8]),
    Reader(&'a mut dyn Read),
}

/// What the threads of a source know of each other.
#[derive(Debug)]
struct State {
    queue: Queue<PageBatch>,
    return_path: ReturnPath,
}

impl Sending for State {
    type Batch = PageBatch;

    fn queue(&mut self) -> &mut Queue<PageBatch> {
        &mut self.queue
    }
}

impl AsRef<ReturnPath> for State {
    fn as_ref(&self) -> &ReturnPath {
        &self.return_path
    }
}

impl Source {
    /// A source of `ram`, to be set up: see [`SourceBuilder`].
    pub fn builder(registry: &Registry, ram: Arc<Ram>) -> SourceBuilder<'_> {
        SourceBuilder::new(registry, ram)
    }

    fn connect(setup: &SourceBuilder<'_>, to: Outgoing) -> Result<Self, Error> {
        let count = to.count(setup.channels)?;
        let methods = setup.codec.find(setup.registry)?;
        methods.descriptor().level(setup.level)?;
        check_page_size(setup)?;
        let progress = Progress::new(count);
        let zero_copy = zero_copy(setup, &to, &*methods, &progress)?;
        let channels = Channels {
            to,
            connect_timeout: setup.connect_timeout,
            sent: SentPages::of(&methods.descriptor()),
            level: setup.level,
            count,
            detect_zero_pages: setup.zero_pages == ZeroPages::Channels,
            digests: (setup.digests && !setup.zero_copy)
                .then(|| Arc::new(RamDigests::new(&setup.ram))),
            pace: setup.max_bandwidth.map(|limit| Arc::new(Pace::new(limit))),
            zero_copy,
            methods,
            progress,
        };
        let state = State { queue: Queue::new(count), return_path: ReturnPath::default() };
        let session = Session::new(state, &setup.terms)?;
        session.begin_time_limit();
        // The main channel connects first: under TLS a destination tells them apart by that.
        channels.to.register(&session);
        let connected = channels.main(&session);
        let connected = session.settle(connected).map_err(|Stopped| session.reason());
        let main_connection = connected?;
        session.watch().set_peer("the destination", &main_connection);
        let encoder =
            MainEncoder::new().with_page_size(setup.ram.page_size()).with_footers(setup.footers);
        let main = Watched::new(&main_connection, session.watch());
        let main = Paced::new(main, &session, channels.pace.as_ref());
        let mut source = Self {
            ram: Arc::clone(&setup.ram),
            zero_pages: setup.zero_pages,
            main: MainWriter::new(main, encoder),
            hearing: Arc::new(Hearing::new(&main_connection, FromDestination::default())),
            main_connection,
            channels,
            expected_digests: setup.expected_digests.clone(),
            session,
        };
        let opened = source.open(setup);
        source.concluded(opened)?;
        Ok(source)
    }

    /// Starts the channels and announces the RAM, which ends in a first sync.
    fn open(&mut self, setup: &SourceBuilder<'_>) -> Result<(), Failure> {
        self.main.encoder().header(&setup.configuration)?;
        if setup.return_path {
            self.listen()?;
            self.main.encoder().open_return_path()?;
        }
        self.main.flush()?;
        let page_size = self.ram.page_size();
        let digests = self.channels.digests.is_some();
        let announced = InitialPacket::new(setup.uuid, 0).with_digests(digests);
        self.channels.start(&self.session, page_size, announced, |link, _| link, explained)?;
        let page_bytes = setup.block_page_bytes.iter().copied().chain(iter::repeat(None));
        let blocks = self.ram.blocks().iter().zip(page_bytes).map(|(block, page_bytes)| {
            BlockInfo::new(block.name().clone(), block.bytes()).with_page_bytes(page_bytes)
        });
        let blocks: Vec<_> = blocks.collect();
        self.channels.progress.set_ram(page_size, &blocks, true);
        self.ask_sync()?;
        let encoder = self.main.encoder();
        if let Some(advise) = setup.postcopy_advise {
            encoder.postcopy_advise(advise)?;
        }
        encoder.early_state(&setup.early_state.before_start)?;
        encoder.ram_start(setup.section_id, 0, &blocks, setup.sync_form)?;
        encoder.early_state(&setup.early_state.behind_start)?;
        self.wait_for_sync()?;
        Ok(self.flush()?)
    }

    /// Reads the return path in a thread of its own, so that a destination that fails is heard at
    /// once.
    fn listen(&self) -> Result<(), Failure> {
        let hearing = Arc::clone(&self.hearing);
        self.session.update(Wake::Nobody, |state| state.return_path.open())?;
        let listen = move |session: &Session<State>| session.settle(hearing.listen(session));
        self.session.spawn("return", listen)?;
        Ok(())
    }

    /// Sends the pages of one round, while the guest runs. Returns when every channel has sent
    /// what is its part.
    ///
    /// Memory that nobody has touched is sent as zero pages without being read, where the kernel
    /// knows ([`BlockMemory::data`](multifd_core::ram::BlockMemory::data)) and at least half of a
    /// block is to be sent, and 2 MiB. That is asked at the start of the round: a page that is touched later is
    /// dirty, and of the next round, as one that is written after it was read. So dirty tracking must
    /// be on before the first round, as always.
    ///
    /// # Errors
    /// The first error of any channel. The migration is over then.
    ///
    /// # Panics
    /// With pages of another RAM.
    pub fn round(&mut self, pages: &PageSet) -> Result<(), Error> {
        let begun = self.main.encoder().part_begin().map_err(Failure::from);
        let sent = begun.and_then(|()| self.body(pages));
        self.concluded(sent)
    }

    /// Sends the last round, of a guest that has stopped, then the device state: the bytes that a
    /// destination once received, from the first FULL section on, or a VMM's own in a
    /// [`FullSection`](crate::stream::FullSection), or `None` for RAM alone. Returns
    /// when the destination has confirmed that it has everything, or, without a return path, when
    /// everything is sent. The guest must not run here again then.
    ///
    /// # Errors
    /// The first error of any channel, or that the destination did not confirm, with what is known
    /// of the guest: [`Unfinished::Failed`], it goes on here; [`Unfinished::Unclear`], the
    /// destination may have it. It is unclear from when the byte that completes the stream, the EOF
    /// behind the device state's sections, may have been written, until the destination has said
    /// that it has or has not the guest; for a cancellation, too, and without a return path.
    ///
    /// # Panics
    /// With pages of another RAM.
    pub fn finish(self, pages: &PageSet, device_state: Option<&[u8]>) -> Result<Stats, Unfinished> {
        self.finish_with(pages, device_state.map_or(DeviceState::None, DeviceState::Bytes))
    }

    /// As [`finish`](Self::finish), with the device state as it is read, to the end of `device_state`:
    /// it is neither kept nor copied as a whole. What may be its end is sent only when all of it has
    /// been read.
    ///
    /// # Errors
    /// As [`finish`](Self::finish), and a device state that cannot be read.
    ///
    /// # Panics
    /// With pages of another RAM.
    pub fn finish_from(
        self,
        pages: &PageSet,
        mut device_state: impl Read,
    ) -> Result<Stats, Unfinished> {
        self.finish_with(pages, DeviceState::Reader(&mut device_state))
    }

    fn finish_with(
        mut self,
        pages: &PageSet,
        device_state: DeviceState<'_>,
    ) -> Result<Stats, Unfinished> {
        let sent = self.finish_sending(pages, device_state);
        if let Err(error) = self.concluded(sent) {
            // Every thread has ended: nothing more will be heard.
            let return_path = self.session.look(|state| state.return_path);
            Unfinished::judge(return_path.owner(), error)?;
            return Ok(self.progress().snapshot());
        }
        // Nothing fails the migration any more: a codec that cannot be cleaned up is logged.
        _ = channels::finish_succeeded(&self.session);
        self.session.end();
        Ok(self.progress().snapshot())
    }

    fn finish_sending(
        &mut self,
        pages: &PageSet,
        device_state: DeviceState<'_>,
    ) -> Result<(), Failure> {
        self.main.encoder().end_begin()?;
        self.body(pages)?;
        self.tell_digests()?;
        let Self { session, hearing, main, .. } = self;
        let complete = || {
            if session.look(|state| state.return_path.is_open()) {
                // What has come by now was said too early, whichever thread would have heard it.
                hearing.hear(session)?;
            }
            session.update(Wake::Nobody, |state| state.return_path.complete())?;
            Ok::<_, Failure>(())
        };
        match device_state {
            DeviceState::Bytes(bytes) => main.device_state_before_end(bytes, complete)?,
            DeviceState::Reader(reader) => {
                send_pieces(main, reader)?;
                complete()?;
            }
            DeviceState::None => {
                complete()?;
                main.encoder().no_device_state()?;
            }
        }
        self.flush()?;
        self.wait_for_confirmation()?;
        Ok(self.session.succeed()?)
    }

    /// Has the end of the stream say what the RAM holds, as it was sent.
    fn tell_digests(&mut self) -> Result<(), Error> {
        let Some(digests) = &self.channels.digests else { return Ok(()) };
        let sent: Vec<_> = digests.blocks().map(|(_, digest)| digest).collect();
        if let Some(expected) = &self.expected_digests {
            for (index, (block, sent)) in self.ram.blocks().iter().zip(&sent).enumerate() {
                if expected.get(index) != Some(sent) {
                    return Err(Error::Changed { name: block.name().clone() });
                }
            }
        }
        self.main.encoder().set_digests(sent);
        Ok(())
    }

    /// Cancels the migration when `limit` is over.
    pub(crate) fn cancel_after(&self, limit: Duration) -> Timer {
        self.session.watch().cancel_after(limit)
    }

    pub(crate) fn ram(&self) -> &Arc<Ram> {
        &self.ram
    }

    /// The counters, to be read while the migration runs.
    pub fn progress(&self) -> Progress {
        self.channels.progress.clone()
    }

    /// The means to cancel the migration from another thread.
    pub fn cancel_token(&self) -> CancelToken {
        self.session.cancel_token()
    }

    /// Sends the pages of a body and ends it.
    fn body(&mut self, pages: &PageSet) -> Result<(), Failure> {
        assert!(pages.is_of(&self.ram), "the pages of a round are of the RAM that is migrated");
        let Self { session, main, channels, ram, .. } = self;
        let page_bytes = ram.page_size().bytes();
        let scan_here = self.zero_pages == ZeroPages::Main;
        let skip = |block: usize, offset, zero: bool| {
            let scan = || is_zero(ram.blocks()[block].slice(offset, page_bytes));
            if !scan_here || !(zero || scan()) {
                return Ok(false);
            }
            let name = ram.blocks()[block].name();
            if channels.sent.as_ref().is_some_and(|sent| sent.may_have(name, offset)) {
                return Ok(false);
            }
            main.encoder().zero_page(block, offset)?;
            if let Some(digests) = &channels.digests {
                digests.of(&ram.blocks()[block]).into_iter().for_each(|own| own.note_zero(offset));
            }
            main.flush_if_much()?;
            channels.progress.count_zero_page();
            Ok::<_, Failure>(true)
        };
        let holes = self.zero_pages != ZeroPages::Off;
        pages.batches(holes, skip, |batch| Ok(push(session, batch)?))?;
        self.ask_sync()?;
        self.main.encoder().sync()?;
        self.main.encoder().body_end()?;
        self.wait_for_sync()?;
        Ok(self.flush()?)
    }

    fn flush(&mut self) -> Result<(), MainChannelError> {
        self.main.flush()?;
        self.channels.progress.set_main_bytes(self.main.encoder().offset());
        Ok(())
    }

    fn ask_sync(&self) -> Result<(), Stopped> {
        self.channels.progress.count_sync();
        self.session.update(Wake::Senders, |state| state.queue.ask_sync())
    }

    /// Waits until each channel has sent its SYNC. Only then may the main channel say that it is to be
    /// waited for: a QEMU that waits for one that never comes, since its channel has closed, hangs for
    /// ever, deaf to its monitor.
    fn wait_for_sync(&self) -> Result<(), Stopped> {
        self.session.wait(Waiter::Main, SYNCS, |state| state.queue.all_synced().then_some(()))
    }

    fn wait_for_confirmation(&self) -> Result<(), Stopped> {
        if !self.session.look(|state| state.return_path.is_open()) {
            Watched::new(&self.main_connection, self.session.watch()).close();
            return Ok(());
        }
        // The destination may take any time to store its VM, or to start it.
        self.session.wait_patiently(Waiter::Main, "the confirmation", |state| {
            state.return_path.is_confirmed().then_some(())
        })
    }

    /// Ends the migration where `result` is a failure, and gives the error that came first.
    fn concluded<R>(&self, result: Result<R, Failure>) -> Result<R, Error> {
        let session = &self.session;
        let result = result.map_err(|failure| failure.map(|error| explained(session, error)));
        session.settle(result).map_err(|Stopped| {
            let behind = session.look(|state| state.queue.behind());
            session.reason().lacking(SYNCS, behind)
        })
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.session.end();
    }
}

/// Hands `batch` to the channels, when there is room.
fn push(session: &Session<State>, batch: PageBatch) -> Result<(), Stopped> {
    let mut batch = Some(batch);
    session.wait(Waiter::Main, "room for a batch", |state| state.queue.push(&mut batch))?;
    session.wake(Wake::OneSender);
    Ok(())
}

/// What to say of `error`, where the destination does not say it itself.
fn explained(session: &Session<State>, error: Error) -> Error {
    if error.is_refusal() {
        session.note(|state| state.return_path.refuse());
    }
    if !error.is_disconnect() {
        return error;
    }
    hear_last_word(session, &error);
    match error {
        Error::Connect { .. } => error,
        broken => Error::DestinationClosed(Box::new(broken)),
    }
}

/// Sends a device state as it is read, but for its end, which is left in the encoder.
fn send_pieces(main: &mut MainWriter<impl Write>, state: &mut dyn Read) -> Result<(), Failure> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        match state.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => {
                main.encoder().device_state_piece(&buffer[..count])?;
                main.flush()?;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::DeviceState(error).into()),
        }
    }
    Ok(main.encoder().device_state_end()?)
}

/// Where what is sent without a copy is counted, if it is asked for.
fn zero_copy(
    setup: &SourceBuilder<'_>,
    to: &Outgoing,
    methods: &dyn MultiFdMethods,
    progress: &Progress,
) -> Result<Option<Arc<ZeroCopyCounters>>, Error> {
    if !setup.zero_copy {
        return Ok(None);
    }
    let descriptor = methods.descriptor();
    if descriptor.compression != Compression::None {
        let why = format!("codec {} makes a copy, only none does not", descriptor.name);
        return Err(Error::ZeroCopy(io::Error::new(ErrorKind::Unsupported, why)));
    }
    if setup.expected_digests.is_some() {
        let why = "expected digests are checked on a copy";
        return Err(Error::ZeroCopy(io::Error::new(ErrorKind::Unsupported, why)));
    }
    to.check_zero_copy().map_err(Error::ZeroCopy)?;
    Ok(Some(progress.zero_copy_counters()))
}

/// A configuration that says its page size must say that of the RAM.
fn check_page_size(setup: &SourceBuilder<'_>) -> Result<(), Error> {
    let own = setup.ram.page_size();
    match setup.configuration.page_size() {
        Some(announced) if announced != own => Err(Error::PageSize { announced, own }),
        _ => Ok(()),
    }
}
