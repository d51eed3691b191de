//! Where the connections of many migrations come in.

use std::collections::VecDeque;
use std::net::Shutdown;
use std::sync::Arc;
use std::time::{Duration, Instant};

use multifd_core::wire::Uuid;

use super::ServerBuilder;
use super::switchboard::{NoPlace, Origin, Seat, Switchboard, UNSETTLED};
use crate::engine::accept::door::{self, Door, Keeper};
use crate::engine::accept::learn::{Learned, Learner, Said};
use crate::engine::accept::{Entrance, NotOfIt, name};
use crate::engine::busy;
use crate::engine::connections::{Added, Arrival, Host};
use crate::engine::refusal::Refusal;
use crate::engine::session::{Failure, Session, Stopped, Waiter, Wake};
use crate::error::Error;
use crate::transport::{Connection, Listener};

/// Takes connections in, and finds out of which migration each is.
#[derive(Debug)]
pub(super) struct Front {
    pub(super) door: Door<Hall>,
}

/// Who is there.
#[derive(Debug)]
pub(super) struct Hall {
    switchboard: Board,
    /// Migrations that nobody has taken yet.
    pub(super) newcomers: VecDeque<Arrived>,
    refused: u64,
}

type Board = Switchboard<Connection, Entrance>;

/// A main channel whose VM is known.
#[derive(Debug)]
pub(super) struct Arrived {
    pub(super) at: Arrival,
    pub(super) main: Connection,
    pub(super) learned: Learned,
    pub(super) uuid: Uuid,
}

impl Seat for Entrance {
    fn has_all(&self) -> bool {
        !self.needs_more()
    }
}

impl Front {
    pub(super) fn open(
        setup: &ServerBuilder,
        listener: Option<Listener>,
    ) -> Result<Arc<Self>, Error> {
        let switchboard = Switchboard::new(setup.admission.most_waiting, setup.most_migrations);
        let hall = Hall { switchboard, newcomers: VecDeque::new(), refused: 0 };
        let session = Session::new(hall, &setup.terms)?;
        let door = Door::new(&session, listener, &setup.admission, setup.secure.clone());
        let front = Arc::new(Self { door });
        door::open(&front).inspect_err(|_| session.end())?;
        Ok(front)
    }

    pub(super) fn stop_taking(&self) {
        _ = self.door.session.update(Wake::Feeders, |hall| hall.switchboard.stop_taking());
    }

    /// The migration of the main channel `main` takes its connections in by `entrance`: so many channels.
    pub(super) fn seat(&self, main: Arrival, entrance: Entrance, channels: u8) {
        let seat = |hall: &mut Hall| hall.switchboard.take_seat(main, entrance, channels);
        _ = self.door.session.update(Wake::Feeders, seat);
    }

    /// The migration of the main channel `main` is over.
    pub(super) fn leave(&self, main: Arrival) {
        _ = self
            .door
            .session
            .update(Wake::Feeders, |hall| hall.switchboard.remove(main, Instant::now()));
    }

    /// Migrations that have begun and are not over.
    pub(super) fn migrations(&self) -> usize {
        self.door.session.look(|hall| hall.switchboard.migrations())
    }

    /// Tells the source of a migration that the program has not taken it.
    pub(super) fn turn_away(&self, main: &Connection, said: &[u8]) {
        // Behind the end nothing has a limit.
        if self.door.session.check().is_ok() {
            busy::turn_away(&self.door.session, main, said);
        }
        door::refuse(self, main, &Refusal::NotTaken);
    }

    /// Accepts no more, and closes what is of no migration yet.
    pub(super) fn end(&self) {
        let session = &self.door.session;
        session.end();
        session.note(|hall| {
            let left = hall.switchboard.handles();
            left.iter().for_each(|connection| connection.shut_down(Shutdown::Both));
            // What is kept here stays open.
            hall.switchboard = Switchboard::new(0, 0);
            hall.newcomers.clear();
        });
    }

    fn learn(&self, connection: &Connection) -> Result<Learned, NotOfIt> {
        let Door { session, admission, secure, .. } = &self.door;
        Learner::new(session, admission, secure.as_deref(), connection).learn(|_, _| Ok(()))
    }

