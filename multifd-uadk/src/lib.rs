#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![warn(clippy::exhaustive_enums, clippy::exhaustive_structs)]

use std::sync::Arc;

use multifd_core::codec::{PageCodec, PageMethods};
use multifd_core::{
    Availability, ChannelConfig, Compression, Error, MethodDescriptor, Registration,
};
use page_deflate::{Decoder, Encoder};
use simd_adler32::adler32;

multifd_core::inventory::submit! {
    Registration(|| Arc::new(PageMethods::new(Uadk::new())))
}

/// Method uadk: every page is a zlib stream (RFC 1950) of its own, as the accelerator of a Kunpeng
/// makes and takes it.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default)]
pub struct Uadk;

impl Uadk {
    /// The codec. It has no options.
    pub const fn new() -> Self {
        Self
    }
}

/// The largest distance of a match, in bytes: the accelerator has no more history. It holds for
/// every page size, whatever the stream's header declares.
pub const WINDOW: usize = 4096;

/// What every stream begins with. It declares a window of 32 KiB, which is not the accelerator's.
const HEADER: [u8; 2] = [0x78, 0x9c];

/// Bytes of the Adler-32 that every stream ends with, big-endian.
const TRAILER: usize = 4;

impl PageCodec for Uadk {
    type Compressor = Encoder;
    type Decompressor = Decoder;

    fn descriptor(&self) -> MethodDescriptor {
        let summary = "a zlib stream a page, as HiSilicon's accelerators make them; in software";
        // QEMU 10.2.2's receiver does not note that pages with data have come.
        MethodDescriptor::new("uadk", summary, Compression::Uadk).without_zero_after_data()
    }

    fn probe(&self) -> Availability {
        Availability::Available(
            "software, built in; a Kunpeng's accelerator is not used".to_owned(),
        )
    }

    fn compressor(&self, config: &ChannelConfig) -> Result<Encoder, Error> {
        Ok(Encoder::new(config.page_size.bytes(), WINDOW))
    }

    fn decompressor(&self, config: &ChannelConfig) -> Result<Decoder, Error> {
        Ok(Decoder::new(config.page_size.bytes(), WINDOW))
    }

    fn compress(
        &self,
        encoder: &mut Encoder,
        page: &[u8],
        chunk: &mut [u8],
    ) -> Result<Option<usize>, Error> {
        let Some((header, rest)) = chunk.split_first_chunk_mut() else { return Ok(None) };
        *header = HEADER;
        let Some(room) = rest.len().checked_sub(TRAILER) else { return Ok(None) };
        let Some(count) = encoder.encode(page, &mut rest[..room]) else { return Ok(None) };
        rest[count..count + TRAILER].copy_from_slice(&adler32(&page).to_be_bytes());
        Ok(Some(HEADER.len() + count + TRAILER))
    }

    fn decompress(
        &self,
        decoder: &mut Decoder,
        chunk: &[u8],
        page: &mut [u8],
    ) -> Result<usize, Error> {
        let (deflate, expected) = parts(chunk)?;
        let read = decoder
            .decode(deflate, page)
            .map_err(|error| Error::payload(format!("in a chunk, {error}")))?;
        if read < deflate.len() {
            let left = deflate.len() - read;
            let what = format!("a chunk has {left} bytes between its DEFLATE stream and its end");
            return Err(Error::payload(what));
        }
        let found = adler32(&&*page);
        if found != expected {
            let what =
                format!("the page has the Adler-32 {found:#010x}, its chunk says {expected:#010x}");
            return Err(Error::payload(what));
        }
        Ok(page.len())
    }
}

/// The DEFLATE stream in `chunk`, and the Adler-32 behind it.
fn parts(chunk: &[u8]) -> Result<(&[u8], u32), Error> {
    let Some(rest) = chunk.strip_prefix(&HEADER) else {
        let found = &chunk[..chunk.len().min(HEADER.len())];
        let what = format!("a chunk begins with {found:02x?}, not with {HEADER:02x?}");
        return Err(Error::payload(what));
    };
    let Some((deflate, trailer)) = rest.split_last_chunk() else {
        return Err(Error::payload("a chunk is too short for its Adler-32"));
    };
    Ok((deflate, u32::from_be_bytes(*trailer)))
}
