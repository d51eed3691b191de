//! zlib, right or with one fault that a round trip does not see.

use flate2::{Compress, Decompress, FlushCompress, FlushDecompress};
use multifd_core::codec::{PacketCodec, PacketMethods, PageWriter};
use multifd_core::{
    Availability, ChannelConfig, Compression, Error, Levels, MethodDescriptor, Payload,
};

/// zlib as it should be.
pub(crate) const RIGHT: MethodDescriptor = descriptor(&PacketMethods::<Zlib<true, false>>::new());

/// Without the zlib header: DEFLATE alone, as an accelerator may have it.
pub(crate) const WITHOUT_HEADER: MethodDescriptor =
    descriptor(&PacketMethods::<Zlib<false, false>>::new());

/// A new stream in each packet.
pub(crate) const STARTS_ANEW: MethodDescriptor =
    descriptor(&PacketMethods::<Zlib<true, true>>::new());

const fn descriptor(methods: &'static dyn multifd_core::MultiFdMethods) -> MethodDescriptor {
    MethodDescriptor {
        name: "zlib",
        summary: "a toy: zlib",
        levels: Some(Levels { least: 0, most: 9, default: 1 }),
        probe: || Availability::Available("a toy".to_owned()),
        methods,
    }
}

struct Zlib<const HEADER: bool, const ANEW: bool>;

impl<const HEADER: bool, const ANEW: bool> PacketCodec for Zlib<HEADER, ANEW> {
    const COMPRESSION: Compression = Compression::Zlib;
    type Encoder = Compress;
    type Decoder = Decompress;

    fn encoder(config: &ChannelConfig) -> Result<Compress, Error> {
        Ok(Compress::new(flate2::Compression::new(config.level as u32), HEADER))
    }

    fn decoder(_: &ChannelConfig) -> Result<Decompress, Error> {
        Ok(Decompress::new(HEADER))
    }

    fn encode(deflate: &mut Compress, pages: &[u8], payload: &mut Payload) -> Result<(), Error> {
        if ANEW {
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
        inflate: &mut Decompress,
        payload: &[u8],
        pages: &mut PageWriter<'_>,
    ) -> Result<(), Error> {
        if ANEW {
            inflate.reset(HEADER);
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
            match (last, written) {
                (true, 0) if inflate.total_in() - start == payload.len() as u64 => return Ok(()),
                (false, 1..) => pages.advance(written),
                _ => return Err(Error::payload("not exactly the pages")),
            }
        }
    }
}
