//! A whole packet's payload at once.

use std::fmt::{self, Debug};
use std::marker::PhantomData;

use async_trait::async_trait;

use crate::compression::{Compression, MAX_PAYLOAD};
use crate::error::Error;
use crate::io::ChannelReader;
use crate::method::{ChannelConfig, MethodStats, MultiFdMethods, RecvMethod, SendMethod};
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
            scratch: vec![0; SCRATCH_BYTES].into(),
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
        let mut writer = PageWriter::new(pages, &mut self.scratch);
        C::decode(&mut self.decoder, payload, &mut writer)?;
        match writer.remaining() {
            0 => Ok(()),
            left => Err(Error::payload(format!("{left} bytes of the packet's pages are missing"))),
        }
    }

    async fn recv_cleanup(self: Box<Self>) -> Result<MethodStats, Error> {
        Ok(MethodStats::new())
    }
}

/// What a decoder writes a packet's pages to: ordinary memory, from which whole pages move on
/// into guest memory. A decoder never sees guest memory, since it may read back what it wrote.
#[derive(Debug)]
pub struct PageWriter<'a> {
    pages: GuestPages<'a>,
    scratch: &'a mut [u8],
    /// Pages already in guest memory.
    written: usize,
    /// Bytes in `scratch` that are not.
    filled: usize,
}

/// Bytes that a decoder is offered at once: small enough to stay in a core's first cache, a whole
/// number of pages of any size but the largest, which it holds once.
const SCRATCH_BYTES: usize = 64 << 10;

impl<'a> PageWriter<'a> {
    /// A writer of `pages` by way of `scratch`.
    fn new(pages: GuestPages<'a>, scratch: &'a mut [u8]) -> Self {
        Self { pages, scratch, written: 0, filled: 0 }
    }

    /// Bytes still to be written.
    pub fn remaining(&self) -> usize {
        self.pages.bytes() - self.written * self.pages.page_size().bytes() - self.filled
    }

    /// Where the next bytes go: empty only when nothing [remains](Self::remaining). Write there,
    /// then [`advance`](Self::advance).
    pub fn spare(&mut self) -> &mut [u8] {
        let end = self.scratch.len().min(self.filled + self.remaining());
        &mut self.scratch[self.filled..end]
    }

    /// Takes the first `count` bytes of [`spare`](Self::spare) as written.
    ///
    /// # Panics
    /// With more bytes than that.
    pub fn advance(&mut self, count: usize) {
        assert!(count <= self.spare().len(), "more bytes than there was space for");
        self.filled += count;
        if self.filled == self.scratch.len() || self.remaining() == 0 {
            for page in self.scratch[..self.filled].chunks_exact(self.pages.page_size().bytes()) {
                self.pages.write(self.written, page);
                self.written += 1;
            }
            self.filled = 0;
        }
    }
}
