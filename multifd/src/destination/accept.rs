//! Connections of a migration: which of them is which.

use std::fmt;
use std::io::ErrorKind;
use std::net::Shutdown;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use multifd_core::MethodStats;
use multifd_core::channel::read_initial;
use multifd_core::io::{self, ChannelReader};
use multifd_core::wire::InitialPacket;
use pollster::block_on;
use socket2::Socket;

use super::state::State;
use super::{ChannelThread, channel, stopped};
use crate::error::Error;
use crate::net::{Listener, set_read_timeout};
use crate::session::{Session, Wake};

/// What every main channel starts with.
pub(crate) const MAIN_MAGIC: [u8; 4] = *b"QEVM";

/// Takes connections in, and finds out what each is.
#[derive(Debug)]
pub(crate) struct Acceptor<I: Intake> {
    pub(crate) session: Arc<Session<I::State>>,
    pub(crate) listener: Listener,
    pub(crate) timeout: Duration,
    pub(crate) threads: Mutex<ChannelThreads>,
    /// What the channels are for.
    pub(crate) intake: I,
}

/// What becomes of the channels that connect: a destination writes their pages to RAM, a relay
/// passes them on.
pub(crate) trait Intake: fmt::Debug + Send + Sync + Sized + 'static {
    /// What the migration's threads share; the connections' state is in it.
    type State: AsRef<State> + AsMut<State> + fmt::Debug + Send + 'static;

    /// Takes in a channel from behind its initial packet to its end.
    fn receive(
        &self,
        session: &Session<Self::State>,
        initial: InitialPacket,
        reader: io::Socket<Arc<Socket>>,
    ) -> Result<MethodStats, Error>;

    /// The error of a connection as that of the migration.
    fn blame(error: Error) -> Error {
        error
    }
}

/// The threads of all connections so far, and what those counted that are over.
#[derive(Debug, Default)]
pub(crate) struct ChannelThreads {
    running: Vec<ChannelThread>,
    stats: MethodStats,
}

impl ChannelThreads {
    /// Threads that are there already.
    pub(crate) fn of(running: Vec<ChannelThread>) -> Self {
        Self { running, ..Self::default() }
    }

    fn push(&mut self, thread: ChannelThread) {
        // A thread that is over holds its stack until it is joined.
        let (over, running) =
            std::mem::take(&mut self.running).into_iter().partition(ChannelThread::is_finished);
        self.running = running;
        self.add(over);
        self.running.push(thread);
    }

    /// Waits for all threads. Returns what they have counted.
    pub(crate) fn join(mut self) -> MethodStats {
        let running = std::mem::take(&mut self.running);
        self.add(running);
        self.stats
    }

    fn add(&mut self, threads: Vec<ChannelThread>) {
        for thread in threads {
            // A thread without statistics has stopped the migration, or was stopped with it.
            for (name, count) in thread.join().ok().flatten().unwrap_or_default() {
                *self.stats.entry(name).or_default() += count;
            }
        }
    }
}

/// What a connection has turned out to be.
enum Connection {
    Channel(InitialPacket, io::Socket<Arc<Socket>>),
    /// The main channel, handed over, or nothing of the migration's.
    Other,
}

impl<I: Intake> Acceptor<I> {
    /// Accepts connections until the listener is stopped.
    pub(crate) fn run(self: &Arc<Self>) -> Result<(), Error> {
        while self.listener.wait().map_err(accepting)? {
            self.accept_waiting()?;
        }
        Ok(())
    }

    /// Accepts every connection that waits now, with a thread for each. When this returns, the
    /// state knows of each of them.
    pub(crate) fn accept_waiting(self: &Arc<Self>) -> Result<(), Error> {
        // Locked from before a connection is taken until the state knows of it.
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(socket) = self.listener.accept().map_err(accepting)? {
            let added = self.session.update(Wake::Nobody, |state| state.as_mut().add_connection());
            let Some(connection) = added.map_err(stopped)? else { continue };
            let acceptor = Arc::clone(self);
            let take = move |_: &_| acceptor.take(connection, socket);
            threads.push(self.session.spawn("multifd-recv".to_owned(), take)?);
        }
        Ok(())
    }

