//! Connections of a migration: which of them is which.

use std::io::ErrorKind;
use std::net::Shutdown;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use multifd_core::PeerError;
use multifd_core::channel::{Opened, Opening};
use socket2::Socket;

use super::Receiving;
use super::channels::Intake;
use super::connections::Connection;
use super::session::{Failure, Session, Stopped, Waiter, Wake};
use crate::driver::{self, Receive};
use crate::error::Error;
use crate::transport::{Listener, set_read_timeout};

/// Takes connections in, and finds out what each is.
#[derive(Debug)]
pub(crate) struct Acceptor<I: Accept> {
    pub(crate) session: Arc<Session<Receiving<I::More>>>,
    pub(crate) listener: Arc<Listener>,
    pub(crate) timeout: Duration,
    /// What the channels are for.
    pub(crate) intake: I,
    accepting: Mutex<()>,
}

/// An intake whose channels connect.
pub(crate) trait Accept: Intake {
    /// Takes in the channel `number` from behind its initial packet, whose bytes are `initial`, to
    /// its end.
    fn receive(
        &self,
        session: &Session<Receiving<Self::More>>,
        number: u8,
        initial: &[u8],
        socket: driver::Socket<Arc<Socket>>,
    ) -> Result<(), Failure>;

    /// The error of a connection as that of the migration.
    fn blame(error: Error) -> Error {
        error
    }
}

impl<I: Accept> Acceptor<I> {
    /// Accepts connections, in a thread of its own, until the migration stops.
    pub(crate) fn start(
        session: &Arc<Session<Receiving<I::More>>>,
        listener: Listener,
        timeout: Duration,
        intake: I,
    ) -> Result<Arc<Self>, Error> {
        let (session, listener) = (Arc::clone(session), Arc::new(listener));
        session.register_listener(&listener);
        let acceptor =
            Arc::new(Self { session, listener, timeout, intake, accepting: Mutex::default() });
        let run = {
            let acceptor = Arc::clone(&acceptor);
            move |session: &Session<_>| session.settle(acceptor.run())
        };
        acceptor.session.spawn("multifd-accept".to_owned(), run)?;
        Ok(acceptor)
    }

    fn run(self: &Arc<Self>) -> Result<(), Failure> {
        while self.listener.wait().map_err(accepting)? {
            self.accept_waiting()?;
        }
        Ok(())
    }

    /// Accepts every connection that waits now, with a thread for each. When this returns, the
    /// state knows of each of them.
    fn accept_waiting(self: &Arc<Self>) -> Result<(), Failure> {
        // Locked from before a connection is taken until the state knows of it.
        let _accepting = self.accepting.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(socket) = self.listener.accept().map_err(accepting)? {
            let added = self.session.update(Wake::Nobody, |state| state.connections.add())?;
            let Some(connection) = added else { continue };
            let acceptor = Arc::clone(self);
            let take = move |_: &Session<_>| acceptor.take(connection, &socket);
            self.session.spawn("multifd-recv".to_owned(), take)?;
        }
        Ok(())
    }

    /// Finds out what a connection is. The main channel is handed over, a multifd channel taken
    /// in.
    fn take(&self, connection: Connection, socket: &Arc<Socket>) -> Result<(), Stopped> {
        // Only the reading side is shut down when the migration stops: the source still is to be
        // told on the return path.
        self.session.register(socket, Shutdown::Read);
        let mut opening = Opening::new();
        let taken = match self.identify(connection, socket, &mut opening) {
            Ok(None) => Ok(()),
            Ok(Some(number)) => {
                let socket = driver::Socket::new(Arc::clone(socket));
                self.intake.receive(&self.session, number, opening.bytes(), socket)
            }
            Err(Failure::Error(error))
                if self.session.look(|state| state.connections.is_closed()) =>
            {
                tracing::debug!(%error, "a connection that is not of the migration");
                Ok(())
            }
            Err(failure) => Err(failure),
        };
        self.session.settle(taken.map_err(|failure| failure.map(I::blame)))
    }

