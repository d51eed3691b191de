//! The destination of a migration.

pub(crate) mod accept;
mod builder;
mod channel;
mod main_channel;
pub(crate) mod state;

use std::io::{self, Read};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use multifd_core::channel::read_initial;
use multifd_core::io::{ChannelReader, Socket};
use multifd_core::ram::{Ram, RamBlock};
use multifd_core::wire::{InitialPacket, Uuid};
use multifd_core::{MethodDescriptor, MethodStats, PageSize};
use pollster::block_on;

use accept::{Acceptor, ChannelThreads, Intake, MAIN_MAGIC};
pub use builder::DestinationBuilder;
use main_channel::{Answers, MainChannel, Said};
use state::State;

use crate::driver::MainReader;
use crate::error::Error;
use crate::net::{Answering, Listener, Stream};
use crate::progress::{Progress, Stats};
use crate::session::{CancelToken, Session, Stopped, Wake};
use crate::stream::{BlockInfo, Configuration, Limits, MainDecoder, ReturnMessage, SyncForm};
use crate::uri::Uri;

/// The destination of a migration: takes in a VM's RAM and its device state.
///
/// ```text
/// DestinationBuilder::listen → receive → (store what arrived, or start the VM) → confirm
/// ```
#[derive(Debug)]
pub struct Destination {
    channels: u8,
    limits: Limits,
    acceptor: Arc<Acceptor<IntoRam>>,
    ending: Ending,
}

/// What the source has announced, before the first page.
#[derive(Clone, Copy, Debug)]
pub struct Incoming<'a> {
    /// Machine type and what else the source says of itself.
    pub configuration: &'a Configuration,
    /// The RAM blocks that come, with their sizes.
    pub blocks: &'a [BlockInfo],
    /// The size of a page.
    pub page_size: PageSize,
}

/// A VM that has arrived whole: every channel was at the last sync when the main channel ended.
///
/// The source still holds the VM and, with a return path, waits: [`confirm`](Self::confirm) lets
/// it go. Dropping this instead tells it that the migration failed, and its guest goes on there.
#[derive(Debug)]
pub struct Arrived {
    /// Machine type and what else the source says of itself.
    pub configuration: Configuration,
    /// The VM's UUID, all zero where it has none.
    pub uuid: Uuid,
    /// The RAM blocks, in the source's order.
    pub blocks: Vec<BlockInfo>,
    /// The RAM.
    pub ram: Arc<Ram>,
    /// The number of the ram section in the main channel.
    pub section_id: u32,
    /// How the source told syncs.
    pub sync_form: SyncForm,
    /// Whether the main channel's sections ended in a FOOTER.
    pub footers: bool,
    /// The device state, byte for byte: FULL sections, EOF, VMDESCRIPTION.
    pub device_state: Vec<u8>,
    /// Whether the source waits for a confirmation.
    pub return_path: bool,
    ending: Ending,
}

/// What a migration holds until its end, however it ends. Dropping it fails the migration.
#[derive(Debug)]
struct Ending {
    session: Arc<Session<State>>,
    progress: Progress,
    channel_timeout: Duration,
    answers: Answers<Answering>,
    threads: Threads,
    over: bool,
}

/// A destination's channels.
#[derive(Debug)]
struct IntoRam {
    progress: Progress,
    method: MethodDescriptor,
}

impl Intake for IntoRam {
    type State = State;

    fn receive(
        &self,
        session: &Session<State>,
        initial: InitialPacket,
        reader: Socket<Arc<socket2::Socket>>,
    ) -> Result<MethodStats, Error> {
        let counters = self.progress.counters(initial.channel);
        channel::receive(session, &self.method, initial.channel, reader, counters)
    }
}

/// A channel's thread, which ends with what the codec has counted.
pub(crate) type ChannelThread = JoinHandle<Option<MethodStats>>;

#[derive(Debug)]
enum Threads {
    /// Channels are accepted, by this thread.
    Accepted(Arc<Acceptor<IntoRam>>, JoinHandle<Option<()>>),
    /// Channels were given.
    Given(ChannelThreads),
}