    /// The threads of all connections so far.
    pub(crate) fn take_threads(&self) -> ChannelThreads {
        std::mem::take(&mut self.threads.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Finds out what a connection is. The main channel is handed over, a multifd channel taken
    /// in.
    fn take(&self, connection: u64, socket: Arc<Socket>) -> Result<MethodStats, Error> {
        // Only the reading side is shut down when the migration stops: the source still is to be
        // told on the return path.
        self.session.register(&socket, Shutdown::Read);
        match self.identify(connection, socket) {
            Ok(Connection::Channel(initial, reader)) => {
                self.intake.receive(&self.session, initial, reader)
            }
            Ok(Connection::Other) => Ok(MethodStats::new()),
            Err(error) if self.session.look(|state| state.as_ref().is_closed()) => {
                tracing::debug!(%error, "a connection that is not of the migration");
                Ok(MethodStats::new())
            }
            Err(error) => Err(I::blame(error)),
        }
    }

    fn identify(&self, connection: u64, socket: Arc<Socket>) -> Result<Connection, Error> {
        set_read_timeout(&socket, Some(self.timeout))?;
        let mut reader = io::Socket::new(socket);
        let mut magic = [0; 4];
        if let Err(error) = block_on(reader.read_exact(&mut magic)) {
            // A port scanner, a health check: nothing of the migration's.
            tracing::debug!(%error, "a connection closed without saying what it is");
            let dropped = |state: &mut I::State| state.as_mut().drop_connection(connection);
            self.session.update(Wake::Main, dropped).map_err(stopped)?;
            return Ok(Connection::Other);
        }
        if magic == MAIN_MAGIC {
            let socket = reader.into_inner();
            set_read_timeout(&socket, None)?;
            let set = |state: &mut I::State| state.as_mut().set_main(connection, socket);
            self.session.update(Wake::Main, set).map_err(stopped)??;
            return Ok(Connection::Other);
        }
        let initial = block_on(read_initial(magic, &mut reader)).map_err(timed_out)?;
        set_read_timeout(reader.get_ref(), None)?;
        channel::add(&self.session, connection, initial)?;
        Ok(Connection::Channel(initial, reader))
    }
}

/// Waits until every channel has connected. A source connects all its channels before it says
/// that they have synced, so that one too many is here by now, too: without it the VM would not
/// be whole. `accept_waiting` takes note of every connection that has been made by now.
pub(crate) fn wait_for_all<T>(
    session: &Session<T>,
    accept_waiting: &dyn Fn() -> Result<(), Error>,
    channels: u8,
    limit: Duration,
) -> Result<(), Error>
where
    T: AsRef<State> + AsMut<State> + fmt::Debug + Send + 'static,
{
    accept_waiting()?;
    let look = |look: &dyn Fn(&State) -> usize| session.look(|state| look(state.as_ref()));
    let last = session.look(|state| state.as_ref().last_connection());
    let all = |state: &mut T| state.as_mut().close(last).then_some(());
    if session.wait_for(limit, all).map_err(stopped)?.is_some() {
        return Ok(());
    }
    let channels = usize::from(channels);
    let connected = look(&State::connected);
    if connected == channels {
        return Err(Error::SilentConnections(look(&|state| state.silent(last))));
    }
    Err(Error::MissingChannels { connected, channels, seconds: limit.as_secs() })
}

fn accepting(source: std::io::Error) -> Error {
    Error::System { doing: "accepting a connection", source }
}

/// An initial packet that does not come in time is one that does not come.
fn timed_out(error: multifd_core::Error) -> Error {
    match error.kind() {
        multifd_core::ErrorKind::Io { source, .. } if source.kind() == ErrorKind::WouldBlock => {
            multifd_core::Error::from(multifd_core::PeerError::Truncated).into()
        }
        _ => error.into(),
    }
}
