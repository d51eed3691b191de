//! How a server is set up.

use std::sync::Arc;
use std::time::Duration;

use super::Server;
use super::front::Front;
use crate::engine::admission::Admission;
use crate::engine::session::Terms;
use crate::engine::threads::Threads;
use crate::error::Error;
use crate::transport::{Listener, Network, Secure, Uri};

/// How a server is set up: what is asked of connections before they are of a migration.
#[derive(Clone, Debug)]
pub struct ServerBuilder {
    pub(super) admission: Admission,
    pub(super) secure: Option<Arc<dyn Secure>>,
    pub(super) most_migrations: usize,
    pub(super) terms: Terms,
}

impl ServerBuilder {
    /// A server of up to 16 migrations at once, for anybody.
    pub fn new() -> Self {
        let terms = Terms { progress_timeout: None, ..Terms::default() };
        let admission = Admission::default();
        Self { admission, secure: None, most_migrations: 16, terms }
    }

    /// How many migrations there may be at once, 1 at least; 16 unless said otherwise. A source that comes when
    /// there are as many is told so, where it listens. One counts until it is dropped, as a
    /// [`Newcomer`](super::Newcomer), a [`Relay`](crate::relay::Relay), a
    /// [`Destination`](crate::Destination) or [`Arrived`](crate::Arrived).
    #[must_use]
    pub fn most_migrations(self, most: usize) -> Self {
        Self { most_migrations: most, ..self }
    }

    /// How long a connection has, in total, to say what it is. A main channel then has twice that and 2 s,
    /// from when it came, for its first channel to be there, and a channel for its main channel. 10 s unless said
    /// otherwise.
    #[must_use]
    pub fn channel_timeout(mut self, limit: Duration) -> Self {
        self.admission.timeout = limit;
        self
    }

    /// Takes TCP connections from these networks alone: see
    /// [`RelayBuilder::allow_from`](crate::relay::RelayBuilder::allow_from).
    #[must_use]
    pub fn allow_from(mut self, networks: impl IntoIterator<Item = Network>) -> Self {
        self.admission.allow_from = networks.into_iter().collect();
        self
    }

    /// How many connections that are of no migration yet may wait at once: when one more comes, the oldest that
    /// has said nothing gives way. Each takes a descriptor and a thread. 256 unless said otherwise, 1 at least.
    #[must_use]
    pub fn waiting_connections(mut self, most: usize) -> Self {
        self.admission.most_waiting = most;
        self
    }

    /// Has all connections encrypted. One that cannot be is logged and dropped.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls(self, tls: crate::tls::ServerTls) -> Self {
        Self { secure: Some(Arc::new(tls)), ..self }
    }

    /// Takes in connections that prove of which migration they are, and that the source has the same token.
    /// One that does not is logged and dropped.
    #[cfg(feature = "token")]
    #[must_use]
    pub fn token(mut self, token: crate::token::Token) -> Self {
        self.admission.token = Some(Arc::new(token));
        self
    }

    /// How the server's own threads are named and what they do first: one that accepts, one that watches the time,
    /// and one for each connection that waits. Those of migrations have their own.
    #[must_use]
    pub fn threads(mut self, threads: Threads) -> Self {
        self.terms.threads = threads;
        self
    }

    /// Listens on `uri`.
    ///
    /// # Errors
    /// An address that cannot be listened on.
    pub fn listen(self, uri: &Uri) -> Result<Server, Error> {
        self.listen_on([Listener::bind(uri)?])
    }

    /// Takes connections from `listeners`, which may be inherited.
    ///
    /// # Errors
    /// Where the system refuses a thread.
    pub fn listen_on(self, listeners: impl IntoIterator<Item = Listener>) -> Result<Server, Error> {
        let listeners: Vec<_> = listeners.into_iter().collect();
        let uris = listeners.iter().map(|listener| listener.uri().clone()).collect();
        let front = Front::open(&self, listeners.into_iter().reduce(Listener::and))?;
        Ok(Server { front, uris })
    }
}

impl Default for ServerBuilder {
    fn default() -> Self {
        Self::new()
    }
}
