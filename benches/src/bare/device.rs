//! Devices through libqpl's C functions and nothing else: a job a page, submitted, then checked.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::fs;
use std::hint;
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU8, Ordering};

use qpl_sys::{Flags, Job, Library, Operation, Path, Status};
use rustix::fs::{FileType, OFlags, fcntl_getfl, fstat};

use crate::guest::{PACKET_PAGES, PAGE_BYTES};

/// Jobs for the pages of a packet, with memory for what they read and write.
#[derive(Debug)]
pub struct Jobs {
    library: Library,
    jobs: Vec<*mut Job>,
    layout: Layout,
    operation: Operation,
    input: Vec<u8>,
    /// What each job reads of it.
    ranges: Vec<Range<usize>>,
    output: Vec<u8>,
    /// Jobs that were submitted and not checked.
    running: Range<usize>,
}

impl Jobs {
    /// Sets up the jobs of a packet.
    ///
    /// # Errors
    /// Where there is no libqpl, or no device.
    pub fn open() -> Result<Self, String> {
        let library = Library::open().map_err(|error| error.to_string())?;
        let bytes = library.job_size(Path::Hardware).map_err(|status| status.to_string())?;
        let layout = Layout::from_size_align(bytes, Job::ALIGN).expect("a size within bounds");
        let mut jobs = Self {
            library,
            jobs: Vec::new(),
            layout,
            operation: Operation::Compress,
            input: Vec::with_capacity(PACKET_PAGES * PAGE_BYTES),
            ranges: Vec::new(),
            output: vec![0; PACKET_PAGES * PAGE_BYTES],
            running: 0..0,
        };
        for _ in 0..PACKET_PAGES {
            // SAFETY: the size is not 0.
            let job = unsafe { alloc_zeroed(layout) }.cast::<Job>();
            assert!(!job.is_null(), "there is memory for a job");
            // SAFETY: the memory is zeroed, aligned and as large as asked for.
            let status = unsafe { jobs.library.init_job(Path::Hardware, job) };
            if status != Status::OK {
                return Err(status.to_string());
            }
            jobs.jobs.push(job);
        }
        Ok(jobs)
    }

    /// Has the jobs do `operation` on copies of these, from now on.
    pub fn load<'a>(&mut self, operation: Operation, chunks: impl IntoIterator<Item = &'a [u8]>) {
        self.check();
        self.operation = operation;
        self.input.clear();
        self.ranges.clear();
        for chunk in chunks {
            let start = self.input.len();
            self.input.extend_from_slice(chunk);
            self.ranges.push(start..self.input.len());
        }
        assert!(self.ranges.len() <= self.jobs.len(), "no more than a packet's");
    }

    /// Submits all that are loaded.
    ///
    /// # Panics
    /// Where one is refused: there must be room in the queues.
    pub fn submit(&mut self) {
        let room = match self.operation {
            Operation::Compress => PAGE_BYTES - 1,
            Operation::Decompress => PAGE_BYTES,
        };
        let outputs = self.output.chunks_exact_mut(PAGE_BYTES);
        self.running = 0..0;
        for ((&job, range), output) in self.jobs.iter().zip(&self.ranges).zip(outputs) {
            let input = &self.input[range.clone()];
            // SAFETY: the job was set up, does not run, and is used here alone.
            let fields = unsafe { &mut *job };
            fields.op = self.operation as u32;
            fields.level = Job::LEVEL_1;
            fields.flags = Flags::FIRST | Flags::LAST | Flags::OMIT_VERIFY;
            fields.next_in_ptr = input.as_ptr().cast_mut();
            fields.available_in = input.len() as u32;
            fields.total_in = 0;
            fields.next_out_ptr = output.as_mut_ptr();
            fields.available_out = room as u32;
            fields.total_out = 0;
            // SAFETY: the job was set up; input and output are as long as it says, do not overlap, and
            // stay as they are until `check`, which everything that touches them calls first.
            let status = unsafe { self.library.submit_job(job) };
            assert_eq!(status, Status::OK);
            self.running.end += 1;
        }
    }

    /// Waits until all that run have ended. Returns whether they had.
    pub fn check(&mut self) -> bool {
        let mut had_ended = true;
        for &job in &self.jobs[self.running.clone()] {
            // SAFETY: the job was submitted.
            while unsafe { self.library.check_job(job) } == Status::BEING_PROCESSED {
                had_ended = false;
                hint::spin_loop();
            }
        }
        self.running = 0..0;
        had_ended
    }
}

impl Drop for Jobs {
    fn drop(&mut self) {
        self.check();
        for &job in &self.jobs {
            // SAFETY: the job was set up, does not run, and is not used again.
            unsafe { self.library.fini_job(job) };
            // SAFETY: the memory was allocated with that layout, and the job in it has been ended.
            unsafe { dealloc(job.cast(), self.layout) };
        }
    }
}

/// The file of a simulated device's queue to which descriptors are written, for no-operations: what is left
/// of a submission without libqpl.
#[derive(Debug)]
pub struct WrittenQueue {
    file: BorrowedFd<'static>,
    records: Box<[Record]>,
}

/// A completion record, whose first byte is the status.
#[derive(Debug)]
#[repr(C, align(64))]
struct Record([AtomicU8; 64]);

impl WrittenQueue {
    /// The pipe that a device of this process reads; `None` where it has none, as with the face `mapped`.
    ///
    /// # Panics
    /// Where the process's own files cannot be listed.
    pub fn find() -> Option<Self> {
        let files = fs::read_dir("/proc/self/fd").expect("/proc is there");
        let numbers = files.filter_map(|file| file.ok()?.file_name().to_str()?.parse::<i32>().ok());
        let file = numbers.into_iter().find_map(|number| {
            // SAFETY: it is open; and if it is a queue's, it stays open, since devices never leave.
            let file = unsafe { BorrowedFd::borrow_raw(number) };
            let is_pipe = FileType::from_raw_mode(fstat(file).ok()?.st_mode) == FileType::Fifo;
            let flags = fcntl_getfl(file).ok()?;
            // No other pipe is of packets.
            let is_queue = flags.contains(OFlags::DIRECT) && flags.contains(OFlags::WRONLY);
            (is_pipe && is_queue).then_some(file)
        })?;
        let record = |_| Record([const { AtomicU8::new(0) }; 64]);
        Some(Self { file, records: (0..PACKET_PAGES).map(record).collect() })
    }

    /// Submits as many no-operations as a packet has pages.
    ///
    /// # Panics
    /// Where one is refused.
    pub fn submit(&mut self) {
        for record in &self.records {
            record.0[0].store(0, Ordering::Relaxed);
            let mut descriptor = [0; 64];
            // The record's address is valid, and the record is wanted.
            descriptor[4] = 0x0c;
            let address = record.0.as_ptr().addr() as u64;
            descriptor[8..16].copy_from_slice(&address.to_ne_bytes());
            assert_eq!(rustix::io::write(self.file, &descriptor), Ok(64));
        }
    }

    /// Waits until all have completed.
    pub fn check(&mut self) {
        for record in &self.records {
            while record.0[0].load(Ordering::Acquire) == 0 {
                hint::spin_loop();
            }
        }
    }
}

impl Drop for WrittenQueue {
    fn drop(&mut self) {
        self.check();
    }
}
