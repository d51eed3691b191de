//! Page by page, in QPL's payload format: n lengths, then n chunks (section 6).

use std::fmt::{self, Debug};
use std::marker::PhantomData;

use async_trait::async_trait;

use super::chunks::{Chunk, ChunkWriter, Chunks};
use crate::compression::{Compression, MAX_PAYLOAD};
use crate::error::Error;
use crate::io::ChannelReader;
use crate::method::{ChannelConfig, MethodStats, MultiFdMethods, RecvMethod, SendMethod};
use crate::payload::Payload;
use crate::ram::{GuestPages, NormalPages};
use crate::wire::RamPacket;

/// A codec whose pages stand alone. The payload of a packet with n pages is n lengths (u32,
/// big-endian), then n chunks: a chunk as long as a page is the page itself, a shorter one is
/// compressed. The adapter writes and checks the lengths.
pub trait PageCodec: 'static {
    /// The value of the compression field that the packets carry.
    const COMPRESSION: Compression;

    /// One channel's compressor.
    type Compressor: Send + 'static;

    /// One channel's decompressor.
    type Decompressor: Send + 'static;

    /// Sets up a compressor for the level in `config`.
    ///
    /// # Errors
    /// Where the library or device fails.
    fn compressor(config: &ChannelConfig) -> Result<Self::Compressor, Error>;

    /// Sets up a decompressor.
    ///
    /// # Errors
    /// Where the library or device fails.
    fn decompressor(config: &ChannelConfig) -> Result<Self::Decompressor, Error>;

    /// Compresses `page` into `chunk`, which is one byte shorter than the page. Returns the bytes
    /// written, at least 1, or `None` where the page does not get shorter: it is sent as it is.
    ///
    /// # Errors
    /// Where the library or device fails in a way that ends the channel.
    fn compress(
        compressor: &mut Self::Compressor,
        page: &[u8],
        chunk: &mut [u8],
    ) -> Result<Option<usize>, Error>;

    /// Restores `page` from `chunk`, which is shorter.
    ///
    /// # Errors
    /// A chunk that does not give exactly the page, or has bytes left over:
    /// [`Error::payload`].
    fn decompress(
        decompressor: &mut Self::Decompressor,
        chunk: &[u8],
        page: &mut [u8],
    ) -> Result<(), Error>;
}

/// The method table of the [`PageCodec`] `C`.
pub struct PageMethods<C>(PhantomData<fn() -> C>);

impl<C> PageMethods<C> {
    /// The method table.
    pub const fn new() -> Self {
        Self(PhantomData)
    }
}

impl<C> Default for PageMethods<C> {
    fn default() -> Self {
        Self::new()
    }
}

impl<C: PageCodec> Debug for PageMethods<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PageMethods({})", C::COMPRESSION)
    }
}

#[async_trait]
impl<C: PageCodec> MultiFdMethods for PageMethods<C> {
    fn compression(&self) -> Compression {
        C::COMPRESSION
    }

    async fn send_setup(&self, config: &ChannelConfig) -> Result<Box<dyn SendMethod>, Error> {
        Ok(Box::new(Sender::<C> { compressor: C::compressor(config)?, raw_pages: 0 }))
    }

    async fn recv_setup(&self, config: &ChannelConfig) -> Result<Box<dyn RecvMethod>, Error> {
        Ok(Box::new(Receiver::<C> {
            decompressor: C::decompressor(config)?,
            payload: vec![0; MAX_PAYLOAD].into(),
            page: vec![0; config.page_size.bytes()].into(),
            raw_pages: 0,
        }))
    }
}

/// The name of the only thing that both sides count: pages sent as they are.
const RAW_PAGES: &str = "raw pages";

struct Sender<C: PageCodec> {
    compressor: C::Compressor,
    raw_pages: u64,
}

#[async_trait]
impl<C: PageCodec> SendMethod for Sender<C> {
    async fn send_prepare(
        &mut self,
        pages: &NormalPages<'_>,
        payload: &mut Payload,
    ) -> Result<(), Error> {
        let mut chunks = ChunkWriter::new(payload, pages);
        let page_bytes = pages.page_size().bytes();
        for (index, page) in pages.private().chunks_exact(page_bytes).enumerate() {
            let compressed = C::compress(&mut self.compressor, page, chunks.spare())
                .map_err(|error| error.at_page(index))?;
            match compressed {
                Some(count) => chunks.advance(count),
                None => {
                    chunks.push_raw();
                    self.raw_pages += 1;
                }
            }
        }
        Ok(())
    }

    async fn send_cleanup(self: Box<Self>) -> Result<MethodStats, Error> {
        Ok([(RAW_PAGES, self.raw_pages)].into())
    }
}

struct Receiver<C: PageCodec> {
    decompressor: C::Decompressor,
    payload: Box<[u8]>,
    page: Box<[u8]>,
    raw_pages: u64,
}

#[async_trait]
impl<C: PageCodec> RecvMethod for Receiver<C> {
    async fn recv(
        &mut self,
        packet: &RamPacket<'_>,
        reader: &mut dyn ChannelReader,
        pages: GuestPages<'_>,
    ) -> Result<(), Error> {
        let payload = &mut self.payload[..packet.payload_bytes];
        reader.read_exact(payload).await.map_err(Error::reading)?;
        let chunks = Chunks::parse(payload, pages.len(), pages.page_size())?;
        for (index, chunk) in chunks.enumerate() {
            match chunk {
                Chunk::Raw(page) => {
                    pages.write(index, page);
                    self.raw_pages += 1;
                }
                Chunk::Compressed(chunk) => {
                    C::decompress(&mut self.decompressor, chunk, &mut self.page)
                        .map_err(|error| error.at_page(index))?;
                    pages.write(index, &self.page);
                }
            }
        }
        Ok(())
    }

    async fn recv_cleanup(self: Box<Self>) -> Result<MethodStats, Error> {
        Ok([(RAW_PAGES, self.raw_pages)].into())
    }
}
