//! Connections of a migration: which of them is which.

use std::io::ErrorKind;
use std::net::Shutdown;
use std::sync::Arc;
use std::time::Duration;

use multifd_core::channel::read_initial;
use multifd_core::io::{self, ChannelReader};
use multifd_core::{MethodDescriptor, MethodStats};
use pollster::block_on;
use socket2::Socket;

use super::state::State;
use super::{add_stats, channel, stopped};
use crate::error::Error;
use crate::net::{Listener, set_read_timeout};
use crate::progress::Progress;
use crate::session::Session;

/// What every main channel starts with.
pub(super) const MAIN_MAGIC: [u8; 4] = *b"QEVM";

/// What a connection needs to become a channel.
#[derive(Clone, Debug)]
pub(super) struct Acceptor {
    pub(super) session: Arc<Session<State>>,
    pub(super) listener: Arc<Listener>,
    pub(super) progress: Progress,
    pub(super) method: MethodDescriptor,
    pub(super) timeout: Duration,
}

impl Acceptor {
    /// Accepts connections until the listener is stopped, with a thread for each, then waits for
    /// the threads to end.
    pub(super) fn run(&self) -> Result<MethodStats, Error> {
        let mut threads = Vec::new();
        while let Some(socket) =
            self.listener.accept().map_err(Error::system("accepting a connection"))?
        {
            let acceptor = self.clone();
            let take = move |_: &_| acceptor.take(socket);
            threads.push(self.session.spawn("multifd-recv".to_owned(), take, |_, _| ())?);
        }
        let mut sum = MethodStats::new();
        for thread in threads {
            // A thread without statistics has stopped the migration, or was stopped with it.
            add_stats(&mut sum, thread.join().ok().flatten().unwrap_or_default());
        }
        Ok(sum)
    }

    /// Finds out what a connection is. The main channel is handed over, a multifd channel taken
    /// in.
    fn take(&self, socket: Arc<Socket>) -> Result<MethodStats, Error> {
        // Only the reading side is shut down when the migration stops: the source still is to be
        // told on the return path.
        self.session.register(&socket, Shutdown::Read);
        set_read_timeout(&socket, Some(self.timeout))?;
        let mut reader = io::Socket::new(socket);
        let mut magic = [0; 4];
        if let Err(error) = block_on(reader.read_exact(&mut magic)) {
            // A port scanner, a health check: nothing of the migration's.
            tracing::warn!(%error, "a connection closed without saying what it is");
            return Ok(MethodStats::new());
        }
        if magic == MAIN_MAGIC {
            let socket = reader.into_inner();
            set_read_timeout(&socket, None)?;
            self.session.update(|state| state.set_main(socket)).map_err(stopped)??;
            return Ok(MethodStats::new());
        }
        let initial = block_on(read_initial(magic, &mut reader)).map_err(timed_out)?;
        set_read_timeout(reader.get_ref(), None)?;
        let counters = self.progress.counters(initial.channel);
        channel::receive(&self.session, &self.method, initial, reader, counters)
    }
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
