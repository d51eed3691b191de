//! The source of a migration.

mod builder;
mod channel;
pub(crate) mod queue;

use std::net::Shutdown;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use multifd_core::ram::{PageBatch, Ram, is_zero};
use multifd_core::{MethodDescriptor, MethodStats};
use socket2::Socket;

pub use builder::{SourceBuilder, ZeroPages};
use queue::Answers;

use crate::driver::{MainWriter, ReturnReader};
use crate::error::Error;
use crate::net::{self, Stream};
use crate::page_set::PageSet;
use crate::progress::{Progress, Stats};
use crate::session::{CancelToken, Session, Stopped, Wake};
use crate::stream::{BlockInfo, MainEncoder, ReturnMessage};
use crate::uri::Uri;

/// How long a source whose connection broke waits for the destination's word on why.
pub(crate) const LAST_WORD: Duration = Duration::from_millis(500);

/// The batches of a source's RAM.
type Queue = queue::Queue<PageBatch>;

/// The source of a migration: sends a VM's RAM in rounds, then its device state.
///
/// ```text
/// SourceBuilder::connect → round (all pages) → round (pages dirtied since) … → finish
/// ```
///
/// The guest may run until [`finish`](Self::finish); its memory is only read. Whatever fails,
/// the guest can go on here. Dropping a source cancels the migration.
#[derive(Debug)]
pub struct Source {
    session: Arc<Session<Queue>>,
    progress: Progress,
    ram: Arc<Ram>,
    zero_pages: ZeroPages,
    main: MainWriter<Stream>,
    main_socket: Arc<Socket>,
    channels: Vec<JoinHandle<Option<MethodStats>>>,
    answers: Option<JoinHandle<Option<()>>>,
}

