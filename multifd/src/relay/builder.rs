//! How a relay is set up.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use multifd_core::wire::Uuid;
use multifd_core::{PageSize, Registry};

use super::{Relay, Tap};
use crate::codecs::Codec;
use crate::engine::admission::Admission;
use crate::engine::cancel::CancelToken;
use crate::engine::outgoing::Outgoing;
use crate::engine::session::Terms;
use crate::engine::threads::Threads;
use crate::error::Error;
use crate::server::Newcomer;
use crate::transport::{Introduce, Listener, Network, Secure, Uri};

/// How a relay is set up. Each side's compression and channels must be what the peer there has.
#[derive(Clone, Debug)]
pub struct RelayBuilder<'a> {
    pub(super) registry: &'a Registry,
    pub(super) from_codec: Codec,
    pub(super) to_codec: Codec,
    pub(super) to_level: Option<i32>,
    pub(super) from_channels: u8,
    pub(super) to_channels: u8,
    pub(super) page_size: Option<PageSize>,
    pub(super) uuid: Option<Uuid>,
    pub(super) admission: Admission,
    pub(super) connect_timeout: Duration,
    pub(super) max_bandwidth: Option<NonZeroU64>,
    pub(super) tap: Option<Arc<dyn Tap>>,
    pub(super) terms: Terms,
    pub(super) from_secure: Option<Arc<dyn Secure>>,
    to_secure: Option<Arc<dyn Secure>>,
    to_token: Option<Arc<dyn Introduce>>,
}

impl<'a> RelayBuilder<'a> {
    /// A relay between two sides without compression and with 2 channels each.
    pub fn new(registry: &'a Registry) -> Self {
        Self {
            registry,
            from_codec: Codec::default(),
            to_codec: Codec::default(),
            to_level: None,
            from_channels: 2,
            to_channels: 2,
            page_size: None,
            uuid: None,
            admission: Admission::default(),
            connect_timeout: Duration::from_secs(10),
            max_bandwidth: None,
            tap: None,
            terms: Terms::default(),
            from_secure: None,
            to_secure: None,
            to_token: None,
        }
    }

    /// The source compresses with a [`Compression`](multifd_core::Compression), which the registry
    /// must hold, or with a codec value.
    #[must_use]
    pub fn from_compression(self, codec: impl Into<Codec>) -> Self {
        Self { from_codec: codec.into(), ..self }
    }

    /// The destination expects packets of a [`Compression`](multifd_core::Compression), which the
    /// registry must hold, or of a codec value.
    #[must_use]
    pub fn to_compression(self, codec: impl Into<Codec>) -> Self {
        Self { to_codec: codec.into(), ..self }
    }

    /// Compresses at `level`; `None` is the codec's default.
    #[must_use]
    pub fn to_level(self, level: Option<i32>) -> Self {
        Self { to_level: level, ..self }
    }

    /// The source has `channels` channels, 1 to 255.
    #[must_use]
    pub fn from_channels(self, channels: u8) -> Self {
        Self { from_channels: channels, ..self }
    }

    /// The destination expects `channels` channels, 1 to 255.
    #[must_use]
    pub fn to_channels(self, channels: u8) -> Self {
        Self { to_channels: channels, ..self }
    }

    /// Expects pages of this size; without, the source says, or it is 4 KiB.
    #[must_use]
    pub fn page_size(self, page_size: PageSize) -> Self {
        Self { page_size: Some(page_size), ..self }
    }

    /// How long a connection has, in total, to say what it is; how long after the first channel the
    /// source's main channel may come; how long to wait for its channels to connect once that is
    /// there; and how long connections may stay open when the migration is over. 10 s unless said
    /// otherwise.
    #[must_use]
    pub fn channel_timeout(mut self, limit: Duration) -> Self {
        self.admission.timeout = limit;
        self
    }

    /// Takes TCP connections from these networks alone; others are refused. From anywhere, as at first,
    /// where there is none. It says nothing of a Unix socket, which its file's permissions protect, of
    /// vsock, on which only this machine and its guests are, and of connections that are handed in.
    #[must_use]
    pub fn allow_from(mut self, networks: impl IntoIterator<Item = Network>) -> Self {
        self.admission.allow_from = networks.into_iter().collect();
        self
    }

    /// How many connections may wait at once for what they are to be known, beside as many as there are
    /// channels: when one more comes, the oldest that has said nothing gives way. Each takes a
    /// descriptor and a thread. 256 unless said otherwise, 1 at least.
    #[must_use]
    pub fn waiting_connections(mut self, most: usize) -> Self {
        self.admission.most_waiting = most;
        self
    }

    /// How long each connection to the destination may take to be made. 10 s unless said
    /// otherwise.
    #[must_use]
    pub fn connect_timeout(self, limit: Duration) -> Self {
        Self { connect_timeout: limit, ..self }
    }