    /// The number of the channel that a connection is, if it is one.
    fn identify(
        &self,
        connection: Connection,
        socket: &Arc<Socket>,
        opening: &mut Opening,
    ) -> Result<Option<u8>, Failure> {
        set_read_timeout(socket, Some(self.timeout))?;
        let stream = &mut driver::Socket::new(socket);
        let opened = match self.session.run(driver::open(stream, opening))? {
            Ok(opened) => opened,
            Err(error) if !opening.is_known() && is_io(&error) => {
                // A port scanner, a health check: nothing of the migration's.
                tracing::debug!(%error, "a connection that does not say what it is");
                Opened::Nothing
            }
            Err(error) => return Err(timed_out(error).into()),
        };
        set_read_timeout(socket, None)?;
        join(&self.session, connection, opened, Some(socket))
    }

    /// Waits until every channel has connected. A source connects all its channels before it says
    /// that they have synced, so that one too many is here by now, too: without it the VM would not
    /// be whole.
    pub(crate) fn wait_for_all(self: &Arc<Self>) -> Result<(), Failure> {
        // Takes note of every connection that has been made by now.
        self.accept_waiting()?;
        wait_for_all(&self.session, self.timeout)
    }
}

/// Takes in a channel that was given, from its initial packet on.
pub(crate) fn take_given<I: Intake>(
    session: &Session<Receiving<I::More>>,
    intake: &I,
    connection: Connection,
    mut stream: impl Receive,
) -> Result<(), Failure> {
    let opened = session.run(driver::open(&mut stream, &mut Opening::new()))??;
    let opened = match opened {
        Opened::Nothing => return Err(multifd_core::Error::from(PeerError::Truncated).into()),
        opened => opened,
    };
    match join(session, connection, opened, None)? {
        Some(number) => super::channels::receive(session, intake, number, stream),
        None => Ok(()),
    }
}

/// Takes note of what a connection has turned out to be. Returns the number of a channel.
fn join<M: Send + 'static>(
    session: &Session<Receiving<M>>,
    connection: Connection,
    opened: Opened,
    socket: Option<&Arc<Socket>>,
) -> Result<Option<u8>, Failure> {
    session.update(Wake::Main, |state| match (opened, socket) {
        (Opened::Channel(initial), _) => {
            let added = state.connections.add_channel(connection, initial);
            added.map_err(|error| multifd_core::Error::from(error).on_channel(initial.channel))?;
            Ok(Some(initial.channel))
        }
        (Opened::Main, Some(socket)) => {
            state.connections.add_main(connection, Arc::clone(socket))?;
            Ok(None)
        }
        // Streams that are given are channels: a main channel among them is the second.
        (Opened::Main, None) => Err(Error::SecondMain.into()),
        (Opened::Nothing, _) => {
            state.connections.remove(connection);
            Ok(None)
        }
    })?
}

/// Waits until every channel has connected, and nothing that has connected by now may be one more.
pub(crate) fn wait_for_all<M: Send + 'static>(
    session: &Session<Receiving<M>>,
    limit: Duration,
) -> Result<(), Failure> {
    let last = session.look(|state| state.connections.last());
    let all = session.wait_for(Waiter::Main, "every channel to connect", limit, |state| {
        state.connections.close(last).then_some(())
    })?;
    if all.is_some() {
        return Ok(());
    }
    Err(session.look(|state| {
        let connections = &state.connections;
        let (connected, channels) = (connections.connected(), connections.channels());
        if connected == channels {
            return Error::SilentConnections(connections.silent(last)).into();
        }
        Error::missing_channels(connected, channels, limit).into()
    }))
}

fn accepting(source: std::io::Error) -> Error {
    Error::System { doing: "accepting a connection", source }
}

fn is_io(error: &multifd_core::Error) -> bool {
    matches!(error.kind(), multifd_core::ErrorKind::Io { .. })
}

/// An initial packet that does not come in time is one that does not come.
fn timed_out(error: multifd_core::Error) -> multifd_core::Error {
    match error.kind() {
        multifd_core::ErrorKind::Io { source, .. } if source.kind() == ErrorKind::WouldBlock => {
            PeerError::Truncated.into()
        }
        _ => error,
    }
}
