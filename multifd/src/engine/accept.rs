//! Connections of a migration: which of them is which.

pub(crate) mod door;
pub(crate) mod learn;

use std::fmt;
use std::net::Shutdown;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use multifd_core::PeerError;
use multifd_core::channel::{Opened, Opening};
use multifd_core::wire::InitialPacket;

use super::Receiving;
use super::admission::Admission;
use super::busy;
use super::channels::Intake;
use super::connections::{Added, Arrival, Begin, Host};
use super::introduced::Place;
use super::refusal::Refusal;
use super::session::{Failure, Session, Stopped, Waiter, Wake};
use crate::driver::{self, Receive};
use crate::error::Error;
use crate::transport::{Connection, Introduction, Link, Listener, MigrationId, Role, Secure, Uri};
use door::{Door, Keeper};
use learn::{Learned, Learner, Said};

/// Takes connections in, and finds out what each is.
#[derive(Debug)]
pub(crate) struct Acceptor<I: Accept> {
    pub(crate) door: Door<Receiving<I::More>>,
    /// What the channels are for.
    pub(crate) intake: I,
}

/// How long until it is tried again to look at who is in the middle of saying what it is.
const PAUSE: Duration = Duration::from_millis(100);

/// Why a connection is not a part of the migration.
#[derive(Debug)]
pub(crate) enum NotOfIt {
    /// It is refused, and the migration goes on.
    Refused(Refusal),
    /// It left without having said anything, as port scanners and health checks do.
    Left,
    /// The migration has failed, or is over.
    Failed(Failure),
}

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
    /// Takes one in, of which it is known what it is, or not.
    fn admit(
        self: Arc<Self>,
        connection: Connection,
        learned: Option<Learned>,
    ) -> Result<(), Error>;

    /// Whether the migration goes on and lacks channels.
    fn needs_more(&self) -> bool;

    /// Ends the migration, which may have been given a channel of another's.
    fn give_up(&self);
}

impl Entrance {
    /// Hands `connection` in.
    ///
    /// # Errors
    /// [`Error::Over`] where the migration is over, [`Error::NotTakenIn`] where it goes on without the
    /// connection. One that no thread can be started for fails the migration, too. The connection is
    /// shut down then.
    pub fn add(&self, connection: Connection) -> Result<(), Error> {
        self.admit(connection, None)
    }

    /// Hands in `connection`, which has been found out to be a part of the migration. Its time here begins now.
    pub(crate) fn add_known(&self, connection: Connection, learned: Learned) -> Result<(), Error> {
        self.admit(connection, Some(Learned { came: Instant::now(), ..learned }))
    }

    /// Ends the migration, which may have been given a channel of another's.
    pub(crate) fn give_up(&self) {
        if let Some(acceptor) = self.0.upgrade() {
            acceptor.give_up();
        }
    }

    /// Whether the migration goes on and lacks channels.
    pub(crate) fn needs_more(&self) -> bool {
        self.0.upgrade().is_some_and(|acceptor| acceptor.needs_more())
    }

    fn admit(&self, connection: Connection, learned: Option<Learned>) -> Result<(), Error> {
        let Some(acceptor) = self.0.upgrade() else {
            connection.shut_down(Shutdown::Both);
            return Err(Error::Over);
        };
        acceptor.admit(connection, learned)
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
        let door = Door::new(session, listener, admission, secure);
        let acceptor = Arc::new(Self { door, intake });
        door::open(&acceptor)?;
        Ok(acceptor)
    }

    /// Where it listens.
    pub(crate) fn uri(&self) -> &Uri {
        self.door.listener.as_ref().map_or(&Uri::Unnamed, Listener::uri)
    }

    /// Where connections are handed in.
    pub(crate) fn entrance(self: &Arc<Self>) -> Entrance {
        let weak: Weak<Self> = Arc::downgrade(self);
        Entrance(weak)
    }

