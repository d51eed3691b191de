//! Connections of a migration: which of them is which.

mod hello;

use std::fmt;
use std::io;
use std::net::Shutdown;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use multifd_core::PeerError;
use multifd_core::channel::{Opened, Opening};
use multifd_core::wire::InitialPacket;

use super::Receiving;
use super::admission::Admission;
use super::busy;
use super::channels::Intake;
use super::connections::{Added, Arrival, Begin, Host};
use super::greeting::Greeting;
use super::refusal::{Refusal, chain};
use super::session::{Failure, Session, Stopped, Waiter, Wake};
use super::watch::Timer;
use crate::driver::{self, Receive};
use crate::error::Error;
use crate::transport::{
    Connection, Link, Listener, Secure, Uri, WeakConnection, is_allowed, is_shortage,
};

/// Takes connections in, and finds out what each is.
#[derive(Debug)]
pub(crate) struct Acceptor<I: Accept> {
    pub(crate) session: Arc<Session<Receiving<I::More>>>,
    /// None where connections are only handed in.
    listener: Option<Listener>,
    pub(crate) admission: Admission,
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

/// How long until it is tried again what may not be possible yet: to accept a connection where the system is
/// short of something and nobody gives way, to look at who is in the middle of saying what it is.
const PAUSE: Duration = Duration::from_millis(100);

/// Why a connection is not a part of the migration.
#[derive(Debug)]
enum NotOfIt {
    /// It is refused, and the migration goes on.
    Refused(Refusal),
    /// It left without having said anything, as port scanners and health checks do.
    Left,
    /// The migration has failed, or is over.
    Failed(Failure),
}

/// How many refusals are logged each; of further ones, those whose count is a power of two.
const LOGGED: u64 = 32;

/// How long connections are listened to yet when the migration has failed for what they may say.
const HEARING: Duration = Duration::from_secs(1);

/// How long a relay waits at most until those that contradict each other say more.
const DISAGREEING: Duration = Duration::from_secs(2);

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
        admission: &Admission,
        secure: Option<Arc<dyn Secure>>,
        intake: I,
    ) -> Result<Arc<Self>, Error> {
        let session = Arc::clone(session);
        let (listens, admission) = (listener.is_some(), admission.clone());
        let acceptor = Arc::new(Self {
            session,
            listener,
            admission,
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
                    let gave_way = self.make_room()?;
                    let is_gone = || gave_way.as_ref().is_some_and(|one| one.upgrade().is_none());
                    let what = "room to accept a connection";
                    self.session
                        .wait_for(Waiter::Receiver, what, PAUSE, |_| is_gone().then_some(()))?;
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
        // Whoever connects faster than that is not to keep this thread from its work.
        for _ in 0..Listener::MOST_WAITING {
            self.session.check()?;
            match listener.accept() {
                Ok(Some(connection)) => self.take_accepted(&connection)?,
                Ok(None) => break,
                Err(error) => return self.not_accepted(error),
            }
        }
        Ok(Accepted::All)
    }

    /// What it means that accepting failed: nothing for a migration that has its channels.
    fn not_accepted(&self, source: io::Error) -> Result<Accepted, Failure> {
        if is_shortage(&source) {
            return Ok(Accepted::Short(source));
        }
        if self.session.look(|state| state.connections.is_closed()) {
            tracing::warn!(error = %source, "no more connections are accepted; none is needed");
            return Ok(Accepted::NoMore);
        }
        Err(Error::System { doing: "accepting a connection", source }.into())
    }

    /// Has a connection give way that has not said what it is, for what the system is short of. There is
    /// room when it is gone.
    fn make_room(&self) -> Result<Option<WeakConnection>, Stopped> {
        let room = |state: &mut Receiving<_>| state.connections.make_room(Connection::is_silent);
        let oldest = self.session.update(Wake::Receivers, room)?;
        Ok(oldest.map(|oldest| {
            oldest.shut_down(Shutdown::Both);
            oldest.downgrade()
        }))
    }

    /// Takes a connection in that was accepted, whoever it is.
    fn take_accepted(self: &Arc<Self>, connection: &Connection) -> Result<(), Failure> {
        if !is_allowed(&self.admission.allow_from, connection.peer_address()) {
            self.refuse(connection, &Refusal::NotAllowed);
            return Ok(());
        }
        match self.take_in(connection.clone()) {
            Ok(true) => Ok(()),
            Ok(false) => {
                self.refuse(connection, &Refusal::TooMany);
                Ok(())
            }
            // Not the migration's fault, and it may go on without this one.
            Err(Failure::Error(Error::System { source, .. })) => {
                self.refuse(connection, &Refusal::NoThread(source));
                self.make_room()?;
                Ok(())
            }
            Err(failure) => Err(failure),
        }
    }

    /// Takes a connection in, if not too many wait, in a thread of its own. Returns whether it does.
    fn take_in(self: &Arc<Self>, connection: Connection) -> Result<bool, Failure> {
        let (handle, host) = (connection.clone(), host(&connection));
        let added = self.session.update(Wake::Feeders, |state| {
            state.connections.add(handle, host, Connection::is_silent)
        })?;
        let Some(Added { arrival, gives_way }) = added else { return Ok(false) };
        if let Some(oldest) = gives_way {
            oldest.shut_down(Shutdown::Both);
        }
        let acceptor = Arc::clone(self);
        let take = move |session: &Session<_>| {
            let taken = acceptor.take(arrival, &connection);
            drop(connection);
            // Its descriptor is free for the next.
            session.wake(Wake::Receivers);
            taken
        };
        let spawned = self.session.spawn("recv", take);
        if spawned.is_err() {
            self.session.note(|state| state.connections.remove(arrival));
        }
        Ok(spawned.map(|()| true)?)
    }

    /// Finds out what a connection is. The main channel is handed over, a multifd channel taken
    /// in. What is neither is refused.
    fn take(&self, arrival: Arrival, connection: &Connection) -> Result<(), Stopped> {
        let from = name(connection);
        let _in_its_name = tracing::debug_span!("connection", %from).entered();
        // Only the reading side is shut down when the migration stops: the source still is to be
        // told on the return path.
        self.session.shut_down_at_end(connection, Shutdown::Read);
        let mut link = Link::new(connection);
        let mut opening = Opening::new();
        let taken = match self.identify(arrival, connection, &mut link, &mut opening) {
            Ok(Some(number)) => {
                // From now on its bytes are the migration's.
                self.session.watch_progress(connection);
                self.intake
                    .receive(&self.session, number, opening.bytes(), link)
                    .map_err(NotOfIt::Failed)
            }
            Ok(None) => Ok(()),
            Err(not_of_it) => Err(not_of_it),
        };
        self.conclude(arrival, (connection, &from), taken)
    }

    /// Ends what is not a part of the migration.
    fn conclude(
        &self,
        arrival: Arrival,
        (connection, from): (&Connection, &str),
        taken: Result<(), NotOfIt>,
    ) -> Result<(), Stopped> {
        let refusal = match taken {
            Ok(()) => return Ok(()),
            Err(NotOfIt::Failed(failure)) => {
                return self.session.settle(Err(failure.map(I::blame)));
            }
            Err(NotOfIt::Left | NotOfIt::Refused(Refusal::GivenUp)) => None,
            Err(NotOfIt::Refused(refusal)) => Some(refusal),
        };
        // That it is not waited for any more and why are known at once.
        let refusal = self.session.update(Wake::Feeders, |state| {
            let refusal = match state.connections.remove(arrival) {
                true => Some(Refusal::GaveWay),
                false => refusal,
            };
            refusal.inspect(|refusal| note(state, connection, refusal))
        })?;
        match refusal {
            Some(refusal) => {
                self.end(connection, from, &refusal);
                self.hurry(connection, &refusal);
            }
            None => {
                tracing::debug!("it left, and is not of a migration");
                connection.shut_down(Shutdown::Both);
            }
        }
        Ok(())
    }

    /// A source that had a channel refused before all were there has failed, most likely, and may wait for
    /// this side to say something. Whoever comes from elsewhere is none of its.
    fn hurry(&self, connection: &Connection, refusal: &Refusal) {
        let host = host(connection);
        let setting_up = |state: &Receiving<_>| {
            let connections = &state.connections;
            connections.has_main() && connections.may_be_main_host(host) && !connections.is_closed()
        };
        if refusal.is_of_channel() && self.session.look(setting_up) {
            self.session.watch().has_refused_one(self.admission.timeout);
            // They may all have come meanwhile.
            if self.session.look(|state| state.connections.is_closed()) {
                self.session.watch().has_all();
            }
        }
    }

    /// Refuses a connection that was never taken in; the migration goes on.
    fn refuse(&self, connection: &Connection, refusal: &Refusal) {
        self.session.note(|state| note(state, connection, refusal));
        self.end(connection, &name(connection), refusal);
    }

    /// Shuts a connection down that has been refused.
    fn end(&self, connection: &Connection, from: &str, refusal: &Refusal) {
        let count = self.intake.codec().progress.count_refused();
        // Whoever connects again and again is not to fill the log.
        if count <= LOGGED || count.is_power_of_two() {
            tracing::warn!(%from, why = %refusal, count, "a connection was refused");
        } else {
            tracing::debug!(%from, why = %refusal, "a connection was refused");
        }
        connection.shut_down(Shutdown::Both);
    }

    /// The number of the channel that a connection is, if it is one: it begins then. The main channel
    /// is handed over.
    fn identify(
        &self,
        arrival: Arrival,
        connection: &Connection,
        link: &mut Link,
        opening: &mut Opening,
    ) -> Result<Option<u8>, NotOfIt> {
        let came = Instant::now();
        // In total, however many bytes come.
        let mut limit =
            self.session.watch().cut_off(connection, self.admission.timeout, Shutdown::Both);
        self.secure(connection, &mut limit)?;
        let introduction = self.meet(arrival, connection, came, &mut limit)?;
        let opened = self.session.run(driver::open(link, opening))?;
        let opened = opened.map_err(|error| self.not_said(error, came, opening.is_empty()))?;
        hello::agree(introduction, &opened)?;
        match opened {
            Opened::Channel(initial) => {
                self.in_time(limit)?;
                tracing::debug!(channel = initial.channel, uuid = %initial.uuid, "connected");
                self.begin(arrival, initial, connection, came).map(Some)
            }
            Opened::Main => {
                let mut greeting = Greeting::new();
                self.greet(link, &mut greeting, came)?;
                self.in_time(limit)?;
                tracing::debug!("the main channel connected");
                self.hand_over(arrival, greeting, connection).map(|()| None)
            }
            Opened::Nothing => {
                Err(self.not_said(PeerError::Truncated.into(), came, opening.is_empty()))
            }
        }
    }

    /// What it means that a connection has said what it is: not where it was cut off meanwhile.
    fn in_time(&self, mut limit: Timer) -> Result<(), NotOfIt> {
        match limit.stop() {
            true => Err(Refusal::Silent(self.admission.timeout).into()),
            false => Ok(()),
        }
    }

    /// Encrypts a connection, if that is asked for. One that cannot be used is not of the migration.
    fn secure(&self, connection: &Connection, limit: &mut Timer) -> Result<(), NotOfIt> {
        let Some(secure) = &self.secure else { return Ok(()) };
        let Err(error) = secure.secure(connection, None) else { return Ok(()) };
        // What has been shut down says nothing of why.
        self.session.check()?;
        Err(if limit.stop() {
            Refusal::SlowHandshake(self.admission.timeout).into()
        } else if error.is_silence() {
            // A port scanner, a health check: nothing of the migration's.
            NotOfIt::Left
        } else {
            let why = std::error::Error::source(&error).unwrap_or(&error);
            Refusal::NoTls(chain(why)).into()
        })
    }

    /// What it means that a connection has not said what it is, but `error`.
    fn not_said(&self, error: multifd_core::Error, came: Instant, said_nothing: bool) -> NotOfIt {
        let timeout = self.admission.timeout;
        match is_end(&error) {
            true if came.elapsed() >= timeout => NotOfIt::Refused(Refusal::Silent(timeout)),
            // A port scanner does no handshake. QEMU looks at the certificate behind it.
            true if said_nothing && self.secure.is_some() => Refusal::LeftBehindTls.into(),
            true if said_nothing => NotOfIt::Left,
            _ => NotOfIt::Refused(error.into()),
        }
    }

    /// Reads what a main channel says before it counts as one.
    fn greet(
        &self,
        link: &mut Link,
        greeting: &mut Greeting,
        came: Instant,
    ) -> Result<(), NotOfIt> {
        let mut buffer = [0; Greeting::MOST];
        while greeting.wanted() > 0 {
            let room = &mut buffer[..greeting.wanted()];
            match self.session.run(link.read(room))? {
                Ok(0) if came.elapsed() < self.admission.timeout => {
                    return Err(NotOfIt::Refused(Refusal::CutOff));
                }
                Ok(0) => {
                    let error = PeerError::Truncated.into();
                    return Err(self.not_said(error, came, false));
                }
                Ok(count) => greeting.add(&buffer[..count]).map_err(Refusal::from)?,
                Err(error) => {
                    let error = multifd_core::Error::reading(error);
                    return Err(self.not_said(error, came, false));
                }
            }
        }
        Ok(())
    }

    /// Hands the main channel over; one that is the second is told that it is.
    fn hand_over(
        &self,
        arrival: Arrival,
        greeting: Greeting,
        connection: &Connection,
    ) -> Result<(), NotOfIt> {
        let (main, greeting) = (connection.clone(), greeting.into_bytes());
        let said = greeting.clone();
        let taken = self.session.update(Wake::Feeders, |state| {
            state.connections.add_main(arrival, main, greeting, Connection::has_left)
        })?;
        if taken {
            self.session.watch_progress(connection);
            return Ok(());
        }
        busy::turn_away(&self.session, connection, &said);
        Err(NotOfIt::Refused(Refusal::Busy))
    }

    /// Has a channel begin that has sent its initial packet: when more of it has come, and the main
    /// channel has announced the VM. Returns its number.
    fn begin(
        &self,
        arrival: Arrival,
        initial: InitialPacket,
        connection: &Connection,
        came: Instant,
    ) -> Result<u8, NotOfIt> {
        let handle = Some(connection.clone());
        self.session
            .update(Wake::Feeders, |state| state.connections.claim(arrival, initial, handle))??;
        self.wait_for_more(connection, came)?;
        self.session.update(Wake::Feeders, |state| state.connections.speaks(arrival))?;
        let what = "the main channel";
        let left = self.admission.timeout.saturating_sub(came.elapsed());
        let main = self.session.wait_for(Waiter::Receiver, what, left, |state| {
            let connections = &state.connections;
            (connections.has_main() || !connections.is_waiting(arrival)).then_some(())
        })?;
        if main.is_none() {
            return Err(Refusal::NoMain(self.admission.timeout).into());
        }
        wait_to_begin::<I>(&self.session, arrival)?;
        Ok(initial.channel)
    }

    /// Waits until there is more to be read of a channel than its initial packet: as long as there is a
    /// main channel that it may be of. What cannot be looked at without reading, speaks.
    fn wait_for_more(&self, connection: &Connection, came: Instant) -> Result<(), NotOfIt> {
        let timeout = self.admission.timeout;
        if !connection.can_poll() {
            return Ok(());
        }
        let left = timeout.saturating_sub(came.elapsed());
        let mut readable = connection.wait_readable_for(Some(left));
        if matches!(readable, Ok(false)) {
            if !self.session.look(|state| state.connections.has_main()) {
                return Err(Refusal::NoMain(timeout).into());
            }
            readable = connection.wait_readable_for(None);
        }
        self.session.check()?;
        let failed = |error| Refusal::from(multifd_core::Error::reading(error));
        match readable.and_then(|_| connection.has_more()) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Refusal::LeftEarly.into()),
            Err(error) => Err(failed(error).into()),
        }
    }

    /// Waits for the main channel, for any time. Returns it with its greeting.
    pub(crate) fn wait_for_main(&self) -> Result<(Connection, Vec<u8>), Failure> {
        let session = &self.session;
        let main = session
            .wait_patiently(Waiter::Main, "a source", |state| state.connections.take_main())?;
        session.begin_time_limit();
        Ok(main)
    }

    /// Waits until it is clear what the channels announce alike. When that takes too long it is what the best
    /// of those that speak does; none where nobody speaks in time. The destination waits meanwhile, and has
    /// limits of its own.
    pub(crate) fn wait_for_announced(&self) -> Result<Option<InitialPacket>, Stopped> {
        let (what, limit, began) = ("the first channel", self.admission.timeout, Instant::now());
        let to_be_clear = (limit / 4).min(DISAGREEING);
        loop {
            let elapsed = began.elapsed();
            let left = limit.saturating_sub(elapsed);
            let (hears, waits) = (elapsed < HEARING, elapsed < to_be_clear);
            // Whoever is in the middle of saying something may stop there.
            let again = if hears || waits { left.min(PAUSE) } else { left };
            let is_quiet = |connection: &Connection| !hears || is_quiet(connection, false);
            let announced = self.session.wait_for(Waiter::Main, what, again, |state| {
                let connections = &state.connections;
                match waits {
                    true => connections.announced(is_quiet),
                    false => connections.announced_by_best().or(connections.announced(|_| true)),
                }
            })?;
            if announced.is_some() || left.is_zero() {
                return Ok(announced);
            }
        }
    }

    /// A failure with what is known of the connections that were refused. Where packets are lost, the
    /// one that they came on may not have been heard yet.
    pub(crate) fn explain(self: &Arc<Self>, failure: Failure) -> Failure {
        let lost = |error: &Error| match error {
            Error::Relay { error, .. } => matches!(**error, Error::LostPackets { .. }),
            error => matches!(error, Error::LostPackets { .. }),
        };
        if !matches!(&failure, Failure::Error(error) if lost(error)) {
            return failure;
        }
        _ = self.accept_waiting();
        let what = "connections to say what they are";
        _ = self.session.wait_for(Waiter::Main, what, HEARING, |state| {
            (state.connections.unknown() == 0).then_some(())
        });
        let refused = self.session.look(|state| state.refused.clone());
        failure.map(|error| error.with_refused(refused))
    }

    /// Waits until every channel has connected.
    pub(crate) fn wait_for_all(self: &Arc<Self>, main: &Connection) -> Result<(), Failure> {
        // A source connects all its channels before it says that they have synced. So what is one too
        // many is here by now, too, as a rule, and is known for one of those that came before all were there.
        // Where it is late, or cannot be accepted now, the thread that accepts goes on with it.
        _ = self.accept_waiting()?;
        wait_for_all(&self.session, self.admission.timeout, Some(main))
    }
}

