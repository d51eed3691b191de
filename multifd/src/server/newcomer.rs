//! A migration that has begun.

use std::fmt;
use std::sync::Arc;

use multifd_core::wire::Uuid;

use super::front::{Arrived, Front};
use crate::engine::accept::learn::{Learned, Said};
use crate::engine::accept::{Entrance, name};
use crate::engine::admission::Admission;
use crate::engine::connections::Arrival;
use crate::engine::refusal::Refusals;
use crate::error::Error;
use crate::transport::Connection;

/// A migration that has begun: its main channel and its first multifd channel are there. It goes on by
/// [`RelayBuilder::serve`](crate::relay::RelayBuilder::serve) or
/// [`DestinationBuilder::serve`](crate::DestinationBuilder::serve).
///
/// Dropping it instead refuses it, which takes up to 2 s: its source is told so, where it listens, and its guest goes
/// on there.
pub struct Newcomer {
    uuid: Uuid,
    main: Connection,
    refusals: Refusals,
    /// None where it has been taken.
    open: Option<(Learned, Place)>,
}

/// The place of a migration in its server, until it is over.
pub(crate) struct Place {
    front: Arc<Front>,
    at: Arrival,
}

/// What a migration takes over from a server.
pub(crate) struct Taken {
    main: Connection,
    learned: Learned,
    place: Place,
}

impl Newcomer {
    pub(super) fn new(front: &Arc<Front>, arrived: Arrived) -> Self {
        let Arrived { at, main, learned, uuid } = arrived;
        let refusals = front.door.admission.refusals.clone();
        let place = Place { front: Arc::clone(front), at };
        Self { uuid, main, refusals, open: Some((learned, place)) }
    }

    /// The UUID of the VM, as its first channel says it. With another UUID no channel is taken in.
    pub fn uuid(&self) -> Uuid {
        self.uuid
    }

    /// Who sends it: the address of a TCP or vsock connection, `process N of this machine` for a Unix socket.
    pub fn peer(&self) -> String {
        match self.main.peer_process() {
            Some(process) => format!("process {process} of this machine"),
            None => name(&self.main),
        }
    }

    /// Whom the certificate of the main channel's client names: its subject or, where that is empty, its first
    /// other name. None without TLS, and where the client has shown none.
    pub fn certificate(&self) -> Option<&str> {
        self.main.certificate()
    }

    /// What a migration asks of the connections that it is handed: all that matters the server has asked
    /// already.
    pub(crate) fn admission(&self, own: &Admission) -> Admission {
        let refusals = self.refusals.clone();
        Admission { allow_from: Vec::new(), token: None, refusals, ..own.clone() }
    }

    /// Takes it out of the server's hands, to be handed over with what comes from now on.
    pub(crate) fn take(mut self) -> Result<Taken, Error> {
        let (learned, place) = self.open.take().ok_or(Error::Over)?;
        Ok(Taken { main: self.main.clone(), learned, place })
    }
}

impl Taken {
    /// Hands the main channel in at `entrance`, and whatever comes from now on: so many channels. Returns the place that the
    /// migration has until it is over.
    pub(crate) fn enter(self, entrance: Entrance, channels: u8) -> Result<Place, Error> {
        let Self { main, learned, place } = self;
        entrance.add_known(main, learned)?;
        place.front.seat(place.at, entrance, channels);
        Ok(place)
    }
}

impl Drop for Newcomer {
    fn drop(&mut self) {
        let Some((learned, place)) = self.open.take() else { return };
        if let Said::Main(said) = &learned.said {
            place.front.turn_away(&self.main, said);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.front.leave(self.at);
    }
}

impl fmt::Debug for Newcomer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { uuid, main, .. } = self;
        f.debug_struct("Newcomer").field("uuid", uuid).field("main", main).finish_non_exhaustive()
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Place").field(&self.at).finish()
    }
}
