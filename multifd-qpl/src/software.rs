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
pub(crate) struct Compressor {
    job: Job,
    /// It was said that libqpl fails.
    warned: bool,
}

impl Compressor {
    pub(crate) fn new(library: &Library) -> Result<Self, Error> {
        let job = Job::new(library, Path::Software);
        job.map(|job| Self { job, warned: false })
            .map_err(|status| Error::backend(format!("libqpl cannot set up a job: {status}")))
    }

    /// Compresses `page` into `chunk`. Returns the bytes written; `None` where they do not fit, or
    /// where libqpl can make nothing of the page: it can always go as it is.
    pub(crate) fn compress(&mut self, page: &[u8], chunk: &mut [u8]) -> Option<usize> {
        let Ended { status, read, written } = self.job.compress(page, chunk);
        match status {
            Status::OK if read == page.len() && (1..=chunk.len()).contains(&written) => {
                Some(written)
            }
            Status::MORE_OUTPUT_NEEDED => None,
            status if status.is_operation_error() => None,
            status => {
                self.fail(status, read, written);
                None
            }
        }
    }

    fn fail(&mut self, status: Status, read: usize, written: usize) {
        if !self.warned {
            tracing::warn!(
                "libqpl fails in software, pages go as they are: {status}, {read} bytes read, {written} written"
            );
        }
        self.warned = true;
        // Where not even that can be done, the next page fails as this one did.
        _ = self.job.set_up_anew();
    }
}