impl<I: Accept> Admit for Acceptor<I> {
    fn admit(self: Arc<Self>, connection: Connection) -> Result<(), Error> {
        let _accepting = self.accepting.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = match self.session.look(|state| state.connections.is_closed()) {
            true => Ok(false),
            false => self.take_in(connection.clone()),
        };
        if matches!(taken, Ok(true)) {
            return Ok(());
        }
        connection.shut_down(Shutdown::Both);
        match taken.and_then(|_| Ok(self.session.check()?)) {
            Ok(()) => Err(Error::NotTakenIn),
            Err(Failure::Stopped) => Err(Error::Over),
            Err(Failure::Error(error)) => {
                let again = error.again();
                self.session.fail(error);
                Err(again)
            }
        }
    }
}

/// Takes in a channel that was given, from its initial packet on. It is the program's own: what is
/// wrong with it fails the migration.
pub(crate) fn take_given<I: Intake>(
    session: &Session<Receiving<I::More>>,
    intake: &I,
    arrival: Arrival,
    mut stream: impl Receive,
) -> Result<(), Failure> {
    let opened = session.run(driver::open(&mut stream, &mut Opening::new()))??;
    let initial = match opened {
        Opened::Channel(initial) => initial,
        // A main channel among them is the second.
        Opened::Main => return Err(Error::SecondMain.into()),
        Opened::Nothing => return Err(multifd_core::Error::from(PeerError::Truncated).into()),
    };
    let claimed = session.update(Wake::Feeders, |state| {
        state.connections.claim(arrival, initial, None)?;
        state.connections.speaks(arrival);
        Ok::<_, Refusal>(())
    })?;
    let begun = claimed.map_err(NotOfIt::from).and_then(|()| wait_to_begin::<I>(session, arrival));
    begun.map_err(|not_of_it| not_of_it.of_given(initial.channel))?;
    super::channels::receive(session, intake, initial.channel, stream)
}

