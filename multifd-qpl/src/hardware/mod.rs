//! The path through libqpl to the accelerator: a whole packet is submitted, then collected.

#[allow(unsafe_code, reason = "a device works on memory")]
mod queue;

use std::future::poll_fn;
use std::ops::Range;
use std::ptr;
use std::task::Poll;
use std::thread;
use std::time::{Duration, Instant};

use multifd_core::ram::PageMemory;
use multifd_core::{ChannelConfig, Error, MethodCounters, PageSize};
use qpl_sys::{Library, Operation, Status};

use self::queue::Queue;
use crate::counts::{self, Counted, Counts};
use crate::engine::Engine;
use crate::job::{Ended, Job};
use crate::options::{Numa, Options};
use crate::path::Path;

/// Whether a job can be set up, which says whether there is a device.
///
/// # Errors
/// Why not.
pub(crate) fn probe(library: &Library) -> Result<(), String> {
    Job::new(library, qpl_sys::Path::Hardware).map(drop).map_err(no_hardware)
}

/// Whether there are devices by the NUMA policy. For a node, a job is what finds out, which is left
/// to a device that hangs.
///
/// # Errors
/// Why not, and what to do.
pub(crate) fn check(library: &Library, numa: Numa) -> Result<(), String> {
    let Numa::Of(node) = numa else { return Ok(()) };
    let config = ChannelConfig::new(0, PageSize::Kib4, 0);
    let mut queue = Queue::new(library, 1, &config, numa).map_err(no_hardware)?;
    let page_bytes = PageSize::Kib4.bytes();
    queue.begin(PageMemory::new(page_bytes));
    let job = queue.load(0, Operation::Compress, 0..page_bytes, page_bytes - 1);
    match job.map_err(no_hardware)?.submit() {
        Err((_, status)) if status.is_set_up_error() => Err(format!(
            "no IAA of NUMA node {node} can be used: {status}; choose another node, socket or any"
        )),
        // Anything else may pass, and is dealt with page by page.
        _ => Ok(()),
    }
}

fn no_hardware(status: Status) -> String {
    format!("no IAA can be used: {status}; see multifd doctor")
}

/// One channel's jobs on the devices, and what has become of the pages of a packet.
pub(crate) struct Hardware {
    queue: Queue,
    /// What has become of the packet's pages so far; `None` while a device has one.
    pages: Vec<Option<Page>>,
    options: Options,
    counters: MethodCounters,
    /// The devices are no longer used.
    off: bool,
    /// How long a job is waited for.
    patience: Duration,
    /// Since when no job has ended, where one is waited for. It outlives a wait that is given up.
    waiting_since: Option<Instant>,
    /// Jobs that no device took, since one was.
    refused_in_a_row: u32,
}

/// What has become of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Page {
    /// It goes, or came, as it is.
    Raw,
    /// A device is done with it: so many bytes of the slot's output.
    Done(usize),
    /// The CPU has done it at once, in a device's place: so many bytes of the slot's output.
    Busy(usize),
    /// It is left to the CPU.
    Left,
}

/// What became of a job that was to be submitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Submitted {
    /// A device has it.
    Yes,
    /// All queues were full at every try.
    Busy,
    /// No device takes it, or any job any more.
    No,
}

impl Hardware {
    /// Sets up the jobs of a channel whose engine is the hardware, and its counts.
    ///
    /// # Errors
    /// Why the devices cannot be used after all, where their path was named. Otherwise, the channel
    /// does without.
    pub(crate) fn of(
        engine: &Engine,
        options: &Options,
        config: &ChannelConfig,
    ) -> Result<Option<(Self, Counts)>, Error> {
        let Engine::Hardware(library) = engine else { return Ok(None) };
        let jobs = config.page_size.page_count();
        match Queue::new(library, jobs, config, options.numa) {
            Ok(queue) => {
                let counts = Counts::new(counts::HARDWARE);
                let hardware = Self {
                    queue,
                    pages: Vec::with_capacity(jobs),
                    options: *options,
                    counters: counts.counters(),
                    off: false,
                    patience: options.timeout,
                    waiting_since: None,
                    refused_in_a_row: 0,
                };
                Ok(Some((hardware, counts)))
            }
            Err(status) if options.path == Path::Auto => {
                tracing::warn!("a channel goes without IAA: {}", no_hardware(status));
                Ok(None)
            }
            Err(status) => Err(Error::backend(no_hardware(status))),
        }
    }

    /// Waits for what is left of a packet that was given up half-way. It is not gone on with.
    pub(crate) async fn settle(&mut self) {
        self.pages.clear();
        while let Some(page) = self.queue.submitted() {
            let ended = self.awaited(page).await;
            // Its result is not used, but a job that failed must be set up anew.
            self.outcome(page, ended, |_| true, Page::Left);
        }
        self.queue.end();
    }

    /// Begins a packet whose jobs read `input`, once all of another have ended.
    pub(crate) fn begin(&mut self, input: &PageMemory) {
        self.queue.begin(input.clone());
    }

