//! An inflate whose history is the window: `miniz_oxide` with a ring of that size.

use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress};

use super::Refusal;
use crate::WINDOW;

/// The state of the inflate, and the last bytes that it gave.
pub(crate) struct Decompressor {
    state: Box<DecompressorOxide>,
    window: Box<[u8]>,
}

impl Decompressor {
    pub(super) fn new() -> Self {
        Self { state: Box::default(), window: vec![0; WINDOW].into() }
    }

    /// Restores `page`, a multiple of the window long, from the stream in `chunk`.
    pub(super) fn decompress(&mut self, chunk: &[u8], page: &mut [u8]) -> Result<(), Refusal> {
        self.state.init();
        let mut input = chunk;
        // At first the ring holds nothing that a distance may reach.
        let mut flags = TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
        let (mut filled, mut ended) = (0, false);
        while !ended && filled < page.len() {
            let (end, count) = self.step(&mut input, flags)?;
            page[filled..filled + count].copy_from_slice(&self.window[..count]);
            (filled, ended, flags) = (filled + count, end, 0);
        }
        if filled < page.len() {
            return Err(Refusal::Short(filled));
        }
        // The end of the last block may still be ahead.
        if !ended && self.step(&mut input, flags)? != (true, 0) {
            return Err(Refusal::Long);
        }
        match input.len() {
            0 => Ok(()),
            left => Err(Refusal::LeftOver(left)),
        }
    }

    /// Inflates until the ring is full or the stream ends. Returns whether it does, and the bytes in
    /// the ring.
    fn step(&mut self, input: &mut &[u8], flags: u32) -> Result<(bool, usize), Refusal> {
        let (status, read, written) =
            decompress(&mut self.state, input, &mut self.window, 0, flags);
        *input = &input[read..];
        match status {
            TINFLStatus::Done => Ok((true, written)),
            TINFLStatus::HasMoreOutput => Ok((false, written)),
            _ => Err(Refusal::Malformed),
        }
    }
}

impl std::fmt::Debug for Decompressor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decompressor").finish_non_exhaustive()
    }
}