    /// Takes in a connection that may have been found out before: the main channel is handed over, a multifd
    /// channel taken in. What is neither is refused.
    fn take_known(
        &self,
        arrival: Arrival,
        connection: &Connection,
        learned: Option<Learned>,
    ) -> Result<(), Stopped> {
        let session = &self.door.session;
        let from = name(connection);
        let _in_its_name = tracing::debug_span!("connection", %from).entered();
        // Only the reading side is shut down when the migration stops: the source still is to be
        // told on the return path.
        session.shut_down_at_end(connection, Shutdown::Read);
        let learned = learned.map_or_else(|| self.learn(arrival, connection), Ok);
        let taken = learned.and_then(|learned| self.place(arrival, connection, learned));
        self.conclude(arrival, (connection, &from), taken)
    }

    fn learn(&self, arrival: Arrival, connection: &Connection) -> Result<Learned, NotOfIt> {
        let Door { session, admission, secure, .. } = &self.door;
        let learner = Learner::new(session, admission, secure.as_deref(), connection);
        learner.learn(|introduction, came| self.introduce(arrival, introduction, came))
    }

    /// Puts a connection in its place: until a channel ends.
    fn place(
        &self,
        arrival: Arrival,
        connection: &Connection,
        learned: Learned,
    ) -> Result<(), NotOfIt> {
        let session = &self.door.session;
        let Learned { said, came, .. } = learned;
        match said {
            Said::Main(greeting) => {
                tracing::debug!("the main channel connected");
                self.hand_over(arrival, greeting, connection)
            }
            Said::Channel(initial, opening) => {
                tracing::debug!(channel = initial.channel, uuid = %initial.uuid, "connected");
                let number = self.begin(arrival, initial, connection, came)?;
                // From now on its bytes are the migration's.
                session.watch_progress(connection);
                let received =
                    self.intake.receive(session, number, opening.bytes(), Link::new(connection));
                received.map_err(NotOfIt::Failed)
            }
        }
    }

    /// Takes note of the migration that a main channel has proven to be of. A channel of another migration than
    /// the main channel's is none of this one.
    fn introduce(
        &self,
        arrival: Arrival,
        Introduction { migration, role }: Introduction,
        came: Instant,
    ) -> Result<(), NotOfIt> {
        match role {
            Role::Main => {
                let add = |state: &mut Receiving<_>| {
                    state.introduced.add(arrival, migration, &state.connections);
                };
                Ok(self.door.session.update(Wake::Nobody, add)?)
            }
            Role::Channel(_) => self.find_place(arrival, migration, came),
        }
    }