/// Waits until a channel that speaks can begin.
fn wait_to_begin<I: Intake>(
    session: &Session<Receiving<I::More>>,
    arrival: Arrival,
) -> Result<(), NotOfIt> {
    let what = "the announcement of the RAM";
    let begun = session.wait(Waiter::Receiver, what, |state| {
        let connections = &mut state.connections;
        if I::vm(&state.more).is_none() && connections.is_waiting(arrival) {
            return None;
        }
        match connections.begin(arrival, Connection::has_left) {
            Begin::Wait => None,
            Begin::Begun => Some(Ok(())),
            Begin::Refused(refusal) => Some(Err(refusal)),
        }
    })?;
    // Others may wait for it.
    session.wake(Wake::Feeders);
    Ok(begun?)
}

/// Waits until every channel has begun. The main channel is at its first sync.
pub(crate) fn wait_for_all<M: Send + 'static>(
    session: &Session<Receiving<M>>,
    limit: Duration,
    main: Option<&Connection>,
) -> Result<(), Failure> {
    let what = "every channel to connect";
    let began = Instant::now();
    loop {
        let seen = pass_over_silent(session, began.elapsed() >= HEARING)?;
        let left = limit.saturating_sub(began.elapsed());
        // Whoever is in the middle of saying something may stop there.
        let again = if seen.somebody_speaks { left.min(PAUSE) } else { left };
        let closed = session.wait_for(Waiter::Main, what, again, |state| {
            let closed = state.connections.close();
            (closed || state.connections.changes() != seen.changes).then_some(closed)
        })?;
        if closed == Some(true) {
            break;
        }
        if left.is_zero() {
            return Err(missing_channels(session, limit, main).into());
        }
    }
    session.watch().has_all();
    Ok(())
}

