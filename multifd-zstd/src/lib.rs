#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![warn(clippy::exhaustive_enums, clippy::exhaustive_structs)]

mod levels;

use std::sync::Arc;

use multifd_core::codec::{PacketCodec, PacketMethods, PageWriter};
use multifd_core::{
    Availability, ChannelConfig, Compression, Error, Levels, MethodDescriptor, Payload,
    Registration,
};
use zstd_safe::zstd_sys::ZSTD_EndDirective::ZSTD_e_flush;
use zstd_safe::zstd_sys::ZSTD_ErrorCode::ZSTD_error_frameParameter_windowTooLarge;
use zstd_safe::{
    CCtx, CParameter, DCtx, DParameter, InBuffer, OutBuffer, get_error_name, version_string,
};

multifd_core::inventory::submit! {
    Registration(|| Arc::new(PacketMethods::new(Zstd::new())))
}

/// Method zstd: one frame (RFC 8878) runs through the channel and never ends. Each packet ends at a
/// flush.
#[derive(Clone, Copy, Debug)]
pub struct Zstd {
    /// The largest window, as a power of two.
    window_log: u32,
}

impl Zstd {
    /// The largest window unless said otherwise, in bytes: 8 MiB, which levels up to 19 make.
    pub const DEFAULT_WINDOW: u64 = 1 << DEFAULT_WINDOW_LOG;
    /// The smallest window of the format (RFC 8878, section 3.1.1.1.2), in bytes: 1 KiB.
    pub const MIN_WINDOW: u64 = 1 << WINDOW_LOG_MIN;
    /// The largest window that can be allowed, in bytes: 128 MiB, which QEMU takes and level 22 makes.
    pub const MAX_WINDOW: u64 = 1 << WINDOW_LOG_MAX;

    /// The codec, with windows up to 8 MiB.
    pub const fn new() -> Self {
        Self { window_log: DEFAULT_WINDOW_LOG }
    }

    /// The codec with windows of at most `bytes`, rounded down to a power of two, within
    /// [`MIN_WINDOW`](Self::MIN_WINDOW) and [`MAX_WINDOW`](Self::MAX_WINDOW).
    ///
    /// A receiver refuses a frame whose header asks for more: each channel takes as much memory as it
    /// asks for. A sender makes none above `bytes` and 8 MiB, whichever is more, at any level.
    #[must_use]
    pub const fn with_window_limit(self, bytes: u64) -> Self {
        let log = match bytes.checked_ilog2() {
            Some(log) if log > WINDOW_LOG_MAX => WINDOW_LOG_MAX,
            Some(log) if log >= WINDOW_LOG_MIN => log,
            _ => WINDOW_LOG_MIN,
        };
        Self { window_log: log }
    }

    /// The largest window, in bytes.
    pub const fn window_limit(&self) -> u64 {
        1 << self.window_log
    }
}

impl Default for Zstd {
    fn default() -> Self {
        Self::new()
    }
}

const DESCRIPTOR: MethodDescriptor =
    MethodDescriptor::new("zstd", "one zstd frame a channel, by libzstd", Compression::Zstd)
        .with_levels(Levels::new(-131_072, 22, 1));

const WINDOW_LOG_MIN: u32 = 10;
const WINDOW_LOG_MAX: u32 = 27;
const DEFAULT_WINDOW_LOG: u32 = 23;

/// The highest level whose window is within the default by itself.
const HIGHEST_OF_DEFAULT_WINDOW: i32 = 19;

impl PacketCodec for Zstd {
    type Encoder = CCtx<'static>;
    type Decoder = DCtx<'static>;

    fn descriptor(&self) -> MethodDescriptor {
        DESCRIPTOR
    }

    fn probe(&self) -> Availability {
        Availability::Available(format!("libzstd {}, built in", version_string()))
    }

    fn encoder(&self, config: &ChannelConfig) -> Result<CCtx<'static>, Error> {
        let level = DESCRIPTOR.level(Some(config.level))?;
        let mut context = CCtx::try_create().ok_or_else(no_memory)?;
        levels::set(&mut context, level).map_err(failed)?;
        if level > HIGHEST_OF_DEFAULT_WINDOW && self.window_log < WINDOW_LOG_MAX {
            let log = self.window_log.max(DEFAULT_WINDOW_LOG);
            context.set_parameter(CParameter::WindowLog(log)).map_err(failed)?;
        }
        Ok(context)
    }

    fn decoder(&self, _: &ChannelConfig) -> Result<DCtx<'static>, Error> {
        let mut context = DCtx::try_create().ok_or_else(no_memory)?;
        context.set_parameter(DParameter::WindowLogMax(self.window_log)).map_err(failed)?;
        Ok(context)
    }

    fn encode(
        &self,
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
        &self,
        context: &mut DCtx<'static>,
        payload: &[u8],
        pages: &mut PageWriter<'_>,
    ) -> Result<(), Error> {
        let mut input = InBuffer::around(payload);
        let (written, _) = step(context, &mut input, pages.spare())?;
        pages.advance(written);
        // What is missing is refused behind this.
        if pages.remaining() > 0 { Ok(()) } else { expect_end(context, input) }
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
    let wanted = context.decompress_stream(&mut output, input).map_err(malformed)?;
    match wanted {
        0 => Err(Error::payload("the zstd frame ends in it, which must go on")),
        wanted => Ok((output.pos(), wanted)),
    }
}

/// The refusal of a payload for which libzstd has returned `code`: an error's number, negated.
fn malformed(code: usize) -> Error {
    if code.wrapping_neg() == ZSTD_error_frameParameter_windowTooLarge as usize {
        return Error::payload(
            "its zstd window is larger than is allowed here: compress at level 19 or lower, or allow \
             windows of up to 128 MiB",
        );
    }
    Error::payload(format!("zstd cannot read it: {}", get_error_name(code)))
}

fn no_memory() -> Error {
    Error::backend("zstd has no memory for a context")
}

fn failed(code: usize) -> Error {
    Error::backend(format!("zstd fails: {}", get_error_name(code)))
}