    /// Waits until it is known of which migration the main channel is: a channel of another one must not
    /// claim a number here. A source connects its main channel first.
    fn find_place(
        &self,
        arrival: Arrival,
        migration: MigrationId,
        came: Instant,
    ) -> Result<(), NotOfIt> {
        let what = "the main channel of the same migration";
        let timeout = self.door.admission.timeout;
        let left = timeout.saturating_sub(came.elapsed());
        let place = self.door.session.wait_for(Waiter::Receiver, what, left, |state| {
            let gone = !state.connections.is_waiting(arrival);
            let main = state.connections.main_arrival();
            let place = state.introduced.place(arrival, migration, main);
            place.or_else(|| gone.then_some(Place::Here))
        })?;
        match place {
            Some(Place::Here) => Ok(()),
            Some(Place::GivenUp) => Err(Refusal::GivenUp.into()),
            Some(Place::Elsewhere) => Err(Refusal::Busy.into()),
            None => Err(Refusal::NoMain(timeout).into()),
        }
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
                return self.door.session.settle(Err(failure.map(I::blame)));
            }
            Err(NotOfIt::Left | NotOfIt::Refused(Refusal::GivenUp)) => None,
            Err(NotOfIt::Refused(refusal)) => Some(refusal),
        };
        // That it is not waited for any more and why are known at once.
        let refusal = self.door.session.update(Wake::Feeders, |state| {
            let refusal = match state.connections.remove(arrival) {
                true => Some(Refusal::GaveWay),
                false => refusal,
            };
            refusal.inspect(|refusal| note(state, connection, refusal))
        })?;
        match refusal {
            Some(refusal) => {
                door::end(self, connection, from, &refusal);
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
        if refusal.is_of_channel() && self.door.session.look(setting_up) {
            self.door.session.watch().has_refused_one(self.door.admission.timeout);
            // They may all have come meanwhile.
            if self.door.session.look(|state| state.connections.is_closed()) {
                self.door.session.watch().has_all();
            }
        }
    }

    /// Hands the main channel over; one that is the second is told that it is.
    fn hand_over(
        &self,
        arrival: Arrival,
        greeting: Vec<u8>,
        connection: &Connection,
    ) -> Result<(), NotOfIt> {
        let (main, said) = (connection.clone(), greeting.clone());
        let taken = self.door.session.update(Wake::Feeders, |state| {
            state.connections.add_main(arrival, main, greeting, Connection::has_left)
        })?;
        if taken {
            self.door.session.watch_progress(connection);
            return Ok(());
        }
        busy::turn_away(&self.door.session, connection, &said);
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
        self.door
            .session
            .update(Wake::Feeders, |state| state.connections.claim(arrival, initial, handle))??;
        self.wait_for_more(connection, came)?;
        self.door.session.update(Wake::Feeders, |state| state.connections.speaks(arrival))?;
        let what = "the main channel";
        let left = self.door.admission.timeout.saturating_sub(came.elapsed());
        let main = self.door.session.wait_for(Waiter::Receiver, what, left, |state| {
            let connections = &state.connections;
            (connections.has_main() || !connections.is_waiting(arrival)).then_some(())
        })?;
        if main.is_none() {
            return Err(Refusal::NoMain(self.door.admission.timeout).into());
        }
        wait_to_begin::<I>(&self.door.session, arrival)?;
        Ok(initial.channel)
    }

    /// Waits until there is more to be read of a channel than its initial packet: as long as there is a
    /// main channel that it may be of. What cannot be looked at without reading, speaks.
    fn wait_for_more(&self, connection: &Connection, came: Instant) -> Result<(), NotOfIt> {
        let timeout = self.door.admission.timeout;
        if !connection.can_poll() {
            return Ok(());
        }
        let left = timeout.saturating_sub(came.elapsed());
        let mut readable = connection.wait_readable_for(Some(left));
        if matches!(readable, Ok(false)) {
            if !self.door.session.look(|state| state.connections.has_main()) {
                return Err(Refusal::NoMain(timeout).into());
            }
            readable = connection.wait_readable_for(None);
        }
        self.door.session.check()?;
        let failed = |error| Refusal::from(multifd_core::Error::reading(error));
        match readable.and_then(|_| connection.has_more()) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Refusal::LeftEarly.into()),
            Err(error) => Err(failed(error).into()),
        }
    }

    /// Waits for the main channel, for any time. Returns it with its greeting.
    pub(crate) fn wait_for_main(&self) -> Result<(Connection, Vec<u8>), Failure> {
        let session = &self.door.session;
        let main = session
            .wait_patiently(Waiter::Main, "a source", |state| state.connections.take_main())?;
        session.begin_time_limit();
        Ok(main)
    }

    /// Waits until it is clear what the channels announce alike. When that takes too long it is what the best
    /// of those that speak does; none where nobody speaks in time. The destination waits meanwhile, and has
    /// limits of its own.
    pub(crate) fn wait_for_announced(&self) -> Result<Option<InitialPacket>, Stopped> {
        let (what, limit, began) =
            ("the first channel", self.door.admission.timeout, Instant::now());
        let to_be_clear = (limit / 4).min(DISAGREEING);
        loop {
            let elapsed = began.elapsed();
            let left = limit.saturating_sub(elapsed);
            let (hears, waits) = (elapsed < HEARING, elapsed < to_be_clear);
            // Whoever is in the middle of saying something may stop there.
            let again = if hears || waits { left.min(PAUSE) } else { left };
            let is_quiet = |connection: &Connection| !hears || is_quiet(connection, false);
            let announced = self.door.session.wait_for(Waiter::Main, what, again, |state| {
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
        _ = door::accept_waiting(self);
        let what = "connections to say what they are";
        _ = self.door.session.wait_for(Waiter::Main, what, HEARING, |state| {
            (state.connections.unknown() == 0).then_some(())
        });
        let refused = self.door.session.look(|state| state.refused.clone());
        failure.map(|error| error.with_refused(refused))
    }

    /// Waits until every channel has connected.
    pub(crate) fn wait_for_all(self: &Arc<Self>, main: &Connection) -> Result<(), Failure> {
        // A source connects all its channels before it says that they have synced. So what is one too
        // many is here by now, too, as a rule, and is known for one of those that came before all were there.
        // Where it is late, or cannot be accepted now, the thread that accepts goes on with it.
        door::accept_waiting(self)?;
        wait_for_all(&self.door.session, self.door.admission.timeout, Some(main))
    }
}

impl<I: Accept> Admit for Acceptor<I> {
    fn admit(
        self: Arc<Self>,
        connection: Connection,
        learned: Option<Learned>,
    ) -> Result<(), Error> {
        let session = &self.door.session;
        let _accepting = self.door.accepting();
        // Of one that is known it is to be heard why there is no place for it.
        let closed = learned.is_none() && session.look(|state| state.connections.is_closed());
        let take = |acceptor: &Self, arrival, connection: &Connection| {
            acceptor.take_known(arrival, connection, learned)
        };
        let taken = match closed {
            true => Ok(false),
            false => door::take_in(&self, connection.clone(), take),
        };
        if matches!(taken, Ok(true)) {
            return Ok(());
        }
        connection.shut_down(Shutdown::Both);
        match taken.and_then(|_| Ok(session.check()?)) {
            Ok(()) => Err(Error::NotTakenIn),
            Err(Failure::Stopped) => Err(Error::Over),
            Err(Failure::Error(error)) => {
                let again = error.again();
                session.fail(error);
                Err(again)
            }
        }
    }

    fn needs_more(&self) -> bool {
        let session = &self.door.session;
        session.check().is_ok() && !session.look(|state| state.connections.is_closed())
    }

    fn give_up(&self) {
        self.door.session.fail(I::blame(Error::Indistinct));
    }
}

impl<I: Accept> Keeper for Acceptor<I> {
    type State = Receiving<I::More>;

    fn door(&self) -> &Door<Self::State> {
        &self.door
    }

    fn add(state: &mut Self::State, one: Connection, host: Host) -> Option<Added<Connection>> {
        state.connections.add(one, host, Connection::is_silent)
    }

    fn make_room(state: &mut Self::State) -> Option<Connection> {
        state.connections.make_room(Connection::is_silent)
    }

    fn forget(state: &mut Self::State, arrival: Arrival) {
        state.connections.remove(arrival);
    }

    fn has_all(state: &Self::State) -> bool {
        state.connections.is_closed()
    }

    fn take(&self, arrival: Arrival, connection: &Connection) -> Result<(), Stopped> {
        self.take_known(arrival, connection, None)
    }

    fn note(&self, connection: &Connection, refusal: &Refusal) {
        self.door.session.note(|state| note(state, connection, refusal));
    }

    fn count_refused(&self, refusal: &Refusal) -> u64 {
        self.door.admission.refusals.count(refusal);
        self.intake.codec().progress.count_refused()
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
pub(crate) fn name(connection: &Connection) -> String {
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
    use std::io::{self, Read, Write};
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
}
