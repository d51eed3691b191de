//! How a destination is set up.

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use multifd_core::ram::Ram;
use multifd_core::wire::Uuid;
use multifd_core::{PageSize, Registry};

use super::{Arrived, Destination, Incoming};
use crate::codecs::Codec;
use crate::error::Error;
use crate::stream::Limits;
use crate::transport::Uri;

/// How a destination is set up. Both sides must agree on compression, channels and UUID.
#[derive(Clone, Debug)]
pub struct DestinationBuilder<'a> {
    pub(super) registry: &'a Registry,
    pub(super) codec: Codec,
    pub(super) channels: u8,
    pub(super) uuid: Option<Uuid>,
    pub(super) channel_timeout: Duration,
    pub(super) limits: Limits,
}

impl<'a> DestinationBuilder<'a> {
    /// A destination with no compression and 2 channels, for any VM.
    pub fn new(registry: &'a Registry) -> Self {
        Self {
            registry,
            codec: Codec::default(),
            channels: 2,
            uuid: None,
            channel_timeout: Duration::from_secs(10),
            limits: Limits::default(),
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

    /// How long to wait, after the main channel has announced the RAM, for all channels to
    /// connect, and how long a new connection has to say what it is. 10 s unless said otherwise.
    #[must_use]
    pub fn channel_timeout(self, limit: Duration) -> Self {
        Self { channel_timeout: limit, ..self }
    }

    /// The most bytes of device state. 256 MiB unless said otherwise.
    #[must_use]
    pub fn device_state_limit(mut self, bytes: usize) -> Self {
        self.limits.device_state = bytes;
        self
    }

    /// The most bytes of state that devices send before the pages. 64 MiB unless said otherwise.
    #[must_use]
    pub fn early_state_limit(mut self, bytes: usize) -> Self {
        self.limits.early_state = bytes;
        self
    }

    /// Listens on `uri`.
    ///
    /// # Errors
    /// A codec that is not registered or not available; an address that cannot be listened on.
    pub fn listen(self, uri: &Uri) -> Result<Destination, Error> {
        Destination::listen(&self, uri)
    }

    /// Takes a migration in from streams that are already there, such as files: the main channel,
    /// and the multifd channels, each from its initial packet on, in any order.
    /// `provide` gives the RAM, as for [`Destination::receive`].
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
