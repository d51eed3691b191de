//! The path through libqpl to the accelerator: a whole packet is submitted, then collected.

#[allow(unsafe_code, reason = "a device works on memory")]
mod queue;

use std::future::poll_fn;
use std::task::Poll;
use std::thread;
use std::time::{Duration, Instant};

use multifd_core::{Error, PageSize};
use qpl_sys::{Library, Operation, Status};

use self::queue::Queue;
use crate::job::{Ended, Job};
use crate::options::Options;
use crate::path::{Engine, Path};

/// Whether a job can be set up, which is what says whether there is a device to be used.
///
/// # Errors
/// Why not.
pub(crate) fn probe(library: &Library) -> Result<(), String> {
    Job::new(library, qpl_sys::Path::Hardware).map(drop).map_err(no_hardware)
}

fn no_hardware(status: Status) -> String {
    format!("no IAA can be used: {status}; see multifd doctor")
}

/// One channel's jobs on the devices. The jobs of a packet are numbered by page.
#[derive(Debug)]
pub(crate) struct Hardware {
    queue: Queue,
    options: Options,
    /// The devices are not used any more.
    off: bool,
    /// How long a job is waited for.
    patience: Duration,
    /// Jobs that no device took, since one was.
    refused_in_a_row: u32,
    retries: u64,
    errors: u64,
}

/// What became of a job that was to be submitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Submitted {
    /// A device has it; [`Hardware::ended`] says how it ends.
    Yes,
    /// All queues were full, time and again.
    Busy,
    /// No device takes it, or any job any more.
    No,
}

/// How a submitted job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It is done, with so many bytes of output.
    Done(usize),
    /// There is more output than room.
    DoesNotFit,
    /// The device can make nothing of the data.
    Refused,
    /// It failed, says of itself what cannot be, or did not end and was given up.
    Failed,
}

impl Hardware {
    /// Sets up the jobs of a channel whose engine is the hardware.
    ///
    /// # Errors
    /// Why the devices cannot be used after all, where their path was named. Otherwise, the channel
    /// does without.
    pub(crate) fn of(
        engine: &Engine,
        page_size: PageSize,
        options: &Options,
    ) -> Result<Option<Self>, Error> {
        let Engine::Hardware(library) = engine else { return Ok(None) };
        options.numa.check(library.version()).map_err(Error::backend)?;
        match Queue::new(library, page_size, options) {
            Ok(queue) => Ok(Some(Self {
                queue,
                options: *options,
                off: false,
                patience: options.timeout,
                refused_in_a_row: 0,
                retries: 0,
                errors: 0,
            })),
            Err(status) if options.path == Path::Auto => {
                tracing::warn!("a channel goes without IAA: {}", no_hardware(status));
                Ok(None)
            }
            Err(status) => Err(Error::backend(no_hardware(status))),
        }
    }

    /// Waits for what is left of a packet that was given up half-way.
    pub(crate) async fn settle(&mut self) {
        for page in self.queue.submitted() {
            // What it did is of no use to anybody, but what failed must be set up anew.
            self.ended(page, |_| true).await;
        }
    }

    /// Submits the job of a page: `op` on `input`, with room for `output_bytes`.
    pub(crate) fn submit(
        &mut self,
        page: usize,
        op: Operation,
        input: &[u8],
        output_bytes: usize,
    ) -> Submitted {
        if self.off {
            return Submitted::No;
        }
        if let Err(status) = self.queue.load(page, op, input, output_bytes) {
            return self.refused(page, status);
        }
        let mut left = self.options.submit_retries;
        loop {
            match self.queue.submit(page) {
                Ok(()) => {
                    self.refused_in_a_row = 0;
                    return Submitted::Yes;
                }
                Err(Status::QUEUES_ARE_BUSY) if left > 0 => {
                    left -= 1;
                    self.retries += 1;
                }
                Err(Status::QUEUES_ARE_BUSY) => return Submitted::Busy,
                Err(status) => return self.refused(page, status),
            }
        }
    }

    /// How a submitted job ended, where `good` tells counts of a job that is done from those that
    /// cannot be.
    pub(crate) async fn ended(&mut self, page: usize, good: impl Fn(Ended) -> bool) -> Outcome {
        let Some(ended) = self.awaited(page).await else { return Outcome::Failed };
        match ended.status {
            Status::OK if good(ended) => return Outcome::Done(ended.written),
            Status::MORE_OUTPUT_NEEDED => return Outcome::DoesNotFit,
            _ => self.errors += 1,
        }
        if ended.status.is_operation_error() {
            return Outcome::Refused;
        }
        self.queue.spoil(page);
        if ended.status.is_set_up_error() {
            self.turn_off(&ended.status.to_string());
        }
        Outcome::Failed
    }

    /// Waits for a submitted job; `None` where it does not end, and was given up.
    async fn awaited(&mut self, page: usize) -> Option<Ended> {
        /// Checks before anybody else is let in: most jobs have ended when they are asked for.
        const CHECKS: usize = 32;

        let mut since = None;
        loop {
            for _ in 0..CHECKS {
                if let Some(ended) = self.queue.ended(page) {
                    return Some(ended);
                }
                std::hint::spin_loop();
            }
            if since.get_or_insert_with(Instant::now).elapsed() >= self.patience {
                self.give_up(page);
                return None;
            }
            yield_now().await;
        }
    }

    /// Leaves a job that does not end to its device.
    fn give_up(&mut self, page: usize) {
        self.errors += 1;
        self.queue.give_up(page);
        self.turn_off(&format!("a job does not end within {:?}", self.options.timeout));
        // The others have had the same time.
        self.patience = Duration::ZERO;
    }

    /// The page of output of a job that rests.
    ///
    /// # Panics
    /// Where its job runs, as one does for ever that was [given up](Self::ended).
    pub(crate) fn output(&mut self, page: usize) -> &mut [u8] {
        self.queue.output(page)
    }

    /// How many times a job was submitted again since the queues were full.
    pub(crate) fn retries(&self) -> u64 {
        self.retries
    }

    /// How many jobs failed or were refused, be it for the data.
    pub(crate) fn errors(&self) -> u64 {
        self.errors
    }

    /// Counts a job that no device takes, and draws the consequences for those to come.
    fn refused(&mut self, page: usize, status: Status) -> Submitted {
        /// A packet of pages: with so many, it is not about one of them.
        const MOST_IN_A_ROW: u32 = 128;

        self.errors += 1;
        self.refused_in_a_row += 1;
        self.queue.spoil(page);
        let numa = self.options.numa;
        // What libqpl answers, too, where no device is near the processor that this thread is on now.
        if status == Status::INIT_WORK_QUEUES_NOT_AVAILABLE && self.queue.widen() {
            tracing::warn!("there is no IAA by NUMA policy {numa}: any is used from now on");
        } else if status.is_set_up_error() || self.refused_in_a_row >= MOST_IN_A_ROW {
            self.turn_off(&format!("{status} (NUMA policy {numa})"));
        }
        Submitted::No
    }

    fn turn_off(&mut self, reason: &str) {
        if !self.off {
            tracing::warn!("the channel goes on without IAA: {reason}; see multifd doctor");
        }
        self.off = true;
    }
}

/// Lets other threads and, in an asynchronous program, other tasks run.
async fn yield_now() {
    thread::yield_now();
    let mut yielded = false;
    poll_fn(|context| {
        if yielded {
            return Poll::Ready(());
        }
        yielded = true;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