    /// The most that is sent to the destination, in bytes a second as they are on the wire, over all
    /// channels and the main channel together; `None`, as at first, for no limit. After a pause 10 ms
    /// of it may go out at once; a packet goes out whole.
    #[must_use]
    pub fn max_bandwidth(self, limit: Option<NonZeroU64>) -> Self {
        Self { max_bandwidth: limit, ..self }
    }

    /// Has `tap` see every byte of both sides.
    #[must_use]
    pub fn tap(self, tap: Arc<dyn Tap>) -> Self {
        Self { tap: Some(tap), ..self }
    }

    /// How long the other sides may be waited for while no byte moves on any connection: 2 minutes
    /// unless said otherwise, any time with `None`. It counts from when the source's main channel is
    /// there until everything has been passed on: the destination may take its time to confirm.
    #[must_use]
    pub fn progress_timeout(mut self, limit: Option<Duration>) -> Self {
        self.terms.progress_timeout = limit;
        self
    }

    /// How long the migration may take, from when the source's main channel is there; any time with
    /// `None`, as at first.
    #[must_use]
    pub fn time_limit(mut self, limit: Option<Duration>) -> Self {
        self.terms.time_limit = limit;
        self
    }

    /// How the migration's threads are named and what they do first.
    #[must_use]
    pub fn threads(mut self, threads: Threads) -> Self {
        self.terms.threads = threads;
        self
    }

    /// Has `token` cancel the migration.
    #[must_use]
    pub fn cancelled_by(mut self, token: &CancelToken) -> Self {
        self.terms.cancelled_by = Some(token.clone());
        self
    }

    /// Has all connections from the source encrypted, also those that the program hands in, which must be
    /// sockets then. One that cannot be encrypted is logged and dropped.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn from_tls(self, tls: crate::tls::ServerTls) -> Self {
        Self { from_secure: Some(Arc::new(tls)), ..self }
    }

    /// Has all connections to the destination encrypted, also those that are there already, which must
    /// be sockets then.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn to_tls(self, tls: crate::tls::ClientTls) -> Self {
        Self { to_secure: Some(Arc::new(tls)), ..self }
    }

    /// Takes connections from the source in that prove that they are of one migration, and that the source has
    /// the same token. One that does not is logged and dropped.
    #[cfg(feature = "token")]
    #[must_use]
    pub fn from_token(mut self, token: crate::token::Token) -> Self {
        self.admission.token = Some(Arc::new(token));
        self
    }

    /// Has all connections to the destination prove that they are of this migration, and the destination
    /// that it has the same token. It may be another one than the source's.
    #[cfg(feature = "token")]
    #[must_use]
    pub fn to_token(self, token: crate::token::Token) -> Self {
        Self { to_token: Some(Arc::new(token)), ..self }
    }

    /// Listens on `listen` for a source, to relay it to `to`. Nobody connects to `to` yet.
    ///
    /// # Errors
    /// A codec that is not registered or not available, a level it does not have, no channels, an
    /// address that cannot be listened on.
    pub fn listen(self, listen: &Uri, to: &Uri) -> Result<Relay, Error> {
        self.build(to.into(), || Listener::bind(listen).map(Some))
    }

    /// As [`listen`](Self::listen), with connections from `listener`, which may be inherited, and to
    /// an address or over connections that are there already: their number is then that of the
    /// channels to the destination.
    ///
    /// # Errors
    /// As [`listen`](Self::listen).
    pub fn listen_on(self, listener: Listener, to: impl Into<Outgoing>) -> Result<Relay, Error> {
        self.build(to.into(), || Ok(Some(listener)))
    }

    /// As [`listen_on`](Self::listen_on), but listens nowhere: the program hands the source's
    /// connections in at the relay's [`entrance`](Relay::entrance).
    ///
    /// # Errors
    /// As [`listen`](Self::listen).
    pub fn without_listener(self, to: impl Into<Outgoing>) -> Result<Relay, Error> {
        self.build(to.into(), || Ok(None))
    }

    /// Relays a migration that has begun at a [`Server`](crate::server::Server), which has its connections
    /// encrypted and known: what was said here of these does not count.
    ///
    /// # Errors
    /// As [`listen`](Self::listen), and [`Error::Over`] where the source has gone by now. The source is told
    /// where it listens.
    pub fn serve(mut self, newcomer: Newcomer, to: impl Into<Outgoing>) -> Result<Relay, Error> {
        self.admission = newcomer.admission(&self.admission);
        (self.from_secure, self.uuid) = (None, Some(newcomer.uuid()));
        let channels = self.from_channels;
        let mut relay = self.build(to.into(), || Ok(None))?;
        relay.place = Some(newcomer.take()?.enter(relay.entrance(), channels)?);
        Ok(relay)
    }

    fn build(
        self,
        to: Outgoing,
        listener: impl FnOnce() -> Result<Option<Listener>, Error>,
    ) -> Result<Relay, Error> {
        let to = to.secured_by(self.to_secure.clone()).known_by(self.to_token.clone())?;
        Relay::build(&self, to, listener)
    }
}
