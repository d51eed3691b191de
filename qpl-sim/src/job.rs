//! A job: what its caller asks for, and how far it has come.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use iaa_sim::descriptor::Descriptor;
use qpl_sys::{Flags, Job, Operation, Status};

use crate::buffers::Buffers;
use crate::fatal;
use crate::hardware::memory::DeviceMemory;

/// What a call is about, for saying what was wrong with it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    pub(crate) function: &'static str,
    pub(crate) address: usize,
}

impl Call {
    pub(crate) fn misuse(self, what: &str) -> ! {
        fatal::misuse(self.function, self.address, what)
    }
}

/// Where a job was initialised to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Path {
    /// On a device, or where that refuses a job, on the CPU.
    Auto,
    Hardware,
    Software,
}

/// A job that was initialised and not finished.
pub(crate) struct Record {
    pub(crate) path: Path,
    phase: Mutex<Phase>,
    memory: OnceLock<Box<DeviceMemory>>,
    /// Whether a page fault was met since the initialisation, after which libqpl lets no other pass.
    met_page_fault: AtomicBool,
}

/// How far a job has come.
pub(crate) enum Phase {
    New,
    InFlight(Flight),
    /// Done without a device, and not told yet.
    Done(Head, Status),
    Ended(Status),
    /// Ended by a page fault, after which it cannot be used before it is initialised again.
    Faulted(Status),
    /// A check was to submit its next descriptor, and found the queues full. Every further check tries again; no
    /// device has it.
    Refused(Flight),
}

impl Phase {
    /// Says whether a device has the job, of one that has not ended.
    pub(crate) fn is_in_flight(&mut self, is: bool) {
        *self = match std::mem::replace(self, Self::New) {
            Self::InFlight(flight) | Self::Refused(flight) if is => Self::InFlight(flight),
            Self::InFlight(flight) | Self::Refused(flight) => Self::Refused(flight),
            other => other,
        };
    }
}

/// A job that a device has, and whose caller has not been told of its end.
pub(crate) struct Flight {
    /// What the caller must leave as it is.
    pub(crate) head: Head,
    pub(crate) request: Request,
    pub(crate) descriptor: Descriptor,
    pub(crate) step: Step,
    /// Of the input, where that is looked at again.
    pub(crate) input_crc: Option<u32>,
}

/// Which of a job's descriptors a device has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The one that does what is asked for.
    First,
    /// The one that verifies what was compressed, whose CRC must be this.
    Verify { crc: u32 },
}

impl Record {
    pub(crate) fn new(path: Path) -> Arc<Self> {
        Arc::new(Self {
            path,
            phase: Mutex::new(Phase::New),
            memory: OnceLock::new(),
            met_page_fault: AtomicBool::new(false),
        })
    }

    pub(crate) fn phase(&self) -> MutexGuard<'_, Phase> {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a device writes of the job beside its output.
    pub(crate) fn memory(&self) -> &DeviceMemory {
        self.memory.get_or_init(DeviceMemory::new)
    }

    /// Whether a page fault was met before.
    pub(crate) fn met_page_fault(&self) -> bool {
        self.met_page_fault.load(Ordering::Relaxed)
    }

    pub(crate) fn meets_page_fault(&self) {
        self.met_page_fault.store(true, Ordering::Relaxed);
    }

    /// Checks that the job may be submitted.
    pub(crate) fn begin(&self, call: Call) {
        match *self.phase() {
            Phase::InFlight(_) | Phase::Done(..) => {
                call.misuse("it is in flight: it was submitted, and has not ended")
            }
            Phase::Faulted(status) => call.misuse(&format!(
                "it met a page fault (status {}); qpl_fini_job and qpl_init_job it first",
                status.0
            )),
            Phase::New | Phase::Ended(_) | Phase::Refused(_) => {}
        }
    }

