//! Where the connections of many migrations come in.

use std::collections::VecDeque;
use std::net::Shutdown;
use std::sync::Arc;
use std::time::Duration;

use multifd_core::wire::Uuid;

use super::ServerBuilder;
use super::switchboard::{NoPlace, Origin, Seat, Switchboard};
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
    switchboard: Switchboard<Connection, Entrance>,
    /// Migrations that nobody has taken yet.
    pub(super) newcomers: VecDeque<Arrived>,
    refused: u64,
}

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

    /// The migration of the main channel `main` takes its connections in by `entrance`.
    pub(super) fn seat(&self, main: Arrival, entrance: Entrance) {
        let seat = |hall: &mut Hall| hall.switchboard.take_seat(main, entrance);
        _ = self.door.session.update(Wake::Feeders, seat);
    }

    /// The migration of the main channel `main` is over.
    pub(super) fn leave(&self, main: Arrival) {
        _ = self.door.session.update(Wake::Feeders, |hall| hall.switchboard.remove(main));
    }

    /// Tells the source of a migration that it is refused for `refusal`.
    pub(super) fn turn_away(&self, main: &Connection, said: &[u8], refusal: &Refusal) {
        // Behind the end nothing has a limit.
        if self.door.session.check().is_ok() {
            busy::turn_away(&self.door.session, main, said);
        }
        door::refuse(self, main, refusal);
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
        Learner::new(session, admission, secure.as_deref(), connection).learn()
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

    /// How long a connection that has said what it is waits for what it belongs to.
    fn patience(&self, learned: &Learned) -> Duration {
        learned.left_of(self.door.admission.timeout.saturating_mul(2))
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
        let (what, left) = ("the first channel", self.patience(&learned));
        let place = session.wait_for(Waiter::Receiver, what, left, |hall| {
            hall.switchboard.main_place(at, Connection::has_left)
        })?;
        // Others may have their place by that.
        session.wake(Wake::Feeders);
        let why = match place {
            Some(Ok(uuid)) => {
                session.let_go(connection);
                let newcomer = Arrived { at, main: connection.clone(), learned, uuid };
                return Ok(session.update(Wake::Main, |hall| hall.newcomers.push_back(newcomer))?);
            }
            Some(Err(why)) => self.no_place(why),
            None if connection.has_left() => Refusal::GivenUp,
            None => Refusal::NoChannels(self.door.admission.timeout),
        };
        if let Said::Main(said) = &learned.said {
            busy::turn_away(session, connection, said);
        }
        Err(why.into())
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
        let (what, left) = ("the main channel", self.patience(&learned));
        let place = session.wait_for(Waiter::Receiver, what, left, |hall| {
            hall.switchboard.channel_place(at, Connection::has_left)
        })?;
        // Others may have their place by that.
        session.wake(Wake::Feeders);
        let (entrance, main) = match place {
            Some(Ok(place)) => place,
            None if connection.has_left() => return Err(Refusal::GivenUp.into()),
            None => return Err(Refusal::NoMain(self.door.admission.timeout).into()),
            Some(Err(why)) => return Err(self.no_place(why).into()),
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
            hall.switchboard.remove(at);
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
        hall.switchboard.remove(arrival);
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
