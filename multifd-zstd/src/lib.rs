#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

use multifd_core::codec::{PacketCodec, PacketMethods, PageWriter};
use multifd_core::{
    Availability, ChannelConfig, Compression, Error, Levels, MethodDescriptor, Payload,
};
use zstd_safe::zstd_sys::ZSTD_EndDirective::ZSTD_e_flush;
use zstd_safe::{
    CCtx, CParameter, DCtx, DParameter, InBuffer, OutBuffer, get_error_name, version_string,
};

/// Method zstd.
pub const DESCRIPTOR: MethodDescriptor = MethodDescriptor {
    name: "zstd",
    summary: "one zstd frame a channel, by libzstd",
    levels: Some(Levels { least: -131_072, most: 22, default: 1 }),
    probe: || Availability::Available(format!("libzstd {}, built in", version_string())),
    methods: &PacketMethods::<Zstd>::new(),
};

multifd_core::inventory::submit! { DESCRIPTOR }

/// The largest window that a decoder takes, as a power of two: what QEMU takes, and what the
/// highest level makes.
const WINDOW_LOG_MAX: u32 = 27;

/// One zstd frame (RFC 8878) runs through the channel and never ends. Each packet ends at a flush.
enum Zstd {}

impl PacketCodec for Zstd {
    const COMPRESSION: Compression = Compression::Zstd;
    type Encoder = CCtx<'static>;
    type Decoder = DCtx<'static>;

    fn encoder(config: &ChannelConfig) -> Result<CCtx<'static>, Error> {
        let level = DESCRIPTOR.level(Some(config.level))?;
        let mut context = CCtx::try_create().ok_or_else(no_memory)?;
        context.set_parameter(CParameter::CompressionLevel(level)).map_err(failed)?;
        Ok(context)
    }

    fn decoder(_: &ChannelConfig) -> Result<DCtx<'static>, Error> {
        let mut context = DCtx::try_create().ok_or_else(no_memory)?;
        context.set_parameter(DParameter::WindowLogMax(WINDOW_LOG_MAX)).map_err(failed)?;
        Ok(context)
    }

    fn encode(
        context: &mut CCtx<'static>,
        pages: &[u8],
        payload: &mut Payload,
    ) -> Result<(), Error> {
        let mut input = InBuffer::around(pages);
        let mut output = OutBuffer::around(payload.spare());
        // A call may stop before all is flushed though there is space; without space it never
        // gets anywhere.
        while output.pos() < output.capacity() {
            let left =
                context.compress_stream2(&mut output, &mut input, ZSTD_e_flush).map_err(failed)?;
            if left == 0 {
                let written = output.pos();
                payload.advance(written);
                return Ok(());
            }
        }
        Err(Error::backend("zstd makes more of the pages than a packet can carry"))
    }

    fn decode(
        context: &mut DCtx<'static>,
        payload: &[u8],
        pages: &mut PageWriter<'_>,
    ) -> Result<(), Error> {
        let mut input = InBuffer::around(payload);
        let (written, _) = step(context, &mut input, pages.spare())?;
        pages.advance(written);
        let missing = pages.remaining();
        if missing > 0 {
            let what = format!("{missing} bytes of the packet's pages are missing");
            return Err(Error::payload(what));
        }
        expect_end(context, input)
    }
}

/// Bytes of a block's header: what a decoder asks for between two blocks, and only there.
const BLOCK_HEADER_BYTES: usize = 3;

/// Checks that the last byte of the packet's pages came out of the last block of the payload.
fn expect_end(context: &mut DCtx<'static>, mut input: InBuffer<'_>) -> Result<(), Error> {
    // The decoder may hold output back, which one byte of space brings to light.
    let (written, wanted) = step(context, &mut input, &mut [0])?;
    if written > 0 || wanted != BLOCK_HEADER_BYTES {
        return Err(Error::payload("it goes on after the packet's pages"));
    }
    Ok(())
}

/// Decompresses until `input` is used up, or `output` is full. Returns the bytes written and those
/// that the decoder asks for next.
fn step(
    context: &mut DCtx<'static>,
    input: &mut InBuffer<'_>,
    output: &mut [u8],
) -> Result<(usize, usize), Error> {
    let mut output = OutBuffer::around(output);
    let wanted = context
        .decompress_stream(&mut output, input)
        .map_err(|code| Error::payload(format!("zstd cannot read it: {}", get_error_name(code))))?;
    match wanted {
        0 => Err(Error::payload("the zstd frame ends in it, which must go on")),
        wanted => Ok((output.pos(), wanted)),
    }
}

fn no_memory() -> Error {
    Error::backend("zstd has no memory for a context")
}

fn failed(code: usize) -> Error {
    Error::backend(format!("zstd fails: {}", get_error_name(code)))
}
