//! zstd, right or with one fault that a round trip does not see.

use multifd_core::codec::{PacketCodec, PacketMethods, PageWriter};
use multifd_core::{
    Availability, ChannelConfig, Compression, Error, Levels, MethodDescriptor, Payload,
};
use zstd_safe::zstd_sys::ZSTD_EndDirective;
use zstd_safe::{CCtx, CParameter, DCtx, InBuffer, OutBuffer, SafeResult};

/// zstd as it should be.
pub(crate) const RIGHT: Zstd = Zstd { ends: false };

/// A frame of its own in each packet.
pub(crate) const ENDS_FRAMES: Zstd = Zstd { ends: true };

#[derive(Clone, Copy, Debug)]
pub(crate) struct Zstd {
    ends: bool,
}

impl Zstd {
    pub(crate) fn methods(self) -> PacketMethods<Self> {
        PacketMethods::new(self)
    }
}

impl PacketCodec for Zstd {
    type Encoder = CCtx<'static>;
    type Decoder = DCtx<'static>;

    fn descriptor(&self) -> MethodDescriptor {
        MethodDescriptor::new("zstd", "a toy: zstd", Compression::Zstd)
            .with_levels(Levels::new(-1, 4, 1))
    }

    fn probe(&self) -> Availability {
        Availability::Available("a toy".to_owned())
    }

    fn encoder(&self, config: &ChannelConfig) -> Result<CCtx<'static>, Error> {
        let mut context = CCtx::create();
        context.set_parameter(CParameter::CompressionLevel(config.level)).map_err(failed)?;
        Ok(context)
    }

    fn decoder(&self, _: &ChannelConfig) -> Result<DCtx<'static>, Error> {
        Ok(DCtx::create())
    }

    fn encode(
        &self,
        context: &mut CCtx<'static>,
        pages: &[u8],
        payload: &mut Payload,
    ) -> Result<(), Error> {
        let how =
            if self.ends { ZSTD_EndDirective::ZSTD_e_end } else { ZSTD_EndDirective::ZSTD_e_flush };
        let mut output = OutBuffer::around(payload.spare());
        let mut input = InBuffer::around(pages);
        while context.compress_stream2(&mut output, &mut input, how).map_err(failed)? > 0 {}
        let written = output.pos();
        payload.advance(written);
        Ok(())
    }

    fn decode(
        &self,
        context: &mut DCtx<'static>,
        payload: &[u8],
        pages: &mut PageWriter<'_>,
    ) -> Result<(), Error> {
        let mut input = InBuffer::around(payload);
        let mut step = |space: &mut [u8]| -> SafeResult {
            let mut output = OutBuffer::around(space);
            context.decompress_stream(&mut output, &mut input)?;
            Ok(output.pos())
        };
        let refused = |code| Error::payload(format!("zstd: {}", zstd_safe::get_error_name(code)));
        while pages.remaining() > 0 {
            match step(pages.spare()).map_err(refused)? {
                0 => return Err(Error::payload("less than the pages")),
                written => pages.advance(written),
            }
        }
        match step(&mut [0]).map_err(refused)? {
            0 if input.pos() == payload.len() => Ok(()),
            _ => Err(Error::payload("more than the pages")),
        }
    }
}

fn failed(code: usize) -> Error {
    Error::backend(format!("zstd: {}", zstd_safe::get_error_name(code)))
}