    /// Puts a connection in its place.
    fn place(&self, at: Arrival, connection: &Connection, learned: Learned) -> Result<(), NotOfIt> {
        match learned.said {
            Said::Main(_) => self.place_main(at, connection, learned),
            Said::Channel(initial, _) => {
                tracing::debug!(channel = initial.channel, uuid = %initial.uuid, "connected");
                self.place_channel(at, connection, initial.uuid, learned)
            }
        }
    }

    /// Waits, for `what`, until it is clear what becomes of a connection; `None` when its time is over, unless
    /// `stays`.
    fn wait<R>(
        &self,
        what: &'static str,
        learned: &Learned,
        mut place: impl FnMut(&mut Board) -> Option<R>,
        stays: impl Fn(&Board) -> bool,
    ) -> Result<Option<R>, Stopped> {
        let (session, limit) = (&self.door.session, self.patience());
        loop {
            let is_over = learned.left_of(limit).is_zero();
            let again = if is_over { UNSETTLED } else { learned.left_of(limit).min(UNSETTLED / 4) };
            let placed = session
                .wait_for(Waiter::Receiver, what, again, |hall| place(&mut hall.switchboard))?;
            if placed.is_some() || (is_over && !session.look(|hall| stays(&hall.switchboard))) {
                // Others may have their place by that.
                session.wake(Wake::Feeders);
                return Ok(placed);
            }
        }
    }

    /// How long a connection that has said what it is waits for what it belongs to: those before it may take as
    /// long as one may to say what they are.
    fn patience(&self) -> Duration {
        self.door.admission.timeout.saturating_mul(2).saturating_add(UNSETTLED)
    }

    fn place_main(
        &self,
        at: Arrival,
        connection: &Connection,
        learned: Learned,
    ) -> Result<(), NotOfIt> {
        tracing::debug!("a main channel connected");
        let session = &self.door.session;
        let id = learned.introduction.map(|introduction| introduction.migration);
        session
            .update(Wake::Feeders, |hall| hall.switchboard.says_main(at, id))?
            .map_err(|why| self.no_place(why))?;
        let place = self.wait_for_channel(at, &learned, is_gone(connection))?;
        let why = match place {
            Ok(uuid) => {
                session.let_go(connection);
                let newcomer = Arrived { at, main: connection.clone(), learned, uuid };
                return Ok(session.update(Wake::Main, |hall| hall.newcomers.push_back(newcomer))?);
            }
            Err(NoPlace::Alone) if connection.has_left() => Refusal::GivenUp,
            Err(why) => self.no_place(why),
        };
        if let Said::Main(said) = &learned.said {
            busy::turn_away(session, connection, said);
        }
        Err(why.into())
    }

    /// Waits for the first channel of the main channel `main`, which tells its VM, unless it `is_gone`.
    fn wait_for_channel(
        &self,
        main: Arrival,
        learned: &Learned,
        mut is_gone: impl FnMut() -> bool,
    ) -> Result<Result<Uuid, NoPlace>, Stopped> {
        let place = |board: &mut Board| {
            let place = board.main_place(main, Instant::now(), Connection::has_left);
            place.or_else(|| is_gone().then(|| board.give_up(main)))
        };
        match self.wait("the first channel", learned, place, |_| false)? {
            Some(place) => Ok(place),
            // It may have come just now.
            None => self.door.session.update(Wake::Feeders, |hall| hall.switchboard.give_up(main)),
        }
    }

    fn place_channel(
        &self,
        at: Arrival,
        connection: &Connection,
        uuid: Uuid,
        learned: Learned,
    ) -> Result<(), NotOfIt> {
        let session = &self.door.session;
        let id = learned.introduction.map(|introduction| introduction.migration);
        session
            .update(Wake::Feeders, |hall| hall.switchboard.says_channel(at, uuid, id))?
            .map_err(|why| self.no_place(why))?;
        let mut is_gone = is_gone(connection);
        let place = self.wait(
            "the main channel",
            &learned,
            |board| {
                let place = board.channel_place(at, Instant::now(), Connection::has_left);
                let is_open = place.is_none() && !board.is_matched(at);
                place.or_else(|| (is_open && is_gone()).then_some(Err(NoPlace::Over)))
            },
            // It comes as soon as the program takes it, or is refused with it.
            |board| board.is_matched(at),
        )?;
        let (entrance, main) = match place {
            Some(Ok(place)) => place,
            None | Some(Err(NoPlace::Over)) if connection.has_left() => {
                return Err(Refusal::GivenUp.into());
            }
            None => return Err(Refusal::NoMain(self.patience()).into()),
            Some(Err(why)) => {
                if why == NoPlace::Stray {
                    let end = |hall: &mut Hall| hall.switchboard.end_beside(at);
                    let beside = session.update(Wake::Feeders, end)?;
                    beside.iter().for_each(Entrance::give_up);
                }
                return Err(self.no_place(why).into());
            }
        };
        session.let_go(connection);
        if let Err(error) = entrance.add_known(connection.clone(), learned) {
            tracing::debug!(%error, "a channel came too late");
        }
        Ok(session.update(Wake::Feeders, |hall| hall.switchboard.handed_over(main))?)
    }

