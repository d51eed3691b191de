#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![warn(clippy::exhaustive_enums, clippy::exhaustive_structs)]

use std::sync::Arc;

use lz4_flex::block::{compress_into, decompress_into, get_maximum_output_size};
use multifd_core::codec::{PageCodec, PageMethods};
use multifd_core::{
    Availability, ChannelConfig, Compression, Error, MethodDescriptor, PrivateMethod, Registration,
};

multifd_core::inventory::submit! {
    Registration(|| Arc::new(PageMethods::new(Lz4::new())))
}

/// Method lz4: every page is an LZ4 block of its own.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default)]
pub struct Lz4;

impl Lz4 {
    /// The codec. It has no options.
    pub const fn new() -> Self {
        Self
    }
}

/// Taken in docs/private-codecs.md.
const VALUE: PrivateMethod = PrivateMethod::new(0x06).expect("QEMU does not use it");

impl PageCodec for Lz4 {
    /// Room for a page that gets longer: the library asks for it.
    type Compressor = Box<[u8]>;
    type Decompressor = ();

    fn descriptor(&self) -> MethodDescriptor {
        let summary = "an LZ4 block a page, by lz4_flex; not one of QEMU's";
        MethodDescriptor::new("lz4", summary, Compression::Private(VALUE))
    }

    fn probe(&self) -> Availability {
        Availability::Available("lz4_flex, built in".to_owned())
    }

    fn compressor(&self, config: &ChannelConfig) -> Result<Box<[u8]>, Error> {
        Ok(vec![0; get_maximum_output_size(config.page_size.bytes())].into())
    }

    fn decompressor(&self, _: &ChannelConfig) -> Result<(), Error> {
        Ok(())
    }

    fn compress(
        &self,
        block: &mut Box<[u8]>,
        page: &[u8],
        chunk: &mut [u8],
    ) -> Result<Option<usize>, Error> {
        let count = compress_into(page, block)
            .map_err(|error| Error::backend(format!("lz4 fails: {error}")))?;
        let Some(chunk) = chunk.get_mut(..count) else { return Ok(None) };
        chunk.copy_from_slice(&block[..count]);
        Ok(Some(count))
    }

    fn decompress(&self, (): &mut (), chunk: &[u8], page: &mut [u8]) -> Result<usize, Error> {
        decompress_into(chunk, page)
            .map_err(|error| Error::payload(format!("an LZ4 block is malformed: {error}")))
    }
}
