//! Connections of a migration: which of them is which.

use std::fmt;
use std::io;
use std::net::Shutdown;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use multifd_core::PeerError;
use multifd_core::channel::{Opened, Opening};

use super::Receiving;
use super::channels::Intake;
use super::connections::Arrival;
use super::session::{Failure, Session, Stopped, Waiter, Wake};
use super::watch::Timer;
use crate::driver::{self, Receive};
use crate::error::Error;
use crate::transport::{Connection, Link, Listener, Secure, Uri, is_shortage};

/// Takes connections in, and finds out what each is.
#[derive(Debug)]
pub(crate) struct Acceptor<I: Accept> {
    pub(crate) session: Arc<Session<Receiving<I::More>>>,
    /// None where connections are only handed in.
    listener: Option<Listener>,
    pub(crate) timeout: Duration,
    /// Encrypts each connection.
    secure: Option<Arc<dyn Secure>>,
    /// What the channels are for.
    pub(crate) intake: I,
    accepting: Mutex<()>,
}

/// How far connections that wait have been accepted.
#[derive(Debug)]
enum Accepted {
    All,
    /// The rest has to wait: the system is short of descriptors or memory.
    Short(io::Error),
    /// None is accepted any more.
    NoMore,
}

/// How long until it is tried again to accept connections where the system is short of something.
const PAUSE: Duration = Duration::from_millis(100);

/// An intake whose channels connect.
pub(crate) trait Accept: Intake {
    /// Takes in the channel `number` from behind its initial packet, whose bytes are `initial`, to
    /// its end.
    fn receive(
        &self,
        session: &Session<Receiving<Self::More>>,
        number: u8,
        initial: &[u8],
        link: Link,
    ) -> Result<(), Failure>;

    /// The error of a connection as that of the migration.
    fn blame(error: Error) -> Error {
        error
    }
}

/// Where a program hands in the connections that it has accepted itself: the main channel and the
/// multifd channels of a migration, in any order. What each is, its first bytes say.
///
/// A source connects all its channels before it says that they have sent everything, so hand
/// connections in as they come. An entrance does not keep a migration alive.
#[derive(Clone)]
pub struct Entrance(Weak<dyn Admit>);

/// What takes connections in.
trait Admit: Send + Sync {
    fn admit(self: Arc<Self>, connection: Connection) -> Result<(), Error>;
}

impl Entrance {
    /// Hands `connection` in.
    ///
    /// # Errors
    /// [`Error::Over`] where the migration is over, [`Error::NotTakenIn`] where it goes on without the
    /// connection. One that no thread can be started for fails the migration, too. The connection is
    /// shut down then.
    pub fn add(&self, connection: Connection) -> Result<(), Error> {
        let Some(acceptor) = self.0.upgrade() else {
            connection.shut_down(Shutdown::Both);
            return Err(Error::Over);
        };
        acceptor.admit(connection)
    }
}

impl fmt::Debug for Entrance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Entrance")
    }
}

impl<I: Accept> Acceptor<I> {
    /// Accepts connections, in a thread of its own, until the migration stops.
    pub(crate) fn start(
        session: &Arc<Session<Receiving<I::More>>>,
        listener: Option<Listener>,
        timeout: Duration,
        secure: Option<Arc<dyn Secure>>,
        intake: I,
    ) -> Result<Arc<Self>, Error> {
        let session = Arc::clone(session);
        let listens = listener.is_some();
        let acceptor = Arc::new(Self {
            session,
            listener,
            timeout,
            secure,
            intake,
            accepting: Mutex::default(),
        });
        if listens {
            let accepting = Arc::clone(&acceptor);
            let run = move |session: &Session<_>| session.settle(accepting.run());
            acceptor.session.spawn("accept", run)?;
        }
        Ok(acceptor)
    }

    /// Where it listens.
    pub(crate) fn uri(&self) -> &Uri {
        self.listener.as_ref().map_or(&Uri::Unnamed, Listener::uri)
    }

    /// Where connections are handed in.
    pub(crate) fn entrance(self: &Arc<Self>) -> Entrance {
        let weak: Weak<Self> = Arc::downgrade(self);
        Entrance(weak)
    }

