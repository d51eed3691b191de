//! Many migrations at one address, one after another and at once.
//!
//! ```text
//! ServerBuilder::listen → next → Newcomer → RelayBuilder::serve → run
//!                          ↑              → DestinationBuilder::serve → receive → …
//!                          └── again, also while others run
//! ```
//!
//! A [`Server`] accepts connections, has them encrypted and prove what they are where that is asked for, and
//! finds out which are of one migration. A migration begins when its main channel and its first multifd channel
//! are there: then its VM's UUID is known, and [`Server::next`] returns it as a [`Newcomer`]. The channels
//! that follow find their way by themselves.
//!
//! # Which connection is of which migration
//!
//! With a [token](crate::token) each connection proves it. Without one, QEMU's main channel does not say
//! which VM it has; its multifd channels say the VM's UUID. So, of connections from one host (all Unix sockets
//! are one host, and so is vsock), a channel is of the migration that has its UUID and lacks channels, or else of
//! the main channel that came before it and has no channel yet; of several by a Unix socket, that of the same
//! process. Where there are two of these, because two
//! migrations from one host began within the same moment, nobody can tell, and both are refused: their guests go
//! on at their sources, and the next attempt succeeds. A channel is not taken in while a connection that came before
//! it from the same host has not said what it is, [`channel_timeout`](ServerBuilder::channel_timeout) at
//! most: it might be another main channel. So without a token and without TLS, whoever connects from a source's
//! own host and says nothing holds that source up for so long.

mod builder;
mod front;
mod newcomer;
mod switchboard;

use std::sync::Arc;

pub use builder::ServerBuilder;
pub use newcomer::Newcomer;
pub(crate) use newcomer::Place;

use crate::engine::cancel::CancelToken;
use crate::engine::session::Waiter;
use crate::error::Error;
use crate::transport::Uri;
use front::Front;

/// Takes in the connections of many migrations.
///
/// Dropping it closes the connections that are of no migration yet, and no more are accepted. Migrations that have
/// been taken go on, without the channels that they lack.
#[derive(Debug)]
pub struct Server {
    front: Arc<Front>,
    uris: Vec<Uri>,
}

impl Server {
    /// A server, to be set up: see [`ServerBuilder`].
    pub fn builder() -> ServerBuilder {
        ServerBuilder::new()
    }

    /// Where it listens, with the ports that were picked where port 0 was asked for.
    pub fn uris(&self) -> &[Uri] {
        &self.uris
    }

    /// Waits for the next migration, for any time.
    ///
    /// # Errors
    /// [`Error::Cancelled`], and where no connection can be accepted any more.
    pub fn next(&self) -> Result<Newcomer, Error> {
        let session = &self.front.door.session;
        let next = session
            .wait_patiently(Waiter::Main, "a migration", |state| state.newcomers.pop_front());
        let next = next.map_err(|_| session.reason())?;
        Ok(Newcomer::new(&self.front, next))
    }

    /// Has no more migrations begin: sources are told so, where they listen. Those that have begun get the
    /// channels that they lack, and [`next`](Self::next) returns those that it has not returned yet.
    pub fn stop_taking(&self) {
        self.front.stop_taking();
    }

    /// How many connections have been refused by reason: by the server and by the migrations that it has given
    /// out. A reason without any is not there.
    pub fn refusals(&self) -> impl Fn() -> Vec<(&'static str, u64)> + Send + Sync + 'static {
        let refusals = self.front.door.admission.refusals.clone();
        move || refusals.so_far()
    }

    /// Says, without waiting, whether connections are accepted, to whoever asks from any thread.
    pub fn is_open(&self) -> impl Fn() -> bool + Send + Sync + 'static {
        let session = Arc::clone(&self.front.door.session);
        move || session.check().is_ok()
    }

    /// The means to have [`next`](Self::next) end, from another thread. The migrations that have been taken have
    /// tokens of their own.
    pub fn cancel_token(&self) -> CancelToken {
        self.front.door.session.cancel_token()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.front.end();
    }
}
