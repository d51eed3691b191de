//! libqpl on the CPU: one job a channel, to compress.
//!
//! libqpl's own inflate is not used: in software it accepts, without an error, a stream whose last
//! block is not the final one or is cut short, and up to 8 bytes behind the stream.
//! [`inflate`](crate::inflate) refuses these, and is faster.

use multifd_core::Error;
use qpl_sys::{Library, Path, Status};

use crate::job::{Ended, Job};

/// Compresses pages with libqpl.
#[derive(Debug)]
pub(crate) struct Compressor {
    job: Job,
    /// Whether a warning has said that libqpl fails.
    warned: bool,
}

impl Compressor {
    pub(crate) fn new(library: &Library) -> Result<Self, Error> {
        let job = Job::new(library, Path::Software);
        job.map(|job| Self { job, warned: false })
            .map_err(|status| Error::backend(format!("libqpl cannot set up a job: {status}")))
    }

    /// Compresses `page` into `chunk`. Returns the bytes written; `None` where they do not fit, or
    /// where libqpl cannot compress the page: it can always go as it is.
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
        // Where even that fails, the next page fails as this one did.
        _ = self.job.set_up_anew();
    }
}
