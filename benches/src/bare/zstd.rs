//! zstd through its streaming functions.

use multifd_core::MAX_PAYLOAD;
use zstd_safe::zstd_sys::ZSTD_EndDirective::{ZSTD_e_continue, ZSTD_e_flush};
use zstd_safe::{CCtx, CParameter, DCtx, InBuffer, OutBuffer};

use super::Memory;
use crate::guest::{PAGE_BYTES, Packet};

/// A compressor for one channel.
#[allow(missing_debug_implementations, reason = "the library's context is not Debug")]
pub struct Compressor {
    context: CCtx<'static>,
    output: Vec<u8>,
}

impl Compressor {
    /// A compressor at `level`.
    ///
    /// # Panics
    /// Where the library fails.
    pub fn new(level: i32) -> Self {
        let mut context = CCtx::create();
        context.set_parameter(CParameter::CompressionLevel(level)).expect("a level of zstd's");
        Self { context, output: vec![0; MAX_PAYLOAD] }
    }

    /// Makes the payload of each packet, and shows it to `each`.
    ///
    /// # Panics
    /// Where the library fails.
    pub fn compress(&mut self, packets: &[Packet<'_>], mut each: impl FnMut(&[u8])) {
        for packet in packets {
            let mut output = OutBuffer::around(&mut self.output[..]);
            let mut pages = packet.private.chunks_exact(PAGE_BYTES).peekable();
            while let Some(page) = pages.next() {
                let last = pages.peek().is_none();
                let directive = if last { ZSTD_e_flush } else { ZSTD_e_continue };
                let mut input = InBuffer::around(page);
                loop {
                    let left = self.context.compress_stream2(&mut output, &mut input, directive);
                    let left = left.expect("zstd compresses");
                    if input.pos() == page.len() && (!last || left == 0) {
                        break;
                    }
                }
            }
            each(output.as_slice());
        }
    }
}

/// A decompressor for one channel.
#[allow(missing_debug_implementations, reason = "the library's context is not Debug")]
pub struct Decompressor {
    context: DCtx<'static>,
}

impl Default for Decompressor {
    fn default() -> Self {
        Self { context: DCtx::create() }
    }
}

impl Decompressor {
    /// Restores the pages at `offsets` from the `payload` of their packet.
    ///
    /// # Panics
    /// Where the library fails.
    pub fn decompress(&mut self, offsets: &[u64], payload: &[u8], memory: &mut Memory) {
        let mut input = InBuffer::around(payload);
        for &offset in offsets {
            let mut output = OutBuffer::around(memory.page(offset));
            while output.pos() < output.capacity() {
                let step = self.context.decompress_stream(&mut output, &mut input);
                step.expect("zstd decompresses");
            }
        }
    }
}
