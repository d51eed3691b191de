//! libqpl in software through its C functions, as QEMU drives it: a job a page.

use std::alloc::{Layout, alloc_zeroed, dealloc};

use multifd_core::MAX_PAYLOAD;
use qpl_sys::{Flags, Job, Library, OpenError, Operation, Path, Status};

use super::Memory;
use crate::guest::{PAGE_BYTES, Packet};

/// One job, for either direction.
#[derive(Debug)]
pub struct Qpl {
    library: Library,
    job: *mut Job,
    layout: Layout,
    output: Vec<u8>,
}

impl Qpl {
    /// Sets up a job.
    ///
    /// # Errors
    /// Where there is no libqpl.
    ///
    /// # Panics
    /// Where it fails.
    pub fn open() -> Result<Self, OpenError> {
        let library = Library::open()?;
        let bytes = library.job_size(Path::Software).expect("libqpl has a software path");
        let layout = Layout::from_size_align(bytes, Job::ALIGN).expect("a size within bounds");
        // SAFETY: the size is not 0.
        let job = unsafe { alloc_zeroed(layout) }.cast::<Job>();
        assert!(!job.is_null(), "there is memory for a job");
        // SAFETY: the memory is zeroed, aligned and as large as asked for.
        let status = unsafe { library.init_job(Path::Software, job) };
        assert_eq!(status, Status::OK);
        Ok(Self { library, job, layout, output: vec![0; MAX_PAYLOAD] })
    }

    /// The library's version.
    pub fn version(&self) -> String {
        self.library.version().to_string()
    }

    /// Makes the payload of each packet, and shows it to `each`.
    pub fn compress(&mut self, packets: &[Packet<'_>], mut each: impl FnMut(&[u8])) {
        for packet in packets {
            let pages = packet.private.chunks_exact(PAGE_BYTES);
            let mut output = std::mem::take(&mut self.output);
            let mut at = 4 * pages.len();
            for (index, page) in pages.enumerate() {
                let room = &mut output[at..at + PAGE_BYTES - 1];
                let length = self.compress_page(page, room).unwrap_or_else(|| {
                    output[at..at + PAGE_BYTES].copy_from_slice(page);
                    PAGE_BYTES
                });
                output[4 * index..4 * index + 4].copy_from_slice(&(length as u32).to_be_bytes());
                at += length;
            }
            each(&output[..at]);
            self.output = output;
        }
    }

    /// Restores the pages at `offsets` from the `payload` of their packet.
    ///
    /// # Panics
    /// Where the library fails.
    pub fn decompress(&mut self, offsets: &[u64], payload: &[u8], memory: &mut Memory) {
        let (lengths, mut chunks) = payload.split_at(4 * offsets.len());
        for (&offset, length) in offsets.iter().zip(lengths.chunks_exact(4)) {
            let length = length.iter().fold(0, |length, &byte| length << 8 | usize::from(byte));
            let (chunk, rest) = chunks.split_at(length);
            chunks = rest;
            let page = memory.page(offset);
            if length == PAGE_BYTES {
                page.copy_from_slice(chunk);
            } else {
                assert!(self.decompress_page(chunk, page), "libqpl takes the chunk");
            }
        }
    }

    /// Compresses `page` into `chunk`. Returns the bytes written; `None` where they do not fit.
    pub fn compress_page(&mut self, page: &[u8], chunk: &mut [u8]) -> Option<usize> {
        let (status, written) = self.run(Operation::Compress, page, chunk);
        (status == Status::OK).then_some(written)
    }

    /// Restores `page` from `chunk`. Returns whether that is what `chunk` is.
    pub fn decompress_page(&mut self, chunk: &[u8], page: &mut [u8]) -> bool {
        self.run(Operation::Decompress, chunk, page) == (Status::OK, page.len())
    }

    fn run(&mut self, operation: Operation, input: &[u8], output: &mut [u8]) -> (Status, usize) {
        // SAFETY: the job was set up, does not run, and is used here alone.
        let job = unsafe { &mut *self.job };
        job.op = operation as u32;
        job.level = Job::LEVEL_1;
        job.flags = Flags::FIRST | Flags::LAST | Flags::OMIT_VERIFY;
        job.next_in_ptr = input.as_ptr().cast_mut();
        job.available_in = input.len() as u32;
        job.next_out_ptr = output.as_mut_ptr();
        job.available_out = output.len() as u32;
        // SAFETY: the job was set up; input and output are as long as it says, and do not overlap.
        let status = unsafe { self.library.execute_job(job) };
        (status, job.total_out as usize)
    }
}

impl Drop for Qpl {
    fn drop(&mut self) {
        // SAFETY: the job was set up, does not run, and is not used again.
        unsafe { self.library.fini_job(self.job) };
        // SAFETY: the memory was allocated with that layout, and the job in it has been ended.
        unsafe { dealloc(self.job.cast(), self.layout) };
    }
}