    fn run(self: &Arc<Self>) -> Result<(), Failure> {
        let Some(listener) = &self.listener else { return Ok(()) };
        let mut is_short = false;
        loop {
            let accepted = match listener.wait(self.session.stop_event()) {
                Ok(true) => self.accept_waiting()?,
                Ok(false) => return Ok(()),
                Err(error) => self.not_accepted(error)?,
            };
            match accepted {
                Accepted::All => is_short = false,
                Accepted::NoMore => return Ok(()),
                Accepted::Short(error) => {
                    // Said once: it is tried until there is room again.
                    if !std::mem::replace(&mut is_short, true) {
                        tracing::warn!(%error, "connections wait to be accepted");
                    }
                    let what = "room to accept a connection";
                    self.session.wait_for::<()>(Waiter::Limit, what, PAUSE, |_| None)?;
                }
            }
        }
    }

    /// Accepts every connection that waits now, with a thread for each. When this returns, the
    /// state knows of each of them, if the system is not short of what they need.
    fn accept_waiting(self: &Arc<Self>) -> Result<Accepted, Failure> {
        let Some(listener) = &self.listener else { return Ok(Accepted::All) };
        // Locked from before a connection is taken until the state knows of it.
        let _accepting = self.accepting.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match listener.accept() {
                Ok(Some(connection)) => _ = self.take_in(connection)?,
                Ok(None) => return Ok(Accepted::All),
                Err(error) => return self.not_accepted(error),
            }
        }
    }

    /// What it means that accepting failed: nothing for a migration that has its channels.
    fn not_accepted(&self, source: io::Error) -> Result<Accepted, Failure> {
        if self.session.look(|state| state.connections.is_closed()) {
            tracing::warn!(error = %source, "no more connections are accepted; none is needed");
            return Ok(Accepted::NoMore);
        }
        if is_shortage(&source) {
            return Ok(Accepted::Short(source));
        }
        Err(Error::System { doing: "accepting a connection", source }.into())
    }

    /// Takes a connection in, if the migration has none too many, in a thread of its own. Returns
    /// whether it does.
    fn take_in(self: &Arc<Self>, connection: Connection) -> Result<bool, Failure> {
        let added = self.session.update(Wake::Nobody, |state| state.connections.add());
        let Ok(Some(arrival)) = added else {
            tracing::debug!(from = connection.peer(), "refused: the migration has its channels");
            connection.shut_down(Shutdown::Both);
            return Ok(added.map(|_| false)?);
        };
        let acceptor = Arc::clone(self);
        let take = move |_: &Session<_>| acceptor.take(arrival, &connection);
        self.session.spawn("recv", take)?;
        Ok(true)
    }

    /// Finds out what a connection is. The main channel is handed over, a multifd channel taken
    /// in.
    fn take(&self, arrival: Arrival, connection: &Connection) -> Result<(), Stopped> {
        let from = connection.peer().unwrap_or_else(|| "this machine".to_owned());
        let _in_its_name = tracing::debug_span!("connection", %from).entered();
        // Only the reading side is shut down when the migration stops: the source still is to be
        // told on the return path.
        self.session.register(connection, Shutdown::Read);
        let mut link = Link::new(connection);
        let mut opening = Opening::new();
        let taken = match self.identify(arrival, connection, &mut link, &mut opening) {
            Ok(Some(number)) => self.receive(arrival, number, &opening, link),
            Ok(None) => Ok(()),
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
        arrival: Arrival,
        connection: &Connection,
        link: &mut Link,
        opening: &mut Opening,
    ) -> Result<Option<u8>, Failure> {
        // In total, however many bytes come.
        let mut limit = self.session.watch().cut_off(connection, self.timeout, Shutdown::Both);
        if !self.secure(connection, &mut limit)? {
            return join(&self.session, arrival, Opened::Nothing, Some(connection));
        }
        let opened = self.session.run(driver::open(link, opening))?;
        drop(limit);
        let opened = match opened {
            Ok(opened) => opened,
            Err(error) if is_end(&error) && opening.is_known() => {
                tracing::debug!(%error, "a channel that does not say which it is");
                self.break_off(arrival)?;
                return Ok(None);
            }
            Err(error) if is_end(&error) => {
                // A port scanner, a health check: nothing of the migration's.
                tracing::debug!(%error, "not a connection of the migration");
                Opened::Nothing
            }
            Err(error) => return Err(error.into()),
        };
        match opened {
            Opened::Channel(initial) => {
                tracing::debug!(channel = initial.channel, uuid = %initial.uuid, "connected");
            }
            Opened::Main => tracing::debug!("the main channel connected"),
            // A port scanner does no handshake. QEMU looks at the certificate behind it.
            Opened::Nothing if self.secure.is_some() => tracing::warn!(
                "a source left right behind the TLS handshake: it may not accept the certificate here, of \
                 another CA or for another name; its own messages say why"
            ),
            Opened::Nothing => tracing::debug!("it left, and did not say what it is"),
        }
        join(&self.session, arrival, opened, Some(connection))
    }

    /// Encrypts a connection, if that is asked for. Says whether it can be used: one that cannot is
    /// refused, and is nothing of the migration's.
    fn secure(&self, connection: &Connection, limit: &mut Timer) -> Result<bool, Failure> {
        let Some(secure) = &self.secure else { return Ok(true) };
        let Err(error) = secure.secure(connection, None) else { return Ok(true) };
        // What has been shut down says nothing of why.
        self.session.check()?;
        if limit.stop() {
            let seconds = self.timeout.as_secs();
            tracing::warn!(
                seconds,
                "a connection is refused: its TLS handshake was not done in time"
            );
        } else if error.is_silence() {
            // A port scanner, a health check: nothing of the migration's.
            tracing::debug!(%error, "not a connection of the migration");
        } else {
            let why = std::error::Error::source(&error).unwrap_or(&error);
            tracing::warn!(error = %why, "a connection is refused: no TLS with it");
        }
        connection.shut_down(Shutdown::Both);
        Ok(false)
    }

    fn break_off(&self, arrival: Arrival) -> Result<(), Failure> {
        let broken =
            self.session.update(Wake::Main, |state| state.connections.break_off(arrival))?;
        Ok(broken.map_err(multifd_core::Error::from)?)
    }

    /// Takes a channel in, once the main channel has announced the VM, if it has kept its place by
    /// then.
    fn receive(
        &self,
        arrival: Arrival,
        number: u8,
        opening: &Opening,
        link: Link,
    ) -> Result<(), Failure> {
        let what = "the announcement of the RAM";
        let kept = self.session.wait(Waiter::Receiver, what, |state| {
            if !state.connections.is_here(arrival) {
                return Some(false);
            }
            I::vm(&state.more)?;
            state.connections.begin(arrival);
            Some(true)
        })?;
        if !kept {
            tracing::debug!(number, "a channel that left before its main channel came");
            return Ok(());
        }
        self.intake.receive(&self.session, number, opening.bytes(), link)
    }

    /// Waits for the main channel, for any time until the first channel is there. Channels whose
    /// source has given up do not count.
    pub(crate) fn wait_for_main(&self) -> Result<Connection, Failure> {
        let session = &self.session;
        let began = Instant::now();
        loop {
            let what = "a source";
            let main = session.wait_patiently(Waiter::Main, what, |state| {
                let connections = &mut state.connections;
                let main = connections.take_main();
                main.map(Ok).or_else(|| connections.since().map(Err))
            })?;
            let since = match main {
                Ok(main) => return Ok(main),
                Err(since) => since.max(began),
            };
            let (what, left) = ("the main channel", self.timeout.saturating_sub(since.elapsed()));
            let main = session
                .wait_for(Waiter::Main, what, left, |state| state.connections.take_main())?;
            if let Some(main) = main {
                return Ok(main);
            }
            let (channels, oldest) = session.update(Wake::Receivers, |state| {
                (state.connections.sweep(Connection::has_left), state.connections.since())
            })?;
            // Those of the next attempt have their own time.
            if oldest.is_some_and(|oldest| oldest.max(began).elapsed() >= self.timeout) {
                let seconds = self.timeout.as_secs();
                return Err(Error::MissingMain { channels, seconds }.into());
            }
        }
    }

    /// Waits until every channel has connected. A source connects all its channels before it says
    /// that they have synced, so that one too many is here by now, too: without it the VM would not
    /// be whole.
    pub(crate) fn wait_for_all(self: &Arc<Self>, main: &Connection) -> Result<(), Failure> {
        // Takes note of every connection that has been made by now.
        // Where that cannot be now, the thread that accepts goes on with it.
        _ = self.accept_waiting()?;
        wait_for_all(&self.session, self.timeout, Some(main))
    }
}

