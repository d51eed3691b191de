//! QPL, right or with one fault that a round trip does not see.

use flate2::{Compress, Compression as Level, Decompress, FlushCompress, FlushDecompress, Status};
use multifd_core::codec::{PageCodec, PageMethods};
use multifd_core::{
    Availability, ChannelConfig, Compression, Error, MethodDescriptor, MultiFdMethods,
};

/// QPL as it should be, but that it takes larger distances.
pub(crate) const RIGHT: MethodDescriptor = descriptor(&PageMethods::<Qpl<12, false>>::new());

/// Distances of up to 32 KiB, as any DEFLATE has them.
pub(crate) const WIDE: MethodDescriptor = descriptor(&PageMethods::<Qpl<15, false>>::new());

/// zlib streams (RFC 1950), as UADK has them.
pub(crate) const WITH_HEADER: MethodDescriptor = descriptor(&PageMethods::<Qpl<12, true>>::new());

const fn descriptor(methods: &'static dyn MultiFdMethods) -> MethodDescriptor {
    MethodDescriptor {
        name: "qpl",
        summary: "a toy: qpl",
        levels: None,
        probe: || Availability::Available("a toy".to_owned()),
        methods,
    }
}

struct Qpl<const WINDOW_BITS: u8, const HEADER: bool>;

impl<const WINDOW_BITS: u8, const HEADER: bool> PageCodec for Qpl<WINDOW_BITS, HEADER> {
    const COMPRESSION: Compression = Compression::Qpl;
    type Compressor = (Compress, Vec<u8>);
    type Decompressor = Decompress;

    fn compressor(config: &ChannelConfig) -> Result<(Compress, Vec<u8>), Error> {
        let level = Level::default();
        let deflate = Compress::new_with_window_bits(level, HEADER, WINDOW_BITS);
        Ok((deflate, vec![0; 2 * config.page_size.bytes()]))
    }

    fn decompressor(_: &ChannelConfig) -> Result<Decompress, Error> {
        Ok(Decompress::new(HEADER))
    }

    fn compress(
        (deflate, stream): &mut (Compress, Vec<u8>),
        page: &[u8],
        chunk: &mut [u8],
    ) -> Result<Option<usize>, Error> {
        deflate.reset();
        let status = deflate.compress(page, stream, FlushCompress::Finish);
        assert_eq!(status.map_err(|error| Error::backend(error.to_string()))?, Status::StreamEnd);
        let written = deflate.total_out() as usize;
        let Some(chunk) = chunk.get_mut(..written) else { return Ok(None) };
        chunk.copy_from_slice(&stream[..written]);
        Ok(Some(written))
    }

    fn decompress(inflate: &mut Decompress, chunk: &[u8], page: &mut [u8]) -> Result<(), Error> {
        inflate.reset(HEADER);
        let status = inflate.decompress(chunk, page, FlushDecompress::Finish);
        let status = status.map_err(|error| Error::payload(error.to_string()))?;
        let (read, written) = (inflate.total_in() as usize, inflate.total_out() as usize);
        if (status, read, written) != (Status::StreamEnd, chunk.len(), page.len()) {
            return Err(Error::payload("not exactly a page"));
        }
        Ok(())
    }
}
