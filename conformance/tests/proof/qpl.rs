//! QPL, right or with one fault that a round trip does not see.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use flate2::{Compress, Compression as Level, Decompress, FlushCompress, FlushDecompress, Status};
use multifd_core::codec::{PageCodec, PageMethods};
use multifd_core::{Availability, ChannelConfig, Compression, Error, MethodDescriptor};

/// QPL as it should be, but that it takes larger distances.
pub(crate) const RIGHT: Qpl = Qpl { window_bits: 12, header: false, short: false, tails: false };

/// Distances of up to 32 KiB, as any DEFLATE has them.
pub(crate) const WIDE: Qpl = Qpl { window_bits: 15, ..RIGHT };

/// zlib streams (RFC 1950), as UADK has them.
pub(crate) const WITH_HEADER: Qpl = Qpl { header: true, ..RIGHT };

/// A stream that ends as it should passes for all of a page.
pub(crate) const SHORT: Qpl = Qpl { short: true, ..RIGHT };

/// Whatever stands behind a stream is ignored.
pub(crate) const IGNORES_TAILS: Qpl = Qpl { tails: true, ..RIGHT };

#[derive(Clone, Copy, Debug)]
pub(crate) struct Qpl {
    window_bits: u8,
    header: bool,
    short: bool,
    tails: bool,
}

impl Qpl {
    pub(crate) fn methods(self) -> PageMethods<Self> {
        PageMethods::new(self)
    }
}

impl PageCodec for Qpl {
    type Compressor = (Compress, Vec<u8>);
    type Decompressor = Decompress;

    fn descriptor(&self) -> MethodDescriptor {
        MethodDescriptor::new("qpl", "a toy: qpl", Compression::Qpl)
    }

    fn probe(&self) -> Availability {
        Availability::Available("a toy".to_owned())
    }

    fn compressor(&self, config: &ChannelConfig) -> Result<(Compress, Vec<u8>), Error> {
        let level = Level::default();
        let deflate = Compress::new_with_window_bits(level, self.header, self.window_bits);
        Ok((deflate, vec![0; 2 * config.page_size.bytes()]))
    }

    fn decompressor(&self, _: &ChannelConfig) -> Result<Decompress, Error> {
        Ok(Decompress::new(self.header))
    }

    fn compress(
        &self,
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

    fn decompress(
        &self,
        inflate: &mut Decompress,
        chunk: &[u8],
        page: &mut [u8],
    ) -> Result<usize, Error> {
        inflate.reset(self.header);
        let status = inflate.decompress(chunk, page, FlushDecompress::Finish);
        let status = status.map_err(|error| Error::payload(error.to_string()))?;
        let whole = self.tails || inflate.total_in() == chunk.len() as u64;
        if status != Status::StreamEnd || !whole {
            return Err(Error::payload("not exactly a page"));
        }
        Ok(if self.short { page.len() } else { inflate.total_out() as usize })
    }
}

/// QPL of a device that is lost with each error: the next channel does not get it.
#[derive(Debug, Default)]
pub(crate) struct PoisonedByAnError(AtomicBool);

impl PoisonedByAnError {
    pub(crate) fn methods() -> PageMethods<Self> {
        PageMethods::new(Self::default())
    }
}

impl PageCodec for PoisonedByAnError {
    type Compressor = (Compress, Vec<u8>);
    type Decompressor = Decompress;

    fn descriptor(&self) -> MethodDescriptor {
        RIGHT.descriptor()
    }

    fn probe(&self) -> Availability {
        RIGHT.probe()
    }

    fn compressor(&self, config: &ChannelConfig) -> Result<(Compress, Vec<u8>), Error> {
        RIGHT.compressor(config)
    }

    fn decompressor(&self, config: &ChannelConfig) -> Result<Decompress, Error> {
        if self.0.swap(false, SeqCst) {
            return Err(Error::backend("the device is gone"));
        }
        RIGHT.decompressor(config)
    }

    fn compress(
        &self,
        compressor: &mut (Compress, Vec<u8>),
        page: &[u8],
        chunk: &mut [u8],
    ) -> Result<Option<usize>, Error> {
        RIGHT.compress(compressor, page, chunk)
    }

    fn decompress(
        &self,
        inflate: &mut Decompress,
        chunk: &[u8],
        page: &mut [u8],
    ) -> Result<usize, Error> {
        RIGHT.decompress(inflate, chunk, page).inspect_err(|_| self.0.store(true, SeqCst))
    }
}