    /// Whether a packet of so many pages with this input was begun, and not ended: one that was
    /// given up half-way, and is gone on with. The input has not changed, since a clone is held.
    pub(crate) fn has_begun(&self, input: &PageMemory, pages: usize) -> bool {
        let same = |begun: &PageMemory| ptr::eq(begun.as_slice(), input.as_slice());
        self.pages.len() == pages && self.queue.input().is_some_and(same)
    }

    /// Ends a packet all of whose jobs have ended.
    pub(crate) fn end(&mut self) {
        self.pages.clear();
        self.queue.end();
    }

    /// Says what becomes of the packet's next page; `None` where a device has it.
    pub(crate) fn push(&mut self, page: Option<Page>) {
        self.pages.push(page);
    }

    /// Submits the job of a page: `op` on a range of the packet's input, with room for
    /// `output_bytes`.
    pub(crate) fn submit(
        &mut self,
        page: usize,
        op: Operation,
        input: Range<usize>,
        output_bytes: usize,
    ) -> Submitted {
        if self.off {
            return Submitted::No;
        }
        match self.try_to_submit(page, op, input, output_bytes) {
            Ok(()) => {
                self.refused_in_a_row = 0;
                Submitted::Yes
            }
            Err(Status::QUEUES_ARE_BUSY) => Submitted::Busy,
            Err(status) => self.refused(page, status),
        }
    }

    fn try_to_submit(
        &mut self,
        page: usize,
        op: Operation,
        input: Range<usize>,
        output_bytes: usize,
    ) -> Result<(), Status> {
        let mut job = self.queue.load(page, op, input, output_bytes)?;
        for _ in 0..self.options.submit_retries {
            match job.submit() {
                Ok(()) => return Ok(()),
                Err((again, Status::QUEUES_ARE_BUSY)) => job = again,
                Err((_, status)) => return Err(status),
            }
            self.counters.add(Counted::Retries as usize, 1);
        }
        job.submit().map_err(|(_, status)| status)
    }

    /// What becomes of a page of the packet, once its job has ended. `good` says whether the counts
    /// of a job that is done are possible; `refused` is what becomes of a page that the devices
    /// cannot do.
    pub(crate) async fn resolved(
        &mut self,
        page: usize,
        good: impl Fn(Ended) -> bool,
        refused: Page,
    ) -> Page {
        if let Some(page) = self.pages[page] {
            return page;
        }
        let ended = self.awaited(page).await;
        let outcome = self.outcome(page, ended, good, refused);
        self.pages[page] = Some(outcome);
        outcome
    }

    /// What becomes of a page whose job has ended so, or was given up.
    fn outcome(
        &mut self,
        page: usize,
        ended: Option<Ended>,
        good: impl Fn(Ended) -> bool,
        refused: Page,
    ) -> Page {
        let Some(ended) = ended else { return Page::Left };
        match ended.status {
            Status::OK if good(ended) => return Page::Done(ended.written),
            Status::MORE_OUTPUT_NEEDED => return refused,
            _ => self.counters.add(Counted::Errors as usize, 1),
        }
        if ended.status.is_operation_error() {
            return refused;
        }
        self.queue.spoil(page);
        if ended.status.is_set_up_error() {
            self.turn_off(&ended.status.to_string());
        }
        Page::Left
    }

    /// Waits for a submitted job; `None` where it does not end, and was given up.
    async fn awaited(&mut self, page: usize) -> Option<Ended> {
        /// Checks before anybody else is let in: most jobs have ended when they are asked for.
        const CHECKS: usize = 32;

        loop {
            for _ in 0..CHECKS {
                if let Some(ended) = self.queue.ended(page) {
                    self.waiting_since = None;
                    return Some(ended);
                }
                std::hint::spin_loop();
            }
            let since = self.waiting_since.get_or_insert_with(Instant::now);
            if since.elapsed() >= self.patience {
                self.give_up(page);
                return None;
            }
            yield_now().await;
        }
    }

    /// Leaves a job that does not end to its device.
    fn give_up(&mut self, page: usize) {
        self.counters.add(Counted::Errors as usize, 1);
        self.queue.give_up(page);
        self.turn_off(&format!("a job does not end within {:?}", self.options.timeout));
        // The others have had the same time.
        self.patience = Duration::ZERO;
    }

    /// The output of a page whose job has ended, or that the CPU has written. It may be kept.
    pub(crate) fn output(&self, page: usize) -> &PageMemory {
        self.queue.output(page)
    }

    /// Room for a page that the CPU does while all queues are full.
    pub(crate) fn output_mut(&mut self, page: usize) -> &mut [u8] {
        self.queue.output_mut(page)
    }

    /// Counts a job that no device takes, and decides about those to come.
    fn refused(&mut self, page: usize, status: Status) -> Submitted {
        /// A packet of pages: so many refusals are not about one page.
        const MOST_IN_A_ROW: u32 = 128;

        self.counters.add(Counted::Errors as usize, 1);
        self.refused_in_a_row += 1;
        self.queue.spoil(page);
        let numa = self.options.numa;
        // libqpl also answers this where no device is near the processor that this thread is on now.
        if status == Status::INIT_WORK_QUEUES_NOT_AVAILABLE && self.queue.widen() {
            tracing::warn!("no IAA fits the NUMA policy {numa}: any is used from now on");
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
