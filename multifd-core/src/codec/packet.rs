//! A whole packet's payload at once.

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;

use super::Payload;
use crate::error::Error;
use crate::method::{ChannelConfig, MultiFdMethods, RecvMethod, SendMethod};
use crate::page_size::PACKET_BYTES;
use crate::ram::{GuestPages, NormalPages};
use crate::registry::{Availability, MethodDescriptor};

/// A codec, with its options, that makes one payload of a packet's pages, with state that lives as
/// long as the channel.
pub trait PacketCodec: Debug + Send + Sync + 'static {
    /// One channel's compressor.
    type Encoder: Send + 'static;

    /// One channel's decompressor.
    type Decoder: Send + 'static;

    /// The codec's name, levels and place on the wire. Always the same.
    fn descriptor(&self) -> MethodDescriptor;

    /// Looks whether the codec can work here with its options, in words a person can act on.
    fn probe(&self) -> Availability;

    /// Sets up a compressor for the level in `config`.
    ///
    /// # Errors
    /// Where the library or device fails.
    fn encoder(&self, config: &ChannelConfig) -> Result<Self::Encoder, Error>;

    /// Sets up a decompressor.
    ///
    /// # Errors
    /// Where the library or device fails.
    fn decoder(&self, config: &ChannelConfig) -> Result<Self::Decoder, Error>;

    /// Appends to `payload` what a receiver needs to restore `pages`, whole pages one behind the
    /// other: 1 byte to 1 MiB.
    ///
    /// # Errors
    /// Where the library or device fails. The channel is over then.
    fn encode(
        &self,
        encoder: &mut Self::Encoder,
        pages: &[u8],
        payload: &mut Payload,
    ) -> Result<(), Error>;

    /// Restores the pages of a packet from its payload: writes exactly
    /// [`PageWriter::remaining`] bytes, from exactly the bytes of `payload`.
    ///
    /// # Errors
    /// Less, more, malformed input, and input left over: [`Error::payload`].
    fn decode(
        &self,
        decoder: &mut Self::Decoder,
        payload: &[u8],
        pages: &mut PageWriter<'_>,
    ) -> Result<(), Error>;
}

/// The [`PacketCodec`] `C` as a method.
#[derive(Debug)]
pub struct PacketMethods<C>(Arc<C>);

impl<C> PacketMethods<C> {
    /// The method of `codec`.
    pub fn new(codec: C) -> Self {
        Self(Arc::new(codec))
    }
}

#[async_trait]
impl<C: PacketCodec> MultiFdMethods for PacketMethods<C> {
    fn descriptor(&self) -> MethodDescriptor {
        self.0.descriptor()
    }

    fn probe(&self) -> Availability {
        self.0.probe()
    }

    async fn send_setup(&self, config: &ChannelConfig) -> Result<Box<dyn SendMethod>, Error> {
        let encoder = self.0.encoder(config)?;
        Ok(Box::new(Sender { codec: Arc::clone(&self.0), encoder }))
    }

    async fn recv_setup(&self, config: &ChannelConfig) -> Result<Box<dyn RecvMethod>, Error> {
        Ok(Box::new(Receiver {
            decoder: self.0.decoder(config)?,
            codec: Arc::clone(&self.0),
            config: *config,
            scratch: vec![0; PACKET_BYTES].into(),
        }))
    }
}

struct Sender<C: PacketCodec> {
    codec: Arc<C>,
    encoder: C::Encoder,
}

#[async_trait]
impl<C: PacketCodec> SendMethod for Sender<C> {
    async fn send_prepare(
        &mut self,
        pages: &NormalPages<'_>,
        payload: &mut Payload,
    ) -> Result<(), Error> {
        self.codec.encode(&mut self.encoder, pages.private(), payload)
    }

    async fn send_cleanup(self: Box<Self>) -> Result<(), Error> {
        Ok(())
    }
}

struct Receiver<C: PacketCodec> {
    codec: Arc<C>,
    decoder: C::Decoder,
    config: ChannelConfig,
    /// The pages of a whole packet: a codec is fastest where it gets all of the space at once.
    scratch: Box<[u8]>,
}

#[async_trait]
impl<C: PacketCodec> RecvMethod for Receiver<C> {
    async fn recv(&mut self, payload: &[u8], pages: GuestPages<'_>) -> Result<(), Error> {
        let scratch = &mut self.scratch[..pages.bytes()];
        self.config.fill_scratch(scratch);
        let mut writer = PageWriter { scratch, filled: 0 };
        self.codec.decode(&mut self.decoder, payload, &mut writer)?;
        let missing = writer.remaining();
        if missing > 0 {
            let what = format!("{missing} bytes of the packet's pages are missing");
            return Err(Error::payload(what));
        }
        for (index, page) in scratch.chunks_exact(pages.page_size().bytes()).enumerate() {
            pages.write(index, page);
        }
        Ok(())
    }

    async fn recv_cleanup(self: Box<Self>) -> Result<(), Error> {
        Ok(())
    }
}

/// What a decoder writes a packet's pages to: ordinary memory, from which they move on into guest
/// memory when all of them are there. A decoder never sees guest memory, since it may read back
/// what it wrote; and a payload that cannot be decoded changes nothing.
#[derive(Debug)]
pub struct PageWriter<'a> {
    /// As long as the pages.
    scratch: &'a mut [u8],
    filled: usize,
}

impl PageWriter<'_> {
    /// Bytes still to be written.
    pub fn remaining(&self) -> usize {
        self.scratch.len() - self.filled
    }

    /// Where the next bytes go: as many as [remain](Self::remaining). Write there, then
    /// [`advance`](Self::advance).
    pub fn spare(&mut self) -> &mut [u8] {
        &mut self.scratch[self.filled..]
    }

    /// Takes the first `count` bytes of [`spare`](Self::spare) as written.
    ///
    /// # Panics
    /// With more bytes than that.
    pub fn advance(&mut self, count: usize) {
        assert!(count <= self.remaining(), "more bytes than there was space for");
        self.filled += count;
    }
}