impl<I: Accept> Admit for Acceptor<I> {
    fn admit(self: Arc<Self>, connection: Connection) -> Result<(), Error> {
        let _accepting = self.accepting.lock().unwrap_or_else(PoisonError::into_inner);
        match self.take_in(connection) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Error::NotTakenIn),
            Err(Failure::Stopped) => Err(Error::Over),
            Err(Failure::Error(error)) => {
                let again = error.again();
                self.session.fail(error);
                Err(again)
            }
        }
    }
}

/// Takes in a channel that was given, from its initial packet on.
pub(crate) fn take_given<I: Intake>(
    session: &Session<Receiving<I::More>>,
    intake: &I,
    arrival: Arrival,
    mut stream: impl Receive,
) -> Result<(), Failure> {
    let opened = session.run(driver::open(&mut stream, &mut Opening::new()))??;
    let opened = match opened {
        Opened::Nothing => return Err(multifd_core::Error::from(PeerError::Truncated).into()),
        opened => opened,
    };
    match join(session, arrival, opened, None)? {
        Some(number) => super::channels::receive(session, intake, number, stream),
        None => Ok(()),
    }
}

/// Takes note of what a connection has turned out to be. Returns the number of a channel.
fn join<M: Send + 'static>(
    session: &Session<Receiving<M>>,
    arrival: Arrival,
    opened: Opened,
    connection: Option<&Connection>,
) -> Result<Option<u8>, Failure> {
    let has_left = Connection::has_left;
    // Channels that have left are to know that they have lost their places, too.
    session.update(Wake::Feeders, |state| match (opened, connection) {
        (Opened::Channel(initial), _) => {
            let (handle, now) = (connection.cloned(), Instant::now());
            let added = state.connections.add_channel(arrival, initial, handle, now, has_left);
            let is_of_it = added
                .map_err(|error| multifd_core::Error::from(error).on_channel(initial.channel))?;
            Ok(is_of_it.then_some(initial.channel))
        }
        (Opened::Main, Some(connection)) => {
            state.connections.add_main(arrival, connection.clone(), has_left)?;
            Ok(None)
        }
        // Streams that are given are channels: a main channel among them is the second.
        (Opened::Main, None) => Err(Error::SecondMain.into()),
        (Opened::Nothing, _) => {
            state.connections.remove(arrival);
            Ok(None)
        }
    })?
}

