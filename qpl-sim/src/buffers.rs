//! The caller's input and output: all of its memory that is touched outside of its calls.

use qpl_sys::{Job, Operation, Status};

use crate::software;

/// The input and output of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Buffers {
    input: *const u8,
    input_bytes: u32,
    output: *mut u8,
    output_bytes: u32,
}

// SAFETY: whoever uses them promises to be alone with them, in `slices`, on whatever thread.
unsafe impl Send for Buffers {}

impl Buffers {
    pub(crate) fn of(job: &Job) -> Self {
        Self {
            input: job.next_in_ptr,
            input_bytes: job.available_in,
            output: job.next_out_ptr,
            output_bytes: job.available_out,
        }
    }

    /// The status with which libqpl refuses impossible buffers.
    pub(crate) fn check(&self) -> Result<(), Status> {
        if self.input.is_null() || self.output.is_null() {
            return Err(Status::NULL_PTR);
        }
        if self.input_bytes == 0 || self.output_bytes == 0 {
            return Err(Status::SIZE);
        }
        let ends = |start: usize, bytes: u32| start.saturating_add(bytes as usize);
        let (input, output) = (self.input.addr(), self.output.addr());
        if input < ends(output, self.output_bytes) && output < ends(input, self.input_bytes) {
            return Err(Status::BUFFER_OVERLAP);
        }
        Ok(())
    }

    /// Bytes of the side that is not compressed.
    pub(crate) fn page_bytes(&self, operation: Operation) -> u32 {
        match operation {
            Operation::Compress => self.input_bytes,
            Operation::Decompress => self.output_bytes,
        }
    }

    /// A checksum of the input of a job in flight, to see whether its caller has kept off it.
    pub(crate) fn input_crc(&self) -> u32 {
        // SAFETY: the job is in flight, so its input is there; nobody writes to it, but for a
        // caller that breaks its promise, which is what this is to find out.
        let input = unsafe { std::slice::from_raw_parts(self.input, self.input_bytes as usize) };
        software::crc(input)
    }

    /// Input and output, to read and write.
    ///
    /// # Safety
    /// They passed [`check`](Self::check) and are those of a job in flight, whose caller promised
    /// to leave them alone; and nothing else here has them.
    pub(crate) unsafe fn slices<'a>(self) -> (&'a [u8], &'a mut [u8]) {
        // SAFETY: not null, and as long as the caller said; they do not overlap.
        let input = unsafe { std::slice::from_raw_parts(self.input, self.input_bytes as usize) };
        // SAFETY: as above.
        let output =
            unsafe { std::slice::from_raw_parts_mut(self.output, self.output_bytes as usize) };
        (input, output)
    }
}