    fn no_place(&self, why: NoPlace) -> Refusal {
        match why {
            NoPlace::Indistinct => Refusal::Indistinct,
            NoPlace::Full => Refusal::Full,
            NoPlace::Stopping => Refusal::Stopping,
            NoPlace::GaveWay => Refusal::GaveWay,
            NoPlace::Over => Refusal::Over,
            NoPlace::Alone => Refusal::NoChannels(self.patience()),
            NoPlace::Stray => Refusal::NoMain(self.door.admission.timeout),
        }
    }

    /// Ends what is of no migration.
    fn conclude(
        &self,
        at: Arrival,
        (connection, from): (&Connection, &str),
        taken: Result<(), NotOfIt>,
    ) -> Result<(), Stopped> {
        let refusal = match taken {
            Ok(()) => return Ok(()),
            Err(NotOfIt::Failed(Failure::Stopped)) => return Err(Stopped),
            Err(NotOfIt::Failed(Failure::Error(error))) => {
                // Of this connection alone.
                tracing::warn!(%from, %error, "a connection is given up");
                None
            }
            Err(NotOfIt::Left | NotOfIt::Refused(Refusal::GivenUp)) => None,
            Err(NotOfIt::Refused(refusal)) => Some(refusal),
        };
        let gave_way = self.door.session.update(Wake::Feeders, |hall| {
            let gave_way = hall.switchboard.has_given_way(at);
            hall.switchboard.remove(at, Instant::now());
            gave_way
        })?;
        match if gave_way { Some(Refusal::GaveWay) } else { refusal } {
            Some(refusal) => door::end(self, connection, from, &refusal),
            None => {
                tracing::debug!("it left, and is not of a migration");
                connection.shut_down(Shutdown::Both);
            }
        }
        Ok(())
    }
}

/// Whether the other side has left for so long that nothing of its source's is about to say any more what it is: a
/// source that is done leaves with all its connections.
fn is_gone(connection: &Connection) -> impl FnMut() -> bool {
    let mut left = None;
    move || {
        let since = connection.has_left().then(|| *left.get_or_insert_with(Instant::now));
        since.is_some_and(|since| since.elapsed() > UNSETTLED / 2)
    }
}

impl Keeper for Front {
    type State = Hall;

    fn door(&self) -> &Door<Hall> {
        &self.door
    }

    fn add(hall: &mut Hall, one: Connection, host: Host) -> Option<Added<Connection>> {
        let from = Origin { host, process: one.peer_process() };
        hall.switchboard.add(one, from, Connection::is_silent)
    }

    fn make_room(hall: &mut Hall) -> Option<Connection> {
        hall.switchboard.make_room(Connection::is_silent)
    }

    fn forget(hall: &mut Hall, arrival: Arrival) {
        hall.switchboard.remove(arrival, Instant::now());
    }

    fn has_all(_: &Hall) -> bool {
        false
    }

    fn take(&self, at: Arrival, connection: &Connection) -> Result<(), Stopped> {
        let from = name(connection);
        let _in_its_name = tracing::debug_span!("connection", %from).entered();
        self.door.session.shut_down_at_end(connection, Shutdown::Both);
        let learned = self.learn(connection);
        let taken = learned.and_then(|learned| self.place(at, connection, learned));
        self.conclude(at, (connection, &from), taken)
    }

    fn note(&self, _: &Connection, _: &Refusal) {}

    fn count_refused(&self, refusal: &Refusal) -> u64 {
        self.door.admission.refusals.count(refusal);
        self.door.session.note(|hall| {
            hall.refused += 1;
            hall.refused
        })
    }
}