/// What was seen of those that may hold a channel up.
struct Seen {
    /// [`Connections::changes`](super::connections::Connections::changes) before.
    changes: u64,
    /// Somebody has sent something that is not read yet, or nobody can tell.
    somebody_speaks: bool,
}

/// Has those that say nothing hold nobody up any more. Those that have begun to say what they are, and those
/// of which it cannot be told without reading, have said nothing where they are `out_of_time`.
fn pass_over_silent<M: Send + 'static>(
    session: &Session<Receiving<M>>,
    out_of_time: bool,
) -> Result<Seen, Stopped> {
    let look = |state: &Receiving<M>| (state.connections.changes(), state.connections.holding_up());
    let (changes, holding_up) = session.look(look);
    let is_silent = |(_, connection, has_said): &(Arrival, Connection, bool)| match out_of_time {
        true => connection.has_nothing_unread(),
        false => is_quiet(connection, *has_said),
    };
    // They are looked at while nothing is locked.
    let (silent, speak): (Vec<_>, Vec<_>) = holding_up.into_iter().partition(is_silent);
    let silent = silent.into_iter().map(|(arrival, ..)| arrival);
    session.update(Wake::Receivers, |state| state.connections.pass_over(silent))?;
    Ok(Seen { changes, somebody_speaks: !speak.is_empty() })
}