impl Destination {
    /// A destination, to be set up: see [`DestinationBuilder`].
    pub fn builder(registry: &multifd_core::Registry) -> DestinationBuilder<'_> {
        DestinationBuilder::new(registry)
    }

    fn listen(setup: &DestinationBuilder<'_>, uri: &Uri) -> Result<Self, Error> {
        let (session, progress, method) = prepare(setup)?;
        let acceptor = Arc::new(Acceptor {
            session: Arc::clone(&session),
            listener: Listener::bind(uri)?,
            timeout: setup.channel_timeout,
            threads: Mutex::default(),
            intake: IntoRam { progress: progress.clone(), method },
        });
        let accept = {
            let acceptor = Arc::clone(&acceptor);
            move |_: &Session<State>| acceptor.run()
        };
        let thread = session.spawn("multifd-accept".to_owned(), accept)?;
        let threads = Threads::Accepted(Arc::clone(&acceptor), thread);
        Ok(Self {
            channels: setup.channels,
            limits: limits(setup),
            acceptor,
            ending: Ending::new(setup, session, progress, threads),
        })
    }

    /// Where it listens, with the port that was picked where port 0 was asked for.
    pub fn uri(&self) -> &Uri {
        self.acceptor.listener.uri()
    }

    /// The counters, to be read while the migration runs.
    pub fn progress(&self) -> Progress {
        self.ending.progress.clone()
    }

    /// The means to cancel the migration from another thread.
    pub fn cancel_token(&self) -> CancelToken {
        CancelToken::new(&self.ending.session)
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
        let Self { channels, limits, acceptor, mut ending } = self;
        let received = ending.main_channel().and_then(|stream| {
            // The magic was read to tell the channels apart.
            let stream = io::Cursor::new(MAIN_MAGIC).chain(stream);
            let accept_waiting = || acceptor.accept_waiting();
            ending.follow(stream, limits, channels, &accept_waiting, provide)
        });
        drop(acceptor);
        ending.arrived(received)
    }
}

/// [`DestinationBuilder::decode`].
fn decode<R: ChannelReader + 'static>(
    setup: &DestinationBuilder<'_>,
    main: impl Read,
    channels: Vec<R>,
    provide: impl FnOnce(&Incoming<'_>) -> Result<Arc<Ram>, Error>,
) -> Result<Arrived, Error> {
    let (session, progress, method) = prepare(setup)?;
    let mut threads = Vec::new();
    for mut reader in channels {
        // Where an earlier channel has failed already, the main channel's end says so.
        let added = session.update(Wake::Nobody, State::add_connection);
        let connection = added.ok().flatten().unwrap_or_default();
        let progress = progress.clone();
        let receive = move |session: &Session<State>| {
            let mut magic = [0; 4];
            block_on(reader.read_exact(&mut magic)).map_err(multifd_core::Error::reading)?;
            let initial = block_on(read_initial(magic, &mut reader))?;
            channel::add(session, connection, initial)?;
            let counters = progress.counters(initial.channel);
            channel::receive(session, &method, initial.channel, reader, counters)
        };
        threads.push(session.spawn("multifd-recv".to_owned(), receive)?);
    }
    let mut ending =
        Ending::new(setup, session, progress, Threads::Given(ChannelThreads::of(threads)));
    let received = ending.follow(main, limits(setup), setup.channels, &|| Ok(()), provide);
    ending.arrived(received)
}

type Prepared = (Arc<Session<State>>, Progress, MethodDescriptor);

fn prepare(setup: &DestinationBuilder<'_>) -> Result<Prepared, Error> {
    if setup.channels == 0 {
        return Err(Error::ChannelCount(0));
    }
    let method = *setup.registry.get(setup.compression)?;
    method.require()?;
    let session = Session::new(State::new(setup.channels, setup.uuid));
    Ok((session, Progress::new(setup.channels), method))
}

fn limits(setup: &DestinationBuilder<'_>) -> Limits {
    Limits::default().with_page_size(setup.page_size).with_device_state(setup.device_state_limit)
}

impl Ending {
    fn new(
        setup: &DestinationBuilder<'_>,
        session: Arc<Session<State>>,
        progress: Progress,
        threads: Threads,
    ) -> Self {
        let answers = Answers { writer: None, open: false };
        let channel_timeout = setup.channel_timeout;
        Self { session, progress, channel_timeout, answers, threads, over: false }
    }

    /// Waits for the main channel to connect.
    fn main_channel(&mut self) -> Result<Stream, Error> {
        let main = self.session.wait(Wake::Nobody, State::take_main);
        let stream = Stream(main.map_err(stopped)?);
        self.answers.writer = Some(Answering(stream.clone()));
        Ok(stream)
    }