    /// Checks that the job may be finished, or initialised again.
    pub(crate) fn end(&self, call: Call, again: bool) {
        match *self.phase() {
            Phase::InFlight(_) | Phase::Done(..) => call.misuse(
                "it is in flight: it was submitted, and neither qpl_check_job nor qpl_wait_job has \
                 told of its end",
            ),
            Phase::Faulted(status) if again => call.misuse(&format!(
                "it met a page fault (status {}); qpl_fini_job it before it is initialised again",
                status.0
            )),
            _ => {}
        }
    }
}

/// The fields by which a caller says what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    buffers: Buffers,
    op: u32,
    flags: u32,
    level: u32,
    numa_id: i32,
    /// Whether something is asked for that is not simulated: a Huffman table, a dictionary, an index, a part of a
    /// byte, another end than that of the final block.
    has_more: bool,
}

/// What a job is to do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request {
    pub(crate) operation: Operation,
    pub(crate) numa_id: i32,
    pub(crate) buffers: Buffers,
    /// Whether what was compressed is to be decompressed again.
    pub(crate) verifies: bool,
}

impl Request {
    /// Does something with the input and output of the job, which is in flight.
    #[allow(unsafe_code, reason = "the caller's buffers come from C")]
    pub(crate) fn on_buffers<T>(&self, then: impl FnOnce(&[u8], &mut [u8]) -> T) -> T {
        // SAFETY: `Head::request` has checked them. The job is in flight, so its caller leaves them alone, as
        // qpl_submit_job demands, until it is told of the end; and no device has a descriptor of it: this is called
        // before one is submitted, or in place of that, or when one has ended.
        let (input, output) = unsafe { self.buffers.slices() };
        then(input, output)
    }
}

impl Head {
    pub(crate) fn of(job: &Job) -> Self {
        Self {
            buffers: Buffers::of(job),
            op: job.op,
            flags: job.flags,
            level: job.level,
            numa_id: job.numa_id,
            has_more: !job.huffman_table.is_null()
                || !job.dictionary.is_null()
                || job.mini_block_size != 0
                || job.decomp_end_processing != 0
                || job.ignore_start_bits != 0
                || job.ignore_end_bits != 0,
        }
    }

    /// Whether the job asks for the level that only software has.
    pub(crate) fn is_for_software(&self) -> bool {
        self.op == Operation::Compress as u32 && self.level == LEVEL_3
    }

    /// Parses what is asked for.
    ///
    /// # Errors
    /// The status that libqpl answers; [`Status::NOT_SUPPORTED_MODE`] for what it could do and the
    /// simulation cannot.
    pub(crate) fn request(&self, path: Path) -> Result<Request, Status> {
        const WHOLE_STREAM: u32 = Flags::FIRST | Flags::LAST;
        const OPTIONAL: u32 = Flags::DYNAMIC_HUFFMAN | Flags::OMIT_VERIFY;
        if self.buffers.input.is_null() {
            return Err(Status::NULL_PTR);
        }
        let operation = match self.op {
            op if op == Operation::Compress as u32 => Operation::Compress,
            op if op == Operation::Decompress as u32 => Operation::Decompress,
            _ => return Err(Status::OPERATION),
        };
        if self.is_for_software() && path == Path::Hardware {
            return Err(Status::UNSUPPORTED_COMPRESSION_LEVEL);
        }
        self.buffers.check(operation)?;
        let is_compression = operation == Operation::Compress;
        if is_compression && self.level != Job::LEVEL_1 && self.level != LEVEL_3 {
            return Err(Status::UNSUPPORTED_COMPRESSION_LEVEL);
        }
        if self.flags & !OPTIONAL != WHOLE_STREAM || self.has_more {
            return Err(Status::NOT_SUPPORTED_MODE);
        }
        let verifies = is_compression && self.flags & Flags::OMIT_VERIFY == 0;
        Ok(Request { operation, numa_id: self.numa_id, buffers: self.buffers, verifies })
    }
}

/// `qpl_level_3`.
const LEVEL_3: u32 = 3;