/// Whether a connection says nothing, which has said what it is, or not. In the middle of that, be it of a
/// handshake, its thread may have all of it, and not have come to an end with it.
fn is_quiet(connection: &Connection, has_said: bool) -> bool {
    connection.is_quiet() && (has_said || connection.moved() == 0)
}

/// Not every channel has begun within `limit`.
pub(crate) fn missing_channels<M: Send + 'static>(
    session: &Session<Receiving<M>>,
    limit: Duration,
    main: Option<&Connection>,
) -> Error {
    let main_ended = main.is_some_and(Connection::has_left);
    session.look(|state| {
        let (connected, channels) = (state.connections.connected(), state.connections.channels());
        Error::missing_channels(connected, channels, limit, main_ended, state.refused.clone())
    })
}

/// Whether the other side has ended a connection before it said what it is. That reading fails here, as for
/// want of memory, is another matter.
fn is_end(error: &multifd_core::Error) -> bool {
    use io::ErrorKind::{
        BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected, UnexpectedEof,
    };
    use multifd_core::ErrorKind;

    match error.kind() {
        ErrorKind::Io { source, .. } => matches!(
            source.kind(),
            BrokenPipe | ConnectionAborted | ConnectionReset | NotConnected | UnexpectedEof
        ),
        ErrorKind::Peer(PeerError::Truncated) => true,
        _ => false,
    }
}

