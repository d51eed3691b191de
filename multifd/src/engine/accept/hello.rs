//! Connections that prove by a token that they are of a migration, and of which.

use std::time::Instant;

use multifd_core::PeerError;
use multifd_core::channel::Opened;

use super::{Accept, Acceptor, NotOfIt, Refusal, chain};
use crate::engine::connections::Arrival;
use crate::engine::introduced::Place;
use crate::engine::session::{Waiter, Wake};
use crate::engine::watch::Timer;
use crate::transport::{Connection, Introduction, Role};

impl<I: Accept> Acceptor<I> {
    /// Has a connection prove what it is, if there is a token: one that cannot is not of the migration.
    /// A channel of another migration than the main channel's is none of this one.
    pub(super) fn meet(
        &self,
        arrival: Arrival,
        connection: &Connection,
        came: Instant,
        limit: &mut Timer,
    ) -> Result<Option<Introduction>, NotOfIt> {
        let Some(token) = &self.admission.token else { return Ok(None) };
        let introduction = token.meet(connection).map_err(|error| {
            // What has been shut down says nothing of why.
            if let Err(stopped) = self.session.check() {
                return stopped.into();
            }
            if limit.stop() {
                return Refusal::Silent(self.admission.timeout).into();
            }
            if error.is_silence() {
                return self.not_said(PeerError::Truncated.into(), came, true);
            }
            Refusal::NotIntroduced(chain(std::error::Error::source(&error).unwrap_or(&error)))
                .into()
        })?;
        tracing::debug!(as = %introduction.role, "it has the token");
        match introduction.role {
            Role::Main => self.session.update(Wake::Nobody, |state| {
                state.introduced.add(arrival, introduction.migration, &state.connections);
            })?,
            Role::Channel(_) => self.find_place(arrival, introduction, came)?,
        }
        Ok(Some(introduction))
    }

    /// Waits until it is known of which migration the main channel is: a channel of another one must not
    /// claim a number here. A source connects its main channel first.
    fn find_place(
        &self,
        arrival: Arrival,
        introduction: Introduction,
        came: Instant,
    ) -> Result<(), NotOfIt> {
        let what = "the main channel of the same migration";
        let left = self.admission.timeout.saturating_sub(came.elapsed());
        let place = self.session.wait_for(Waiter::Receiver, what, left, |state| {
            let gone = !state.connections.is_waiting(arrival);
            let main = state.connections.main_arrival();
            let place = state.introduced.place(arrival, introduction.migration, main);
            place.or_else(|| gone.then_some(Place::Here))
        })?;
        match place {
            Some(Place::Here) => Ok(()),
            Some(Place::GivenUp) => Err(Refusal::GivenUp.into()),
            Some(Place::Elsewhere) => Err(Refusal::Busy.into()),
            None => Err(Refusal::NoMain(self.admission.timeout).into()),
        }
    }
}

/// What a connection says that it is must be what it has proven to be.
pub(super) fn agree(introduction: Option<Introduction>, opened: &Opened) -> Result<(), Refusal> {
    let Some(Introduction { role, .. }) = introduction else { return Ok(()) };
    let found = match opened {
        Opened::Main => Role::Main,
        Opened::Channel(initial) => Role::Channel(initial.channel),
        Opened::Nothing => return Ok(()),
    };
    if role == found { Ok(()) } else { Err(Refusal::OtherRole { role, found }) }
}

#[cfg(test)]
mod tests {
    use multifd_core::wire::{InitialPacket, Uuid};

    use super::*;
    use crate::transport::MigrationId;

    #[test]
    fn a_connection_is_what_it_has_proven_or_has_proven_nothing() {
        let proven = |role| Some(Introduction { migration: MigrationId([1; 16]), role });
        let channel = |channel| {
            Opened::Channel(InitialPacket { uuid: Uuid([1; 16]), channel, digests: false })
        };
        for (introduction, opened, fits) in [
            (None, Opened::Main, true),
            (None, channel(0), true),
            (proven(Role::Main), Opened::Main, true),
            (proven(Role::Channel(3)), channel(3), true),
            (proven(Role::Main), channel(0), false),
            (proven(Role::Channel(0)), Opened::Main, false),
            (proven(Role::Channel(3)), channel(2), false),
            // That it has said nothing is looked at elsewhere.
            (proven(Role::Main), Opened::Nothing, true),
        ] {
            assert_eq!(agree(introduction, &opened).is_ok(), fits, "{introduction:?} {opened:?}");
        }
    }
}
