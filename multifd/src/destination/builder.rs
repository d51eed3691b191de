//! How a destination is set up.

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use multifd_core::ram::Ram;
use multifd_core::wire::Uuid;
use multifd_core::{PageSize, PeerError, Registry};

use super::{Arrived, Destination, Incoming};
use crate::codecs::Codec;
use crate::engine::admission::Admission;
use crate::engine::cancel::CancelToken;
use crate::engine::session::Terms;
use crate::engine::threads::Threads;
use crate::error::Error;
use crate::server::Newcomer;
use crate::stream::Limits;
use crate::transport::{Listener, Network, Secure, Uri};

/// How a destination is set up. Both sides must agree on compression, channels and UUID.
#[derive(Clone, Debug)]
pub struct DestinationBuilder<'a> {
    pub(super) registry: &'a Registry,
    pub(super) codec: Codec,
    pub(super) channels: u8,
    pub(super) uuid: Option<Uuid>,
    pub(super) admission: Admission,
    pub(super) limits: Limits,
    pub(super) terms: Terms,
    pub(super) secure: Option<Arc<dyn Secure>>,
}

impl<'a> DestinationBuilder<'a> {
    /// A destination with no compression and 2 channels, for any VM.
    pub fn new(registry: &'a Registry) -> Self {
        Self {
            registry,
            codec: Codec::default(),
            channels: 2,
            uuid: None,
            admission: Admission::default(),
            limits: Limits::default(),
            terms: Terms::default(),
            secure: None,
        }
    }

    /// Expects packets of a [`Compression`](multifd_core::Compression), which the registry must
    /// hold, or of a codec value.
    #[must_use]
    pub fn compression(self, codec: impl Into<Codec>) -> Self {
        Self { codec: codec.into(), ..self }
    }

    /// Expects `channels` channels, 1 to 255.
    #[must_use]
    pub fn channels(self, channels: u8) -> Self {
        Self { channels, ..self }
    }

    /// Expects the VM with this UUID; with `None`, any, the same on all channels.
    #[must_use]
    pub fn uuid(self, uuid: Option<Uuid>) -> Self {
        Self { uuid, ..self }
    }

    /// Expects pages of this size; without, the source says, or it is 4 KiB.
    #[must_use]
    pub fn page_size(mut self, page_size: PageSize) -> Self {
        self.limits.page_size = Some(page_size);
        self
    }

    /// How long a connection has, in total, to say what it is; how long after the first channel the
    /// main channel may come; and how long to wait, after the main channel has announced the RAM, for
    /// all channels to connect. 10 s unless said otherwise.
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

    /// The most bytes of device state. 256 MiB unless said otherwise.
    #[must_use]
    pub fn device_state_limit(mut self, bytes: usize) -> Self {
        self.limits.device_state = bytes;
        self
    }

    /// How long the source may be waited for while no byte moves on any connection: 2 minutes unless
    /// said otherwise, any time with `None`. It counts from when the main channel is there, and not
    /// while the caller does something else, such as to provide the RAM or to store what arrived: the
    /// source's own limit may. It does count while a source holds its guest between two rounds. A
    /// source that has opened a return path and closes its main channel early is waited for no longer
    /// than the [`channel_timeout`](Self::channel_timeout) in any case.
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

    /// The most bytes of state that devices send before the pages. 64 MiB unless said otherwise.
    #[must_use]
    pub fn early_state_limit(mut self, bytes: usize) -> Self {
        self.limits.early_state = bytes;
        self
    }

    /// Has all connections encrypted, also those that the program hands in, which must be sockets then.
    /// The handshake is part of the time that a connection has to say what it is. One that cannot be
    /// encrypted is logged and dropped.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls(self, tls: crate::tls::ServerTls) -> Self {
        Self { secure: Some(Arc::new(tls)), ..self }
    }

    /// Takes connections in that prove, inside of TLS where there is TLS, that they are of one migration and
    /// that their source has the same token. One that does not is logged and dropped, whoever it is: a
    /// QEMU has no token. The proof is part of the time that a connection has to say what it is.
    #[cfg(feature = "token")]
    #[must_use]
    pub fn token(mut self, token: crate::token::Token) -> Self {
        self.admission.token = Some(Arc::new(token));
        self
    }

    /// Listens on `uri`.
    ///
    /// # Errors
    /// A codec that is not registered or not available; an address that cannot be listened on.
    pub fn listen(self, uri: &Uri) -> Result<Destination, Error> {
        Destination::build(&self, || Listener::bind(uri).map(Some))
    }

    /// Takes connections from `listener`, which may be inherited.
    ///
    /// # Errors
    /// A codec that is not registered or not available.
    pub fn listen_on(self, listener: Listener) -> Result<Destination, Error> {
        Destination::build(&self, || Ok(Some(listener)))
    }

    /// Listens nowhere: the program hands connections in at the destination's
    /// [`entrance`](Destination::entrance).
    ///
    /// # Errors
    /// A codec that is not registered or not available.
    pub fn without_listener(self) -> Result<Destination, Error> {
        Destination::build(&self, || Ok(None))
    }

    /// Takes in a migration that has begun at a [`Server`](crate::server::Server), which has its connections
    /// encrypted and known: what was said here of these does not count.
    ///
    /// # Errors
    /// A codec that is not registered or not available, [`Error::Over`] where the source has gone by now, a
    /// [UUID](Self::uuid) that is not the one that is expected. The source is told where it listens.
    pub fn serve(mut self, newcomer: Newcomer) -> Result<Destination, Error> {
        let found = newcomer.uuid();
        if let Some(expected) = self.uuid.filter(|&expected| expected != found) {
            return Err(multifd_core::Error::from(PeerError::Uuid { expected, found }).into());
        }
        self.admission = newcomer.admission(&self.admission);
        (self.secure, self.uuid) = (None, Some(found));
        let mut destination = Destination::build(&self, || Ok(None))?;
        destination.migration.place =
            Some(newcomer.take()?.enter(destination.entrance(), self.channels)?);
        Ok(destination)
    }

    /// Takes a migration in from streams that are already there, such as files: the main channel,
    /// and the multifd channels, each from its initial packet on, in any order.
    /// `provide` gives the RAM, as for [`Destination::receive`]. The streams are taken for what they are: neither
    /// TLS nor a token is asked for.
    ///
    /// # Errors
    /// As [`Destination::receive`]. The number of streams is the number of channels.
    pub fn decode<R>(
        self,
        main: impl Read,
        channels: Vec<R>,
        provide: impl FnOnce(&Incoming<'_>) -> Result<Arc<Ram>, Error>,
    ) -> Result<Arrived, Error>
    where
        R: Read + Send + 'static,
    {
        let count =
            u8::try_from(channels.len()).map_err(|_| Error::ChannelCount(channels.len()))?;
        super::decode(&self.channels(count), main, channels, provide)
    }
}
