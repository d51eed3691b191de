//! One job of libqpl's software path, and the memory that it lies in.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;

use multifd_core::Error;
use qpl_sys::{Flags, Job as RawJob, Library, Operation, Path, Status};

/// A job that has been set up, ready for one stream after the other. Nothing of it runs outside of
/// [`compress`](Self::compress).
#[derive(Debug)]
pub(super) struct Job {
    library: Library,
    memory: Memory,
}

/// How a job ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ended {
    pub(super) status: Status,
    /// Bytes of input used up.
    pub(super) read: usize,
    /// Bytes of output written.
    pub(super) written: usize,
}

// SAFETY: the job is used through `&mut Job` alone, and libqpl ties a job in software to no thread.
unsafe impl Send for Job {}

impl Job {
    /// Sets up a job.
    pub(super) fn new(library: &Library) -> Result<Self, Error> {
        let failed = |doing: &str, status| Error::backend(format!("libqpl {doing}: {status}"));
        let bytes = library.job_size(Path::Software);
        let bytes = bytes.map_err(|status| failed("does not say how large a job is", status))?;
        let memory = Memory::zeroed(bytes)?;
        // SAFETY: the memory is as large as the library asked for, zeroed, aligned, and stays where
        // it is for as long as the job, which ends it in `drop`.
        let status = unsafe { library.init_job(Path::Software, memory.job.as_ptr()) };
        if status != Status::OK {
            return Err(failed("cannot set up a job", status));
        }
        Ok(Self { library: library.clone(), memory })
    }

    /// Compresses `input` into `output` as one whole stream, on this thread.
    pub(super) fn compress(&mut self, input: &[u8], output: &mut [u8]) -> Ended {
        // SAFETY: the job was set up, nothing runs on it, and `&mut self` keeps others away.
        let job = unsafe { self.memory.job.as_mut() };
        job.op = Operation::Compress as u32;
        job.level = RawJob::LEVEL_1;
        job.flags = Flags::FIRST | Flags::LAST | Flags::OMIT_VERIFY;
        // libqpl reads through this pointer, and never writes.
        job.next_in_ptr = input.as_ptr().cast_mut();
        job.available_in = length(input);
        job.total_in = 0;
        job.next_out_ptr = output.as_mut_ptr();
        job.available_out = length(output);
        job.total_out = 0;
        // SAFETY: the job was set up and does not run; input and output are as long as it says and
        // outlive the call, at whose end the software path is done with them; they do not overlap,
        // since one of them is borrowed mutably.
        let status = unsafe { self.library.execute_job(job) };
        let ended = Ended { status, read: job.total_in as usize, written: job.total_out as usize };
        // Nothing of the caller's stays behind, whatever the library does with a job later.
        job.next_in_ptr = std::ptr::null_mut();
        job.next_out_ptr = std::ptr::null_mut();
        ended
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        // SAFETY: the job was set up, nothing runs on it, and it is not used again. What it answers
        // changes nothing: the memory goes.
        unsafe { self.library.fini_job(self.memory.job.as_ptr()) };
    }
}

/// A page and its chunk have at most 64 KiB.
fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).expect("a page has at most 64 KiB")
}

/// The memory of a job: [`RawJob`], and behind it what the library alone knows.
#[derive(Debug)]
struct Memory {
    job: NonNull<RawJob>,
    layout: Layout,
}

impl Memory {
    /// Zeroed memory for a job of `bytes` bytes.
    fn zeroed(bytes: usize) -> Result<Self, Error> {
        /// Ten times what is known; more is no size of a job.
        const MOST: usize = 16 << 20;
        if !(size_of::<RawJob>()..=MOST).contains(&bytes) {
            return Err(Error::backend(format!("libqpl says that a job takes {bytes} bytes")));
        }
        let layout = Layout::from_size_align(bytes, RawJob::ALIGN).expect("a size within bounds");
        // SAFETY: the size is not 0: it is at least the structure's.
        let memory = unsafe { alloc_zeroed(layout) };
        match NonNull::new(memory.cast()) {
            Some(job) => Ok(Self { job, layout }),
            None => handle_alloc_error(layout),
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: it was allocated with that layout. A job in it has been ended: `Job::drop` runs
        // before its fields are dropped.
        unsafe { dealloc(self.job.as_ptr().cast(), self.layout) };
    }
}
