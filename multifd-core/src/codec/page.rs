//! Page by page, in QPL's payload format: n lengths, then n chunks (section 6).

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;

use super::Payload;
use super::chunks::{Chunk, ChunkWriter, Chunks};
use crate::counters::MethodCounters;
use crate::error::Error;
use crate::method::{ChannelConfig, MultiFdMethods, RecvMethod, SendMethod};
use crate::ram::{GuestPages, NormalPages};
use crate::registry::{Availability, MethodDescriptor};

/// A codec, with its options, whose pages stand alone. The payload of a packet with n pages is n lengths (u32,
/// big-endian), then n chunks: a chunk as long as a page is the page itself, a shorter one is
/// compressed. The adapter writes and checks the lengths.
pub trait PageCodec: Debug + Send + Sync + 'static {
    /// One channel's compressor.
    type Compressor: Send + 'static;

    /// One channel's decompressor.
    type Decompressor: Send + 'static;

    /// The codec's name, levels and place on the wire. Always the same.
    fn descriptor(&self) -> MethodDescriptor;

    /// Looks whether the codec can work here with its options, in words a person can act on.
    fn probe(&self) -> Availability;

    /// Sets up a compressor for the level in `config`.
    ///
    /// # Errors
    /// Where the library or device fails.
    fn compressor(&self, config: &ChannelConfig) -> Result<Self::Compressor, Error>;

    /// Sets up a decompressor.
    ///
    /// # Errors
    /// Where the library or device fails.
    fn decompressor(&self, config: &ChannelConfig) -> Result<Self::Decompressor, Error>;

    /// Compresses `page` into `chunk`, which is one byte shorter than the page. Returns the bytes
    /// written, at least 1, or `None` where the page does not get shorter: it is sent as it is.
    ///
    /// # Errors
    /// Where the library or device fails in a way that ends the channel.
    fn compress(
        &self,
        compressor: &mut Self::Compressor,
        page: &[u8],
        chunk: &mut [u8],
    ) -> Result<Option<usize>, Error>;

    /// Restores `page` from `chunk`, which is shorter. Returns how many bytes of the page it has
    /// written; fewer than all are refused by the adapter.
    ///
    /// # Errors
    /// A chunk that gives more than the page, or has bytes left over: [`Error::payload`].
    fn decompress(
        &self,
        decompressor: &mut Self::Decompressor,
        chunk: &[u8],
        page: &mut [u8],
    ) -> Result<usize, Error>;
}

/// The [`PageCodec`] `C` as a method.
#[derive(Debug)]
pub struct PageMethods<C>(Arc<C>);

impl<C> PageMethods<C> {
    /// The method of `codec`.
    pub fn new(codec: C) -> Self {
        Self(Arc::new(codec))
    }
}

#[async_trait]
impl<C: PageCodec> MultiFdMethods for PageMethods<C> {
    fn descriptor(&self) -> MethodDescriptor {
        self.0.descriptor()
    }

    fn probe(&self) -> Availability {
        self.0.probe()
    }

    async fn send_setup(&self, config: &ChannelConfig) -> Result<Box<dyn SendMethod>, Error> {
        let (compressor, counters) = (self.0.compressor(config)?, MethodCounters::new(COUNTED));
        Ok(Box::new(Sender { codec: Arc::clone(&self.0), compressor, counters }))
    }

    async fn recv_setup(&self, config: &ChannelConfig) -> Result<Box<dyn RecvMethod>, Error> {
        Ok(Box::new(Receiver {
            decompressor: self.0.decompressor(config)?,
            codec: Arc::clone(&self.0),
            config: *config,
            page: vec![0; config.page_size.bytes()].into(),
            counters: MethodCounters::new(COUNTED),
        }))
    }
}

/// What both sides count: pages sent as they are.
const COUNTED: &[&str] = &["raw pages"];

struct Sender<C: PageCodec> {
    codec: Arc<C>,
    compressor: C::Compressor,
    counters: MethodCounters,
}

#[async_trait]
impl<C: PageCodec> SendMethod for Sender<C> {
    fn counters(&self) -> MethodCounters {
        self.counters.clone()
    }

    async fn send_prepare(
        &mut self,
        pages: &NormalPages<'_>,
        payload: &mut Payload,
    ) -> Result<(), Error> {
        let mut chunks = ChunkWriter::new(payload, pages);
        let page_bytes = pages.page_size().bytes();
        let mut raw_pages = 0;
        for (index, page) in pages.private().chunks_exact(page_bytes).enumerate() {
            let compressed = self
                .codec
                .compress(&mut self.compressor, page, chunks.spare())
                .map_err(|error| error.at_page(index))?;
            match compressed {
                Some(count) => chunks.advance(count),
                None => {
                    chunks.push_raw();
                    raw_pages += 1;
                }
            }
        }
        self.counters.add(0, raw_pages);
        Ok(())
    }

    async fn send_cleanup(self: Box<Self>) -> Result<(), Error> {
        Ok(())
    }
}

struct Receiver<C: PageCodec> {
    codec: Arc<C>,
    decompressor: C::Decompressor,
    config: ChannelConfig,
    page: Box<[u8]>,
    counters: MethodCounters,
}

impl<C: PageCodec> Receiver<C> {
    /// Restores a page from `chunk`, all of it.
    fn decompress(&mut self, chunk: &[u8]) -> Result<(), Error> {
        self.config.fill_scratch(&mut self.page);
        let written = self.codec.decompress(&mut self.decompressor, chunk, &mut self.page)?;
        let page_bytes = self.page.len();
        if written == page_bytes {
            return Ok(());
        }
        Err(Error::payload(format!("a chunk gives {written} bytes, a page has {page_bytes}")))
    }
}

#[async_trait]
impl<C: PageCodec> RecvMethod for Receiver<C> {
    fn counters(&self) -> MethodCounters {
        self.counters.clone()
    }

    async fn recv(&mut self, payload: &[u8], pages: GuestPages<'_>) -> Result<(), Error> {
        let mut raw_pages = 0;
        for (index, chunk) in Chunks::parse(payload, pages.len(), pages.page_size())?.enumerate() {
            match chunk {
                Chunk::Raw(page) => {
                    pages.write(index, page);
                    raw_pages += 1;
                }
                Chunk::Compressed(chunk) => {
                    self.decompress(chunk).map_err(|error| error.at_page(index))?;
                    pages.write(index, &self.page);
                }
            }
        }
        self.counters.add(0, raw_pages);
        Ok(())
    }

    async fn recv_cleanup(self: Box<Self>) -> Result<(), Error> {
        Ok(())
    }
}
