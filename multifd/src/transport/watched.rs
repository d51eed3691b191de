//! The main channel's connection, as the main thread uses it.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::sync::Arc;

use super::Connection;
use crate::engine::watch::Watch;

/// A connection whose reads and writes wait for the peer: that nothing moves meanwhile has its limit.
#[derive(Clone, Debug)]
pub(crate) struct Watched {
    connection: Connection,
    watch: Option<Arc<Watch>>,
}

impl Watched {
    /// For the main thread alone.
    pub(crate) fn new(connection: &Connection, watch: &Arc<Watch>) -> Self {
        Self { connection: connection.clone(), watch: Some(Arc::clone(watch)) }
    }

    /// A connection that is used as long as it takes.
    pub(crate) fn unwatched(connection: &Connection) -> Self {
        Self { connection: connection.clone(), watch: None }
    }

    /// Says that nothing more will be written, behind everything that was.
    pub(crate) fn close(&self) {
        let _awaiting = self
            .watch
            .as_ref()
            .map(|watch| watch.awaiting_room("room for the end of the main channel"));
        self.connection.shut_down(Shutdown::Write);
    }

    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }
}

impl Read for Watched {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let _awaiting = self.watch.as_ref().map(Watch::awaiting_main);
        self.connection.read(buffer)
    }
}

impl Write for Watched {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _awaiting = self
            .watch
            .as_ref()
            .map(|watch| watch.awaiting_room("room for more of the main channel"));
        self.connection.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        let _awaiting = self
            .watch
            .as_ref()
            .map(|watch| watch.awaiting_room("room for more of the main channel"));
        self.connection.flush()
    }
}
