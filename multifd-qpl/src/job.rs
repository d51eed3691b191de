//! One job of libqpl, and the memory that it lies in.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::{self, NonNull};

use qpl_sys::{Flags, Job as RawJob, Library, Operation, Path, Status};

/// A job that is set up, ready for one stream after the other.
///
/// Its memory is freed when it is dropped: whoever submits it keeps it until it has ended.
#[derive(Debug)]
pub(crate) struct Job {
    library: Library,
    path: Path,
    memory: Memory,
}

/// How a job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) status: Status,
    /// Bytes of input used up.
    pub(crate) read: usize,
    /// Bytes of output written.
    pub(crate) written: usize,
}

// SAFETY: the job is used through `&mut Job` alone, and libqpl ties a job to no thread.
unsafe impl Send for Job {}

impl Job {
    /// Sets up a job for `path`.
    ///
    /// # Errors
    /// What libqpl answers, where it cannot.
    pub(crate) fn new(library: &Library, path: Path) -> Result<Self, Status> {
        let memory = Memory::zeroed(library.job_size(path)?)?;
        let job = memory.job.as_ptr();
        // SAFETY: the memory is as large as the library asked for, zeroed, aligned, and stays where
        // it is for as long as the job, which ends it in `drop`.
        let status = unsafe { library.init_job(path, job) };
        // Without a `Job` nothing ends it: what was not set up must not be ended.
        if status != Status::OK {
            return Err(status);
        }
        Ok(Self { library: library.clone(), path, memory })
    }

    /// Sets the job up anew in new memory, after an error that it cannot go on from.
    ///
    /// # Errors
    /// What libqpl answers, where it cannot. The job then stays as it was.
    pub(crate) fn set_up_anew(&mut self) -> Result<(), Status> {
        *self = Self::new(&self.library, self.path)?;
        Ok(())
    }

    /// Has the job compress or restore, next, all of `input` as one whole stream, with the devices
    /// of `numa_id`. The pointers are only noted.
    pub(crate) fn set(
        &mut self,
        op: Operation,
        (input, input_bytes): (*const u8, usize),
        (output, output_bytes): (*mut u8, usize),
        numa_id: i32,
    ) {
        // SAFETY: the job was set up, does not run, and `&mut self` keeps others away.
        let job = unsafe { self.memory.job.as_mut() };
        job.op = op as u32;
        job.level = RawJob::LEVEL_1;
        job.flags = match op {
            Operation::Compress => Flags::FIRST | Flags::LAST | Flags::OMIT_VERIFY,
            Operation::Decompress => Flags::FIRST | Flags::LAST,
        };
        // libqpl reads through this pointer, and never writes.
        job.next_in_ptr = input.cast_mut();
        job.available_in = length(input_bytes);
        job.total_in = 0;
        job.next_out_ptr = output;
        job.available_out = length(output_bytes);
        job.total_out = 0;
        job.numa_id = numa_id;
    }

    /// Compresses `input` into `output` as one whole stream, on this thread. For a job in software.
    pub(crate) fn compress(&mut self, input: &[u8], output: &mut [u8]) -> Ended {
        assert!(self.path == Path::Software, "the device might go on after the call");
        let numa_id = RawJob::NUMA_SOCKET;
        let (input, output) = ((input.as_ptr(), input.len()), (output.as_mut_ptr(), output.len()));
        self.set(Operation::Compress, input, output, numa_id);
        let job = self.memory.job.as_ptr();
        // SAFETY: the job was set up and does not run; input and output are as long as it says and
        // outlive the call, at whose end the software path is done with them; they do not overlap,
        // since one of them is borrowed mutably.
        let status = unsafe { self.library.execute_job(job) };
        self.ended(status)
    }

    /// Has the device run the job as it was [set](Self::set).
    ///
    /// # Safety
    /// Unless this answers with an error, job, input and output are the device's until
    /// [`check`](Self::check) says that the job has ended: until then they stay where they are,
    /// nothing but `check` is called, the input is not written and the output not touched.
    pub(crate) unsafe fn submit(&mut self) -> Status {
        // SAFETY: the job was set up; the rest is as the caller promises.
        unsafe { self.library.submit_job(self.memory.job.as_ptr()) }
    }

    /// How the submitted job ended; `None` while it runs.
    ///
    /// # Safety
    /// The job was submitted.
    pub(crate) unsafe fn check(&mut self) -> Option<Ended> {
        // SAFETY: as the caller promises.
        let status = unsafe { self.library.check_job(self.memory.job.as_ptr()) };
        (status != Status::BEING_PROCESSED).then(|| self.ended(status))
    }

    fn ended(&mut self, status: Status) -> Ended {
        // SAFETY: the job was set up and has ended, and `&mut self` keeps others away.
        let job = unsafe { self.memory.job.as_mut() };
        // No pointer of the caller's stays behind, whatever the library does with the job later.
        job.next_in_ptr = ptr::null_mut();
        job.next_out_ptr = ptr::null_mut();
        Ended { status, read: job.total_in as usize, written: job.total_out as usize }
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        // SAFETY: the job was set up, nothing runs on it, and it is not used again. Its answer is
        // ignored: the memory is freed in any case.
        unsafe { self.library.fini_job(self.memory.job.as_ptr()) };
    }
}

/// A page and its chunk have at most 64 KiB.
fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("a page has at most 64 KiB")
}

/// The memory of a job: [`RawJob`], and behind it what the library alone knows.
#[derive(Debug)]
struct Memory {
    job: NonNull<RawJob>,
    layout: Layout,
}

impl Memory {
    /// Zeroed memory for a job of `bytes` bytes.
    fn zeroed(bytes: usize) -> Result<Self, Status> {
        /// Twenty times the largest known; larger sizes are implausible.
        const MOST: usize = 16 << 20;
        if !(size_of::<RawJob>()..=MOST).contains(&bytes) {
            return Err(Status::SIZE);
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
