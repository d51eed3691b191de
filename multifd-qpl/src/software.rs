//! libqpl on the CPU: one job a channel, to compress.
//!
//! libqpl's own inflate is not used: in software it takes a stream whose last block is not the
//! final one, or is not all there, and up to 8 bytes behind the stream, without a word. What
//! [`inflate`](crate::inflate) does instead refuses these, and is faster besides.

use multifd_core::Error;
use qpl_sys::{Library, Path, Status};

use crate::job::{Ended, Job};

/// Compresses pages with libqpl.
#[derive(Debug)]
pub(crate) struct Compressor(Job);

impl Compressor {
    pub(crate) fn new(library: &Library) -> Result<Self, Error> {
        let job = Job::new(library, Path::Software);
        job.map(Self)
            .map_err(|status| Error::backend(format!("libqpl cannot set up a job: {status}")))
    }

    /// Compresses `page` into `chunk`. Returns the bytes written; `None` where they do not fit, or
    /// where libqpl can make nothing of the page.
    pub(crate) fn compress(
        &mut self,
        page: &[u8],
        chunk: &mut [u8],
    ) -> Result<Option<usize>, Error> {
        let Ended { status, read, written } = self.0.compress(page, chunk);
        match status {
            Status::OK if read == page.len() && (1..=chunk.len()).contains(&written) => {
                Ok(Some(written))
            }
            Status::OK => {
                let page = page.len();
                let what = format!("libqpl makes {written} bytes of {read} of a page's {page}");
                Err(Error::backend(what))
            }
            Status::MORE_OUTPUT_NEEDED => Ok(None),
            status if status.is_operation_error() => Ok(None),
            status => Err(Error::backend(format!("libqpl cannot compress a page: {status}"))),
        }
    }
}
