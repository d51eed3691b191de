//! libdeflate's inflate, told to say where the stream ends.

use std::ptr::NonNull;

use libdeflate_sys::{
    libdeflate_alloc_decompressor, libdeflate_decompressor, libdeflate_deflate_decompress_ex,
    libdeflate_free_decompressor, libdeflate_result_LIBDEFLATE_INSUFFICIENT_SPACE as LONG,
    libdeflate_result_LIBDEFLATE_SUCCESS as SUCCESS,
};

/// libdeflate's state.
pub(super) struct Decompressor(NonNull<libdeflate_decompressor>);

/// Why a stream is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    Malformed,
    /// The output has too little room.
    Long,
}

impl Default for Decompressor {
    fn default() -> Self {
        // SAFETY: it takes nothing; what it returns is checked.
        let state = unsafe { libdeflate_alloc_decompressor() };
        Self(NonNull::new(state).expect("libdeflate gets memory"))
    }
}

impl Decompressor {
    /// Inflates the stream that `input` begins with. Returns the bytes read and written.
    pub(super) fn decompress(
        &mut self,
        input: &[u8],
        output: &mut [u8],
    ) -> Result<(usize, usize), Refusal> {
        let (mut read, mut written) = (0, 0);
        // SAFETY: the state is alive and used here alone; the library reads and writes within the
        // lengths of input and output; the two counts may be written.
        let status = unsafe {
            libdeflate_deflate_decompress_ex(
                self.0.as_ptr(),
                input.as_ptr().cast(),
                input.len(),
                output.as_mut_ptr().cast(),
                output.len(),
                &raw mut read,
                &raw mut written,
            )
        };
        match status {
            SUCCESS => Ok((read, written)),
            LONG => Err(Refusal::Long),
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
