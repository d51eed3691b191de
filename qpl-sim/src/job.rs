//! A job: what its caller asks for, and how far it has come.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use qpl_sys::{Flags, Job, Operation, Status};

use crate::buffers::Buffers;
use crate::fatal;
use crate::software::Outcome;

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
    computed: Condvar,
}

/// How far a job has come.
pub(crate) enum Phase {
    New,
    InFlight(Flight),
    Ended(Status),
    /// Ended by a page fault, after which it cannot be used before it is initialised again.
    Faulted(Status),
}

/// A job that was submitted, and whose caller has not been told of its end.
pub(crate) struct Flight {
    /// What the caller must leave as it is.
    pub(crate) head: Head,
    /// Of the input, where that is looked at again.
    pub(crate) input_crc: Option<u32>,
    /// When it ends at the earliest, on the simulation's clock.
    pub(crate) due: u64,
    /// Once it is computed.
    pub(crate) outcome: Option<Outcome>,
}

impl Record {
    pub(crate) fn new(path: Path) -> Arc<Self> {
        Arc::new(Self { path, phase: Mutex::new(Phase::New), computed: Condvar::new() })
    }

    pub(crate) fn phase(&self) -> MutexGuard<'_, Phase> {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Checks that the job may be submitted, and has it in flight.
    pub(crate) fn begin(&self, call: Call, head: Head) {
        let mut phase = self.phase();
        match *phase {
            Phase::InFlight(_) => {
                call.misuse("it is in flight: it was submitted, and has not ended")
            }
            Phase::Faulted(status) => call.misuse(&format!(
                "it met a page fault (status {}); qpl_fini_job and qpl_init_job it first",
                status.0
            )),
            Phase::New | Phase::Ended(_) => {
                *phase = Phase::InFlight(Flight { head, input_crc: None, due: 0, outcome: None });
            }
        }
    }

    /// The job was not taken after all.
    pub(crate) fn refuse(&self) {
        *self.phase() = Phase::New;
    }

    /// Notes something of the job's flight.
    pub(crate) fn note(&self, note: impl FnOnce(&mut Flight)) {
        if let Phase::InFlight(flight) = &mut *self.phase() {
            note(flight);
        }
    }

    /// The job is computed, at `now`.
    pub(crate) fn complete(&self, outcome: Outcome, now: u64) {
        self.note(|flight| {
            flight.due = flight.due.max(now);
            flight.outcome = Some(outcome);
        });
        self.computed.notify_all();
    }

    /// Blocks while the job is in flight and not computed. Returns when it is due, or `None` if it
    /// is not in flight.
    pub(crate) fn wait_until_computed(&self) -> Option<u64> {
        let waits = |phase: &mut Phase| matches!(phase, Phase::InFlight(flight) if flight.outcome.is_none());
        let phase = self.computed.wait_while(self.phase(), waits);
        match &*phase.unwrap_or_else(PoisonError::into_inner) {
            Phase::InFlight(flight) => Some(flight.due),
            _ => None,
        }
    }

    /// Checks that the job may be finished, or initialised again.
    pub(crate) fn end(&self, call: Call, again: bool) {
        match *self.phase() {
            Phase::InFlight(_) => call.misuse(
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
    /// Whether something is asked for that is not simulated: a Huffman table, a dictionary, an index.
    has_more: bool,
}

/// What a job is to do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request {
    pub(crate) operation: Operation,
    pub(crate) numa_id: i32,
    buffers: Buffers,
}

impl Request {
    /// Bytes of the side that is not compressed.
    pub(crate) fn page_bytes(&self) -> u32 {
        self.buffers.page_bytes(self.operation)
    }

    /// A checksum of the input of the job, which is in flight.
    pub(crate) fn input_crc(&self) -> u32 {
        self.buffers.input_crc()
    }

    /// Does something with the input and output of the job, which is in flight.
    #[allow(unsafe_code, reason = "the caller's buffers come from C")]
    pub(crate) fn on_buffers<T>(&self, then: impl FnOnce(&[u8], &mut [u8]) -> T) -> T {
        // SAFETY: `Head::request` has checked them. The job is in flight, so its caller leaves them
        // alone, as qpl_submit_job demands, until it is told of the end; and that is after this
        // returns, which is called once a flight, or once more when nothing was done.
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
                || job.mini_block_size != 0,
        }
    }

    pub(crate) fn input_crc(&self) -> u32 {
        self.buffers.input_crc()
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
        self.buffers.check()?;
        let operation = match self.op {
            op if op == Operation::Compress as u32 => Operation::Compress,
            op if op == Operation::Decompress as u32 => Operation::Decompress,
            _ => return Err(Status::OPERATION),
        };
        if operation == Operation::Compress
            && self.level != Job::LEVEL_1
            && (self.level != LEVEL_3 || path == Path::Hardware)
        {
            return Err(Status::UNSUPPORTED_COMPRESSION_LEVEL);
        }
        if self.flags & !OPTIONAL != WHOLE_STREAM || self.has_more {
            return Err(Status::NOT_SUPPORTED_MODE);
        }
        Ok(Request { operation, numa_id: self.numa_id, buffers: self.buffers })
    }
}

/// `qpl_level_3`.
const LEVEL_3: u32 = 3;
