//! Connections of a migration: which of them is which.

use std::io::ErrorKind;
use std::net::Shutdown;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use multifd_core::channel::read_initial;
use multifd_core::io::{self, ChannelReader};
use multifd_core::wire::InitialPacket;
use multifd_core::{MethodDescriptor, MethodStats};
use pollster::block_on;
use socket2::Socket;

use super::state::State;
use super::{ChannelThread, channel, stopped};
use crate::error::Error;
use crate::net::{Listener, set_read_timeout};
use crate::progress::Progress;
use crate::session::{Session, Wake};

/// What every main channel starts with.
pub(super) const MAIN_MAGIC: [u8; 4] = *b"QEVM";

/// Takes connections in, and finds out what each is.
#[derive(Debug)]
pub(super) struct Acceptor {
    pub(super) session: Arc<Session<State>>,
    pub(super) listener: Listener,
    pub(super) progress: Progress,
    pub(super) method: MethodDescriptor,
    pub(super) timeout: Duration,
    pub(super) threads: Mutex<ChannelThreads>,
}

/// The threads of all connections so far, and what those counted that are over.
#[derive(Debug, Default)]
pub(super) struct ChannelThreads {
    running: Vec<ChannelThread>,
    stats: MethodStats,
}

impl ChannelThreads {
    /// Threads that are there already.
    pub(super) fn of(running: Vec<ChannelThread>) -> Self {
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
    pub(super) fn join(mut self) -> MethodStats {
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

impl Acceptor {
    /// Accepts connections until the listener is stopped.
    pub(super) fn run(self: &Arc<Self>) -> Result<(), Error> {
        while self.listener.wait().map_err(accepting)? {
            self.accept_waiting()?;
        }
        Ok(())
    }

    /// Accepts every connection that waits now, with a thread for each. When this returns, the
    /// state knows of each of them.
    pub(super) fn accept_waiting(self: &Arc<Self>) -> Result<(), Error> {
        // Locked from before a connection is taken until the state knows of it.
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(socket) = self.listener.accept().map_err(accepting)? {
            let added = self.session.update(Wake::Nobody, State::add_connection);
            let Some(connection) = added.map_err(stopped)? else { continue };
            let acceptor = Arc::clone(self);
            let take = move |_: &_| acceptor.take(connection, socket);
            threads.push(self.session.spawn("multifd-recv".to_owned(), take)?);
        }
        Ok(())
    }

    /// The threads of all connections so far.
    pub(super) fn take_threads(&self) -> ChannelThreads {
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
                let counters = self.progress.counters(initial.channel);
                channel::receive(&self.session, &self.method, initial.channel, reader, counters)
            }
            Ok(Connection::Other) => Ok(MethodStats::new()),
            Err(error) if self.session.look(State::is_closed) => {
                tracing::debug!(%error, "a connection that is not of the migration");
                Ok(MethodStats::new())
            }
            Err(error) => Err(error),
        }
    }

    fn identify(&self, connection: u64, socket: Arc<Socket>) -> Result<Connection, Error> {
        set_read_timeout(&socket, Some(self.timeout))?;
        let mut reader = io::Socket::new(socket);
        let mut magic = [0; 4];
        if let Err(error) = block_on(reader.read_exact(&mut magic)) {
            // A port scanner, a health check: nothing of the migration's.
            tracing::debug!(%error, "a connection closed without saying what it is");
            let dropped = |state: &mut State| state.drop_connection(connection);
            self.session.update(Wake::Main, dropped).map_err(stopped)?;
            return Ok(Connection::Other);
        }
        if magic == MAIN_MAGIC {
            let socket = reader.into_inner();
            set_read_timeout(&socket, None)?;
            let set = |state: &mut State| state.set_main(connection, socket);
            self.session.update(Wake::Main, set).map_err(stopped)??;
            return Ok(Connection::Other);
        }
        let initial = block_on(read_initial(magic, &mut reader)).map_err(timed_out)?;
        set_read_timeout(reader.get_ref(), None)?;
        channel::add(&self.session, connection, initial)?;
        Ok(Connection::Channel(initial, reader))
    }
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