/// Takes note of a connection that is refused: as one that may be a channel of the source's, if it comes
/// from there.
fn note<M>(state: &mut Receiving<M>, connection: &Connection, refusal: &Refusal) {
    let is_of_channel =
        refusal.is_of_channel() && state.connections.may_be_main_host(host(connection));
    state.refused.add(&name(connection), &refusal.to_string(), is_of_channel);
}

/// The machine on the other side of a connection.
fn host(connection: &Connection) -> Host {
    connection.peer_address().map(|address| address.ip().to_canonical())
}

/// Who is on the other side of a connection.
fn name(connection: &Connection) -> String {
    connection.peer().unwrap_or_else(|| "this machine".to_owned())
}

impl NotOfIt {
    /// As the failure of a channel that was given.
    fn of_given(self, channel: u8) -> Failure {
        match self {
            Self::Failed(failure) => failure,
            Self::Refused(Refusal::Said(error)) => error.on_channel(channel).into(),
            Self::Refused(_) | Self::Left => {
                multifd_core::Error::from(PeerError::Truncated).on_channel(channel).into()
            }
        }
    }
}

impl<R: Into<Refusal>> From<R> for NotOfIt {
    fn from(refusal: R) -> Self {
        Self::Refused(refusal.into())
    }
}

impl From<Stopped> for NotOfIt {
    fn from(stopped: Stopped) -> Self {
        Self::Failed(stopped.into())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn whoever_is_in_the_middle_of_saying_what_it_is_is_not_quiet() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut connection = Connection::from_socket(ours).unwrap();
        assert!(is_quiet(&connection, false));
        theirs.write_all(b"\x11\x22").unwrap();
        assert!(!is_quiet(&connection, false) && !is_quiet(&connection, true));
        connection.read_exact(&mut [0; 2]).unwrap();
        assert!(!is_quiet(&connection, false) && is_quiet(&connection, true));
        // Of other streams it cannot be told.
        let connection = Connection::from_stream(io::empty(), io::sink(), |_| Ok(()));
        assert!(!is_quiet(&connection, true) && connection.has_nothing_unread());
    }

    #[test]
    fn a_connection_that_fails_here_has_not_ended_there() {
        let failed = |kind| multifd_core::Error::reading(io::Error::from(kind));
        assert!(is_end(&failed(io::ErrorKind::ConnectionReset)));
        assert!(is_end(&PeerError::Truncated.into()));
        assert!(!is_end(&failed(io::ErrorKind::OutOfMemory)));
        assert!(!is_end(&PeerError::NameEmpty.into()));
    }
}
