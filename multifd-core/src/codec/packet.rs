//! A whole packet's payload at once.

use std::fmt::{self, Debug};
use std::marker::PhantomData;

use async_trait::async_trait;

use crate::compression::{Compression, MAX_PAYLOAD};
use crate::error::Error;
use crate::io::ChannelReader;
use crate::method::{ChannelConfig, MethodStats, MultiFdMethods, RecvMethod, SendMethod};
use crate::page_size::PACKET_BYTES;
use crate::payload::Payload;
use crate::ram::{GuestPages, NormalPages};
use crate::wire::RamPacket;

/// A codec that makes one payload of a packet's pages, with state that lives as long as the
/// channel.
pub trait PacketCodec: 'static {
    /// The value of the compression field that the packets carry.
    const COMPRESSION: Compression;

    /// One channel's compressor.
    type Encoder: Send + 'static;

    /// One channel's decompressor.
    type Decoder: Send + 'static;

    /// Sets up a compressor for the level in `config`.
    ///
    /// # Errors
    /// Where the library or device fails.
    fn encoder(config: &ChannelConfig) -> Result<Self::Encoder, Error>;

    /// Sets up a decompressor.
    ///
    /// # Errors
    /// Where the library or device fails.
    fn decoder(config: &ChannelConfig) -> Result<Self::Decoder, Error>;

    /// Appends to `payload` what a receiver needs to restore `pages`, whole pages one behind the
    /// other: 1 byte to 1 MiB.
    ///
    /// # Errors
    /// Where the library or device fails. The channel is over then.
    fn encode(
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
        decoder: &mut Self::Decoder,
        payload: &[u8],
        pages: &mut PageWriter<'_>,
    ) -> Result<(), Error>;
}

/// The method table of the [`PacketCodec`] `C`.
pub struct PacketMethods<C>(PhantomData<fn() -> C>);

impl<C> PacketMethods<C> {
    /// The method table.
    pub const fn new() -> Self {
        Self(PhantomData)
    }
}

impl<C> Default for PacketMethods<C> {
    fn default() -> Self {
        Self::new()
    }
}

impl<C: PacketCodec> Debug for PacketMethods<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PacketMethods({})", C::COMPRESSION)
    }
}

#[async_trait]
impl<C: PacketCodec> MultiFdMethods for PacketMethods<C> {
    fn compression(&self) -> Compression {
        C::COMPRESSION
    }

    async fn send_setup(&self, config: &ChannelConfig) -> Result<Box<dyn SendMethod>, Error> {
        Ok(Box::new(Sender::<C> { encoder: C::encoder(config)? }))
    }

    async fn recv_setup(&self, config: &ChannelConfig) -> Result<Box<dyn RecvMethod>, Error> {
        Ok(Box::new(Receiver::<C> {
            decoder: C::decoder(config)?,
            payload: vec![0; MAX_PAYLOAD].into(),
            scratch: vec![0; PACKET_BYTES].into(),
        }))
    }
}

struct Sender<C: PacketCodec> {
    encoder: C::Encoder,
}

#[async_trait]
impl<C: PacketCodec> SendMethod for Sender<C> {
    async fn send_prepare(
        &mut self,
        pages: &NormalPages<'_>,
        payload: &mut Payload,
    ) -> Result<(), Error> {
        C::encode(&mut self.encoder, pages.private(), payload)
    }

    async fn send_cleanup(self: Box<Self>) -> Result<MethodStats, Error> {
        Ok(MethodStats::new())
    }
}

struct Receiver<C: PacketCodec> {
    decoder: C::Decoder,
    payload: Box<[u8]>,
    /// The pages of a whole packet: a codec is fastest where it gets all of the space at once.
    scratch: Box<[u8]>,
}

#[async_trait]
impl<C: PacketCodec> RecvMethod for Receiver<C> {
    async fn recv(
        &mut self,
        packet: &RamPacket<'_>,
        reader: &mut dyn ChannelReader,
        pages: GuestPages<'_>,
    ) -> Result<(), Error> {
        let payload = &mut self.payload[..packet.payload_bytes];
        reader.read_exact(payload).await.map_err(Error::reading)?;
        let scratch = &mut self.scratch[..pages.bytes()];
        let mut writer = PageWriter { scratch, filled: 0 };
        C::decode(&mut self.decoder, payload, &mut writer)?;
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

    async fn recv_cleanup(self: Box<Self>) -> Result<MethodStats, Error> {
        Ok(MethodStats::new())
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