    /// Follows the main channel, then waits for the channels to end where nothing else tells that
    /// they are done.
    fn follow(
        &mut self,
        main: impl Read,
        limits: Limits,
        channels: u8,
        accept_waiting: &dyn Fn() -> Result<(), Error>,
        provide: impl FnOnce(&Incoming<'_>) -> Result<Arc<Ram>, Error>,
    ) -> Result<(Said, Arc<Ram>), Error> {
        let main = MainChannel {
            session: &self.session,
            progress: &self.progress,
            reader: MainReader::new(main, MainDecoder::new(limits)),
            answers: &mut self.answers,
            accept_waiting,
            channels,
            channel_timeout: self.channel_timeout,
        };
        let received = main.run(provide)?;
        // Nobody waits for answers to a recording.
        self.answers.open &= self.answers.writer.is_some();
        if !self.answers.open {
            self.wait_for_channels()?;
        }
        Ok(received)
    }

    fn wait_for_channels(&self) -> Result<(), Error> {
        let ended = |state: &mut State| state.all_ended().then_some(());
        let ended = self.session.wait_for(self.channel_timeout, ended).map_err(stopped)?;
        if ended.is_none() {
            tracing::warn!("the source keeps its channels open after the end of the migration");
        }
        Ok(())
    }

    fn arrived(mut self, received: Result<(Said, Arc<Ram>), Error>) -> Result<Arrived, Error> {
        let (said, ram) = match received {
            Ok(received) => received,
            Err(error) => return Err(self.fail(error)),
        };
        Ok(Arrived {
            configuration: said.configuration,
            uuid: self.session.look(State::uuid).unwrap_or_default(),
            blocks: said.blocks,
            ram,
            section_id: said.section_id,
            sync_form: said.sync_form,
            footers: said.footers,
            device_state: said.device_state,
            return_path: self.answers.open,
            ending: self,
        })
    }

    /// Stops everything, tells the source, and gives the error that came first.
    fn fail(&mut self, error: Error) -> Error {
        self.over = true;
        self.session.fail(error);
        let first = self.session.take_failure().unwrap_or(Error::Cancelled);
        if let Err(error) = self.answers.send(ReturnMessage::Shut(1)) {
            tracing::debug!(%error, "the source cannot be told");
        }
        self.join();
        first
    }

    fn confirm(&mut self) -> Result<(Stats, MethodStats), Error> {
        if let Err(error) = self.promise() {
            return Err(self.fail(error));
        }
        self.over = true;
        if self.answers.open {
            // Past the promise nothing can fail any more.
            _ = self.wait_for_channels();
        }
        self.session.end();
        let stats = self.join();
        Ok((self.progress.snapshot(), stats))
    }

    /// Tells the source that the VM is safe here, if nothing has failed since it arrived and the
    /// source still waits for it. Nothing fails the migration from then on.
    fn promise(&mut self) -> Result<(), Error> {
        if let Some(Answering(stream)) = self.answers.writer.as_ref().filter(|_| self.answers.open)
        {
            if !stream.is_silent() {
                return Err(Error::SourceGone);
            }
        }
        self.session.update(Wake::Nobody, |_| ()).map_err(stopped)?;
        self.answers.send(ReturnMessage::Shut(0))?;
        // Whoever cancels only now is too late.
        _ = self.session.succeed();
        Ok(())
    }

    /// Waits for all threads. The session must have ended.
    fn join(&mut self) -> MethodStats {
        match std::mem::replace(&mut self.threads, Threads::Given(ChannelThreads::default())) {
            Threads::Accepted(acceptor, thread) => {
                acceptor.listener.stop();
                _ = thread.join();
                acceptor.take_threads()
            }
            Threads::Given(threads) => threads,
        }
        .join()
    }
}

impl Arrived {
    /// Pages that the source has never sent. A source sends every page at least once, unless it
    /// knows that nobody needs it (free page hinting, unplugged memory); so where neither is in
    /// use, a page missing is a channel missing.
    pub fn missing_pages(&self) -> u64 {
        let page_size = self.ram.page_size();
        let missing = |block: &Arc<RamBlock>| {
            block.bytes() / page_size.bytes() as u64 - block.received_pages(page_size)
        };
        self.ram.blocks().iter().map(missing).sum()
    }

    /// Tells the source that everything is safely stored, or running: it gives its VM up. Returns
    /// what was counted.
    ///
    /// # Errors
    /// A failure since the VM arrived. The source then keeps the VM, as far as it can be told.
    pub fn confirm(mut self) -> Result<(Stats, MethodStats), Error> {
        self.ending.confirm()
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        if !self.over {
            self.fail(Error::Cancelled);
        }
    }
}

/// Why the migration stopped is with the session: [`Ending::fail`] puts it in this one's place.
fn stopped(_: Stopped) -> Error {
    Error::Cancelled
}
