//! libdeflate's inflate, told to say where the stream ends. The safe crate over it does not.

use std::ptr::NonNull;

use libdeflate_sys::{
    libdeflate_alloc_decompressor, libdeflate_decompressor, libdeflate_deflate_decompress_ex,
    libdeflate_free_decompressor,
};
use multifd_core::Error;

use super::Refusal;

/// libdeflate's state.
#[derive(Debug)]
pub(crate) struct Decompressor(NonNull<libdeflate_decompressor>);

// SAFETY: the state belongs to this value alone, and the library ties it to no thread.
unsafe impl Send for Decompressor {}

impl Decompressor {
    pub(super) fn new() -> Result<Self, Error> {
        // SAFETY: it takes nothing; what it returns is checked.
        let state = unsafe { libdeflate_alloc_decompressor() };
        let state = NonNull::new(state);
        state.map(Self).ok_or_else(|| Error::backend("libdeflate gets no memory"))
    }

    /// Restores `page` from the stream in `chunk`.
    pub(super) fn decompress(&mut self, chunk: &[u8], page: &mut [u8]) -> Result<(), Refusal> {
        /// `LIBDEFLATE_SUCCESS`.
        const SUCCESS: u32 = 0;
        /// `LIBDEFLATE_INSUFFICIENT_SPACE`.
        const INSUFFICIENT_SPACE: u32 = 3;

        let (mut read, mut written) = (0, 0);
        // SAFETY: the state is alive and used here alone; the library reads and writes within the
        // lengths of chunk and page; the two counts may be written.
        let status = unsafe {
            libdeflate_deflate_decompress_ex(
                self.0.as_ptr(),
                chunk.as_ptr().cast(),
                chunk.len(),
                page.as_mut_ptr().cast(),
                page.len(),
                &raw mut read,
                &raw mut written,
            )
        };
        match status {
            SUCCESS if written < page.len() => Err(Refusal::Short(written)),
            SUCCESS if read < chunk.len() => Err(Refusal::LeftOver(chunk.len() - read)),
            SUCCESS => Ok(()),
            INSUFFICIENT_SPACE => Err(Refusal::Long),
            _ => Err(Refusal::Malformed),
        }
    }
}

impl Drop for Decompressor {
    fn drop(&mut self) {
        // SAFETY: the state came from the library and is not used again.
        unsafe { libdeflate_free_decompressor(self.0.as_ptr()) };
    }
}