impl Source {
    /// A source of `ram`, to be set up: see [`SourceBuilder`].
    pub fn builder(registry: &multifd_core::Registry, ram: Arc<Ram>) -> SourceBuilder<'_> {
        SourceBuilder::new(registry, ram)
    }

    fn connect(setup: &SourceBuilder<'_>, uri: &Uri) -> Result<Self, Error> {
        if setup.channels == 0 {
            return Err(Error::ChannelCount(0));
        }
        let method = *setup.registry.get(setup.compression)?;
        method.require()?;
        method.level(setup.level)?;
        check_page_size(setup)?;
        let session = Session::new(Queue::new(setup.channels.into()));
        // The main channel connects first: under TLS a destination tells them apart by that.
        let main_socket = net::connect(uri, setup.connect_timeout)?;
        session.register(&main_socket, Shutdown::Both);
        let mut source = Self {
            progress: Progress::new(setup.channels),
            ram: Arc::clone(&setup.ram),
            zero_pages: setup.zero_pages,
            main: MainWriter::new(
                Stream(Arc::clone(&main_socket)),
                MainEncoder::new()
                    .with_page_size(setup.ram.page_size())
                    .with_footers(setup.footers),
            ),
            channels: Vec::new(),
            answers: None,
            main_socket,
            session,
        };
        let opened = source.open(setup, &method, uri).and_then(|()| source.wait_for_sync());
        source.whole(opened)?;
        Ok(source)
    }

    /// Starts the channels and announces the RAM, which ends in a first sync.
    fn open(
        &mut self,
        setup: &SourceBuilder<'_>,
        method: &MethodDescriptor,
        uri: &Uri,
    ) -> Result<(), Error> {
        self.main.encoder().header(&setup.configuration)?;
        if setup.return_path {
            self.listen_to_answers()?;
            self.main.encoder().open_return_path()?;
        }
        self.main.flush()?;
        let packet_num = Arc::default();
        for number in 0..setup.channels {
            let socket = net::connect(uri, setup.connect_timeout)?;
            self.session.register(&socket, Shutdown::Both);
            let counters = self.progress.counters(number);
            let config = channel::config(setup, method, number, &packet_num, counters)?;
            self.channels.push(channel::start(&self.session, socket, method, config)?);
        }
        let blocks = self
            .ram
            .blocks()
            .iter()
            .map(|block| BlockInfo::new(block.name().clone(), block.bytes()));
        let blocks: Vec<_> = blocks.collect();
        self.ask_sync()?;
        self.main.encoder().ram_start(setup.section_id, 0, &blocks, setup.sync_form)?;
        self.main.flush()?;
        Ok(())
    }

    /// Reads the return path in a thread of its own, so that a destination that fails is heard at
    /// once.
    fn listen_to_answers(&mut self) -> Result<(), Error> {
        let mut reader = ReturnReader::new(Stream(Arc::clone(&self.main_socket)));
        _ = self.session.update(Wake::Nobody, |queue| queue.set_answers(Answers::Open));
        let listen = move |session: &Session<Queue>| loop {
            let message = match reader.next_message() {
                // A destination that goes away with bytes of ours unread resets the connection.
                Err(error) if error.is_reset() => None,
                message => message?,
            };
            match message {
                Some(ReturnMessage::Shut(0)) => {
                    let confirmed = session.update(Wake::Main, Queue::confirm).map_err(stopped)?;
                    return if confirmed { Ok(()) } else { Err(Error::EarlyConfirmation) };
                }
                Some(ReturnMessage::Shut(status)) => return Err(Error::DestinationFailed(status)),
                Some(_) => {}
                None => return Err(Error::DestinationGone),
            }
        };
        let thread = self.session.spawn("multifd-answers".to_owned(), listen);
        self.answers = Some(thread?);
        Ok(())
    }

    /// Sends the pages of one round, while the guest runs. Returns when every channel has sent
    /// what is its part.
    ///
    /// # Errors
    /// The first error of any channel. The migration is over then.
    ///
    /// # Panics
    /// With pages of another RAM.
    pub fn round(&mut self, pages: &PageSet) -> Result<(), Error> {
        let sent =
            self.main.encoder().part_begin().map_err(Error::from).and_then(|()| self.body(pages));
        self.whole(sent)
    }

    /// Sends the last round, of a guest that has stopped, then the device state: the bytes that a
    /// destination once received, from the first FULL section on, or a VMM's own in a
    /// [`FullSection`](crate::stream::FullSection), or `None` for RAM alone. Returns
    /// when the destination has confirmed that it has everything, or, without a return path, when
    /// everything is sent.
    ///
    /// # Errors
    /// The first error of any channel, or that the destination did not confirm. The migration has
    /// failed then, and the guest goes on here. One case nobody can decide: where the connection
    /// breaks, or the migration is cancelled, when everything is sent and only the confirmation is
    /// missing, the destination may have confirmed all the same; look there before the guest goes
    /// on.
    ///
    /// # Panics
    /// With pages of another RAM.
    pub fn finish(
        mut self,
        pages: &PageSet,
        device_state: Option<&[u8]>,
    ) -> Result<(Stats, MethodStats), Error> {
        let sent = self.main.encoder().end_begin().map_err(Error::from).and_then(|()| {
            self.body(pages)?;
            self.session.update(Wake::Nobody, Queue::complete).map_err(stopped)?;
            match device_state {
                Some(bytes) => self.main.encoder().device_state(bytes)?,
                None => self.main.encoder().no_device_state()?,
            }
            self.main.flush()?;
            self.progress.set_main_bytes(self.main.encoder().offset());
            self.wait_for_confirmation()?;
            self.session.succeed().map_err(stopped)
        });
        self.whole(sent)?;
        let stats = self.end_channels();
        self.session.end();
        Ok((self.progress.snapshot(), stats))
    }

    /// The counters, to be read while the migration runs.
    pub fn progress(&self) -> Progress {
        self.progress.clone()
    }

    /// The means to cancel the migration from another thread.
    pub fn cancel_token(&self) -> CancelToken {
        CancelToken::new(&self.session)
    }

    /// Sends the pages of a body and ends it.
    fn body(&mut self, pages: &PageSet) -> Result<(), Error> {
        assert!(pages.is_of(&self.ram), "the pages of a round are of the RAM that is migrated");
        let (session, main, progress) = (&self.session, &mut self.main, &self.progress);
        let page_bytes = self.ram.page_size().bytes();
        let scan_here = self.zero_pages == ZeroPages::Main;
        let skip = |block: usize, offset| {
            if !scan_here || !is_zero(self.ram.blocks()[block].slice(offset, page_bytes)) {
                return Ok(false);
            }
            main.encoder().zero_page(block, offset)?;
            main.flush_if_much()?;
            progress.count_zero_page();
            Ok(true)
        };
        pages.batches(skip, |batch| push(session, batch))?;
        self.ask_sync()?;
        self.main.encoder().sync()?;
        self.main.encoder().body_end()?;
        self.main.flush()?;
        self.progress.set_main_bytes(self.main.encoder().offset());
        self.wait_for_sync()
    }

    fn ask_sync(&self) -> Result<(), Error> {
        self.progress.count_sync();
        self.session.update(Wake::Channels, Queue::ask_sync).map_err(stopped)
    }

    fn wait_for_sync(&self) -> Result<(), Error> {
        let synced = |queue: &mut Queue| queue.all_synced().then_some(());
        self.session.wait(Wake::Nobody, synced).map_err(stopped)
    }

    fn wait_for_confirmation(&self) -> Result<(), Error> {
        if self.answers.is_none() {
            _ = self.main_socket.shutdown(Shutdown::Write);
            return Ok(());
        }
        let confirmed = |queue: &mut Queue| (queue.answers() == Answers::Confirmed).then_some(());
        self.session.wait(Wake::Nobody, confirmed).map_err(stopped)
    }

    /// Ends the channels of a migration that has succeeded. Returns what the codecs have counted.
    fn end_channels(&mut self) -> MethodStats {
        _ = self.session.update(Wake::Channels, Queue::finish);
        let mut sum = MethodStats::new();
        for channel in self.channels.drain(..) {
            // A codec that cannot be cleaned up has been logged, and has no statistics.
            for (name, count) in channel.join().ok().flatten().unwrap_or_default() {
                *sum.entry(name).or_default() += count;
            }
        }
        sum
    }

    /// Ends the migration where `result` is an error, and gives the error that came first.
    fn whole<R>(&mut self, result: Result<R, Error>) -> Result<R, Error> {
        result.map_err(|error| {
            let error = explained(&self.session, error);
            self.session.fail(error);
            self.stop();
            self.session.take_failure().unwrap_or(Error::Cancelled)
        })
    }

    fn stop(&mut self) {
        self.session.end();
        for channel in self.channels.drain(..) {
            _ = channel.join();
        }
        if let Some(answers) = self.answers.take() {
            _ = answers.join();
        }
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A configuration that says its page size must say that of the RAM.
fn check_page_size(setup: &SourceBuilder<'_>) -> Result<(), Error> {
    let own = setup.ram.page_size();
    match setup.configuration.page_size() {
        Some(said) if said != own => Err(Error::PageSize { announced: said.bytes() as u64, own }),
        _ => Ok(()),
    }
}

/// What to say of `error`. A destination that closed the connection is given time to say why: its
/// word on the return path, if it comes, fails the migration first, and says more than the broken
/// pipe.
fn explained(session: &Session<Queue>, error: Error) -> Error {
    if !error.is_disconnect() {
        return error;
    }
    if session.look(Queue::answers) == Answers::Open {
        _ = session.wait_for::<()>(LAST_WORD, |_| None);
    }
    match error {
        Error::Connect { .. } => error,
        broken => Error::DestinationClosed(Box::new(broken)),
    }
}

/// Hands `batch` to the channels, when there is room.
fn push(session: &Session<Queue>, batch: PageBatch) -> Result<(), Error> {
    let mut batch = Some(batch);
    session.wait(Wake::OneChannel, |queue| queue.push(&mut batch)).map_err(stopped)
}

/// Why the migration stopped is with the session: [`Source::whole`] puts it in this one's place.
fn stopped(_: Stopped) -> Error {
    Error::Cancelled
}
