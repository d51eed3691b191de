//! Page by page, in QPL's payload format: n lengths, then n chunks (section 6).

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

    /// What a compressor has counted, beyond the pages that were sent as they are.
    fn compressor_stats(_: &Self::Compressor) -> MethodStats {
        MethodStats::new()
    }

    /// What a decompressor has counted, beyond the pages that came as they are.
    fn decompressor_stats(_: &Self::Decompressor) -> MethodStats {
        MethodStats::new()
    }
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

const LENGTH_BYTES: usize = size_of::<u32>();

/// The name of what both sides count for every codec: pages sent as they are.
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
        let page_bytes = pages.page_size().bytes();
        payload.advance(pages.len() * LENGTH_BYTES);
        for (index, page) in pages.private().chunks_exact(page_bytes).enumerate() {
            let chunk = &mut payload.spare()[..page_bytes - 1];
            let compressed = C::compress(&mut self.compressor, page, chunk)
                .map_err(|error| error.at_page(index))?;
            let length = compressed.unwrap_or(page_bytes);
            match compressed {
                Some(count) => payload.advance(count),
                None => {
                    payload.push_page(index, pages);
                    self.raw_pages += 1;
                }
            }
            // The cast cannot truncate: a page has at most 64 KiB.
            payload
                .bytes_mut(index * LENGTH_BYTES..(index + 1) * LENGTH_BYTES)
                .copy_from_slice(&(length as u32).to_be_bytes());
        }
        Ok(())
    }

    async fn send_cleanup(self: Box<Self>) -> Result<MethodStats, Error> {
        let mut stats = C::compressor_stats(&self.compressor);
        stats.insert(RAW_PAGES, self.raw_pages);
        Ok(stats)
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
        let mut chunks = Chunks::of(payload, pages.len(), self.page.len())?;
        for index in 0..pages.len() {
            let chunk = chunks.next().map_err(|error| error.at_page(index))?;
            if chunk.len() == self.page.len() {
                pages.write(index, chunk);
                self.raw_pages += 1;
            } else {
                C::decompress(&mut self.decompressor, chunk, &mut self.page)
                    .map_err(|error| error.at_page(index))?;
                pages.write(index, &self.page);
            }
        }
        Ok(())
    }

    async fn recv_cleanup(self: Box<Self>) -> Result<MethodStats, Error> {
        let mut stats = C::decompressor_stats(&self.decompressor);
        stats.insert(RAW_PAGES, self.raw_pages);
        Ok(stats)
    }
}

/// The chunks of a payload, each of 1 to a page's bytes, whose lengths add up to the payload's.
struct Chunks<'a> {
    lengths: &'a [u8],
    data: &'a [u8],
    page_bytes: usize,
}

impl<'a> Chunks<'a> {
    fn of(payload: &'a [u8], pages: usize, page_bytes: usize) -> Result<Self, Error> {
        let (lengths, data) = payload
            .split_at_checked(pages * LENGTH_BYTES)
            .ok_or_else(|| Error::payload("it is shorter than the lengths of its chunks"))?;
        let sum: u64 = lengths.chunks_exact(LENGTH_BYTES).map(be_u32).sum();
        if sum != data.len() as u64 {
            let have = data.len();
            let what = format!("its chunk lengths add up to {sum} bytes, it has {have}");
            return Err(Error::payload(what));
        }
        Ok(Self { lengths, data, page_bytes })
    }

    fn next(&mut self) -> Result<&'a [u8], Error> {
        let (length, lengths) = self.lengths.split_at(LENGTH_BYTES);
        self.lengths = lengths;
        let length = be_u32(length);
        if length == 0 || length > self.page_bytes as u64 {
            let most = self.page_bytes;
            return Err(Error::payload(format!("a chunk has {length} bytes, not 1 to {most}")));
        }
        // Cannot fail: the lengths add up to the data, and this one is part of the sum.
        let (chunk, data) = self.data.split_at(length as usize);
        self.data = data;
        Ok(chunk)
    }
}

fn be_u32(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |value, &byte| value << 8 | u64::from(byte))
}
