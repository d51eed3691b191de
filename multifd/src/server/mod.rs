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
//! are one host but for the process on the other side, where that can be seen, and so is vsock), a channel is of the
//! migration that has its UUID and lacks channels, or else of the main channel that came before it and has no
//! channel yet.
//!
//! Where there are two of these, because a migration began on a host while another one's main channel had no channel yet,
//! nobody can tell, and both are refused: their guests go on at their sources. That is a few round trips long, or
//! for a source that never connects a channel (a QEMU without the capability multifd) up to twice the
//! [`channel_timeout`](ServerBuilder::channel_timeout) and 2 s. A channel is not taken in while a connection that came
//! before it from the same host has not said what it is, for the `channel_timeout` at most, nor for 2 s after a
//! main channel of that host has gone without all its channels. A channel for whose VM there is no main channel ends the
//! migrations of its host that lack channels ([`Error::Indistinct`]).
//!
//! VMs without a UUID are told apart only where one has all its channels, at its first sync, before the next begins.

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
/// Dropping it closes the connections that are of no migration yet, and newcomers that have not gone on, and no more are
/// accepted. Migrations that go on do so without the channels that they lack.
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
        let next = next.map_err(|_| {
            let reason = session.reason();
            self.front.end();
            reason
        })?;
        Ok(Newcomer::new(&self.front, next))
    }

    /// Has no more migrations begin: sources are told so, where they listen. Those that have begun get the
    /// channels that they lack, and [`next`](Self::next) returns those that it has not returned yet.
    pub fn stop_taking(&self) {
        self.front.stop_taking();
    }

    /// Migrations that have begun and are not over: those that [`next`](Self::next) is about to return, and those
    /// that have been taken, until what was made of them is dropped.
    pub fn running(&self) -> usize {
        self.front.migrations()
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
