//! The caller's input and output.

use qpl_sys::{Job, Operation, Status};

/// The input and output of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Buffers {
    pub(crate) input: *const u8,
    pub(crate) input_bytes: u32,
    pub(crate) output: *mut u8,
    pub(crate) output_bytes: u32,
}

// SAFETY: they are addresses, which are given to a device; whoever uses them promises to be alone with them, in
// `slices`, on whatever thread.
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
    pub(crate) fn check(&self, operation: Operation) -> Result<(), Status> {
        if self.input.is_null() || self.output.is_null() {
            return Err(Status::NULL_PTR);
        }
        let ends = |start: usize, bytes: u32| start.saturating_add(bytes as usize);
        let (input, output) = (self.input.addr(), self.output.addr());
        let within = |at, start, bytes| (start..ends(start, bytes)).contains(&at);
        if within(output, input, self.input_bytes) || within(input, output, self.output_bytes) {
            return Err(Status::BUFFER_OVERLAP);
        }
        // What there is nothing of to decompress, or no room for, is the device's business.
        let is_empty = self.input_bytes == 0 || self.output_bytes == 0;
        if operation == Operation::Compress && is_empty { Err(Status::SIZE) } else { Ok(()) }
    }

    /// A checksum of the input of a job in flight, to see whether its caller has kept off it.
    pub(crate) fn input_crc(&self) -> u32 {
        // SAFETY: the job is in flight, so its input is there; nobody writes to it, but for a
        // caller that breaks its promise, which is what this is to find out.
        let input = unsafe { std::slice::from_raw_parts(self.input, self.input_bytes as usize) };
        crc(input)
    }

    /// Input and output, to read and write.
    ///
    /// # Safety
    /// They passed [`check`](Self::check) and are those of a job in flight that no device is at work on, whose
    /// caller promised to leave them alone; and nothing else here has them.
    pub(crate) unsafe fn slices<'a>(self) -> (&'a [u8], &'a mut [u8]) {
        // SAFETY: not null, and as long as the caller said; they do not overlap.
        let input = unsafe { std::slice::from_raw_parts(self.input, self.input_bytes as usize) };
        // SAFETY: as above.
        let output =
            unsafe { std::slice::from_raw_parts_mut(self.output, self.output_bytes as usize) };
        (input, output)
    }
}

/// CRC-32 as gzip has it.
pub(crate) fn crc(bytes: &[u8]) -> u32 {
    let mut crc = libdeflater::Crc::new();
    crc.update(bytes);
    crc.sum()
}