/// Waits until every channel has connected, and nothing that has connected by now may be one more:
/// what does not say what it is has been cut off by then.
pub(crate) fn wait_for_all<M: Send + 'static>(
    session: &Session<Receiving<M>>,
    limit: Duration,
    main: Option<&Connection>,
) -> Result<(), Failure> {
    let last = session.look(|state| state.connections.last());
    let what = "every channel to connect";
    let all = session.wait_for(Waiter::Main, what, limit, |state| {
        let connections = &mut state.connections;
        (connections.connected() == connections.channels()).then_some(())
    })?;
    if all.is_none() {
        let connected = session.look(|state| state.connections.connected());
        let channels = session.look(|state| state.connections.channels());
        let main_ended = main.is_some_and(Connection::has_left);
        return Err(Error::missing_channels(connected, channels, limit, main_ended).into());
    }
    let what = "connections to say what they are";
    session
        .wait_patiently(Waiter::Main, what, |state| state.connections.close(last).then_some(()))?;
    Ok(())
}

/// Whether a connection has ended, or failed, before it said what it is.
fn is_end(error: &multifd_core::Error) -> bool {
    use multifd_core::ErrorKind;

    matches!(error.kind(), ErrorKind::Io { .. } | ErrorKind::Peer(PeerError::Truncated))
}
