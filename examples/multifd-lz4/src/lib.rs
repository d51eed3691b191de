#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

use lz4_flex::block::{compress_into, decompress_into, get_maximum_output_size};
use multifd_core::codec::{PageCodec, PageMethods};
use multifd_core::{
    Availability, ChannelConfig, Compression, Error, MethodDescriptor, PrivateMethod,
};

/// Method lz4.
pub const DESCRIPTOR: MethodDescriptor = MethodDescriptor {
    name: "lz4",
    summary: "an LZ4 block a page, by lz4_flex; not one of QEMU's",
    levels: None,
    probe: || Availability::Available("lz4_flex, built in".to_owned()),
    methods: &PageMethods::<Lz4>::new(),
};

multifd_core::inventory::submit! { DESCRIPTOR }

/// Every page is an LZ4 block of its own.
enum Lz4 {}

impl PageCodec for Lz4 {
    const COMPRESSION: Compression =
        Compression::Private(PrivateMethod::new(0x06).expect("QEMU does not use it"));

    /// Room for a page that gets longer: the library asks for it.
    type Compressor = Box<[u8]>;
    type Decompressor = ();

    fn compressor(config: &ChannelConfig) -> Result<Box<[u8]>, Error> {
        Ok(vec![0; get_maximum_output_size(config.page_size.bytes())].into())
    }

    fn decompressor(_: &ChannelConfig) -> Result<(), Error> {
        Ok(())
    }

    fn compress(
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

    fn decompress((): &mut (), chunk: &[u8], page: &mut [u8]) -> Result<(), Error> {
        match decompress_into(chunk, page) {
            Ok(count) if count == page.len() => Ok(()),
            Ok(count) => Err(Error::payload(format!("an LZ4 block makes only {count} bytes"))),
            Err(error) => Err(Error::payload(format!("an LZ4 block is malformed: {error}"))),
        }
    }
}
