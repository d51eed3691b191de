//! zlib, right or with one fault that a round trip does not see.

use flate2::{Compress, Decompress, FlushCompress, FlushDecompress};
use multifd_core::codec::{PacketCodec, PacketMethods, PageWriter};
use multifd_core::{
    Availability, ChannelConfig, Compression, Error, Levels, MethodDescriptor, Payload,
};

/// zlib as it should be.
pub(crate) const RIGHT: Zlib = Zlib { header: true, anew: false, short: false };

/// Without the zlib header: DEFLATE alone, as an accelerator may have it.
pub(crate) const WITHOUT_HEADER: Zlib = Zlib { header: false, ..RIGHT };

/// A new stream in each packet.
pub(crate) const STARTS_ANEW: Zlib = Zlib { anew: true, ..RIGHT };

/// A payload that ends as it should passes for all of the pages.
pub(crate) const SHORT: Zlib = Zlib { short: true, ..RIGHT };

#[derive(Clone, Copy, Debug)]
pub(crate) struct Zlib {
    header: bool,
    anew: bool,
    short: bool,
}

impl Zlib {
    pub(crate) fn methods(self) -> PacketMethods<Self> {
        PacketMethods::new(self)
    }
}

/// What every sync flush ends with.
const FLUSH: [u8; 4] = [0, 0, 0xff, 0xff];

impl PacketCodec for Zlib {
    type Encoder = Compress;
    type Decoder = Decompress;

    fn descriptor(&self) -> MethodDescriptor {
        MethodDescriptor::new("zlib", "a toy: zlib", Compression::Zlib)
            .with_levels(Levels::new(0, 9, 1))
    }

    fn probe(&self) -> Availability {
        Availability::Available("a toy".to_owned())
    }

    fn encoder(&self, config: &ChannelConfig) -> Result<Compress, Error> {
        Ok(Compress::new(flate2::Compression::new(config.level as u32), self.header))
    }

    fn decoder(&self, _: &ChannelConfig) -> Result<Decompress, Error> {
        Ok(Decompress::new(self.header))
    }

    fn encode(
        &self,
        deflate: &mut Compress,
        pages: &[u8],
        payload: &mut Payload,
    ) -> Result<(), Error> {
        if self.anew {
            deflate.reset();
        }
        let before = deflate.total_out();
        deflate
            .compress(pages, payload.spare(), FlushCompress::Sync)
            .map_err(|error| Error::backend(error.to_string()))?;
        payload.advance((deflate.total_out() - before) as usize);
        Ok(())
    }

    fn decode(
        &self,
        inflate: &mut Decompress,
        payload: &[u8],
        pages: &mut PageWriter<'_>,
    ) -> Result<(), Error> {
        if self.anew {
            inflate.reset(self.header);
        }
        let start = inflate.total_in();
        // One byte more than the pages have, to see whether there is more.
        let mut more = [0];
        loop {
            let last = pages.remaining() == 0;
            let space = if last { &mut more[..] } else { pages.spare() };
            let input = &payload[(inflate.total_in() - start) as usize..];
            let before = inflate.total_out();
            inflate
                .decompress(input, space, FlushDecompress::None)
                .map_err(|error| Error::payload(error.to_string()))?;
            let written = (inflate.total_out() - before) as usize;
            let whole = inflate.total_in() - start == payload.len() as u64;
            match (last, written) {
                (true, 0) if whole => return Ok(()),
                (false, 1..) => pages.advance(written),
                (false, 0) if whole && self.short && payload.ends_with(&FLUSH) => {
                    pages.advance(pages.remaining());
                }
                _ => return Err(Error::payload("not exactly the pages")),
            }
        }
    }
}
