//! What the devices read and write: jobs, and the memory of their pages.

use std::mem;
use std::ops::Range;
use std::thread;
use std::time::{Duration, Instant};

use multifd_core::ram::PageMemory;
use multifd_core::{ChannelConfig, PageSize};
use qpl_sys::{Job as RawJob, Library, Operation, Path, Status};

use crate::job::{Ended, Job};
use crate::options::Numa;

/// How long dropping a queue waits, in all, for jobs that are nearly done: a packet's take a
/// millisecond or two.
const GRACE: Duration = Duration::from_millis(20);

/// A job for every page of a packet, each with memory for a page of output.
///
/// A job of libqpl takes 190 KB, and its set-up longer than a page, so each is set up when a packet first
/// has a page for it; the first one with the queue, which so says whether there can be any.
///
/// A device may be at work on a job, its input and its output after a call has returned, whatever
/// becomes of the caller. So all three belong to the queue while it is: the input by a clone of a
/// packet's memory, which nobody writes while there is one; the output is lent out only while the
/// job rests. What runs when the queue is dropped, and for the [grace](GRACE) after that, is never
/// freed.
pub(super) struct Queue {
    library: Library,
    slots: Vec<Slot>,
    /// What the jobs of a packet read, until the packet [ends](Self::end).
    input: Option<PageMemory>,
    /// Jobs that were submitted, have not ended, and were not given up: they read the input.
    submitted: usize,
    config: ChannelConfig,
    numa_id: i32,
}

struct Slot {
    /// There from the first set-up on.
    job: Option<Job>,
    state: State,
    /// Empty before it is first used.
    output: PageMemory,
}

enum State {
    /// Its job must be set up, at first or anew, before it runs.
    Unset,
    Resting,
    /// The device has it.
    Submitted,
    /// The device has it with this input, and is not expected to end it.
    GivenUp(#[allow(dead_code, reason = "it is held")] Option<PageMemory>),
}

impl Queue {
    /// Room for so many jobs for pages of the size in `config`, for devices of `numa`; the first is set
    /// up.
    ///
    /// # Errors
    /// What libqpl answers, where it cannot set a job up.
    pub(super) fn new(
        library: &Library,
        jobs: usize,
        config: &ChannelConfig,
        numa: Numa,
    ) -> Result<Self, Status> {
        let mut slots: Vec<_> = (0..jobs).map(|_| Slot::new()).collect();
        if let Some(first) = slots.first_mut() {
            first.set_up(library)?;
        }
        Ok(Self {
            library: library.clone(),
            slots,
            input: None,
            submitted: 0,
            config: *config,
            numa_id: numa.id(),
        })
    }

    /// Begins a packet whose jobs read `input`.
    ///
    /// # Panics
    /// While one of the packet before does.
    pub(super) fn begin(&mut self, input: PageMemory) {
        self.end();
        self.input = Some(input);
    }

    /// Ends the packet, and lets its input go.
    ///
    /// # Panics
    /// While a job reads it.
    pub(super) fn end(&mut self) {
        assert!(self.submitted == 0, "a job runs");
        self.input = None;
    }

    /// The input of the packet that was begun.
    pub(super) fn input(&self) -> Option<&PageMemory> {
        self.input.as_ref()
    }

    /// Has the slot's job do `op`, next, on the bytes in `range` of the packet's input, with room
    /// for `output_bytes`.
    ///
    /// # Errors
    /// What libqpl answers, where the job must be set up, at first or anew, and cannot.
    ///
    /// # Panics
    /// While the job runs; with more bytes than a page; where no packet was begun.
    pub(super) fn load(
        &mut self,
        slot: usize,
        op: Operation,
        range: Range<usize>,
        output_bytes: usize,
    ) -> Result<Loaded<'_>, Status> {
        let input = &self.input.as_ref().expect("a packet was begun").as_slice()[range];
        let slot = &mut self.slots[slot];
        assert!(!slot.state.runs(), "the job runs");
        slot.set_up(&self.library)?;
        let output = slot.room(self.config.page_size);
        self.config.fill_scratch(output);
        let output = &mut output[..output_bytes];
        let (input, output) = ((input.as_ptr(), input.len()), (output.as_mut_ptr(), output.len()));
        slot.job().set(op, input, output, self.numa_id);
        Ok(Loaded { slot, submitted: &mut self.submitted })
    }

    /// Lets jobs have any device from now on, where they were to have a near one. Returns whether
    /// that is something new.
    pub(super) fn widen(&mut self) -> bool {
        let near = self.numa_id == RawJob::NUMA_SOCKET || self.numa_id == RawJob::NUMA_NODE;
        if near {
            self.numa_id = RawJob::NUMA_ANY;
        }
        near
    }

    /// How the slot's job ended; `None` while it runs.
    ///
    /// # Panics
    /// Where it was not submitted.
    pub(super) fn ended(&mut self, slot: usize) -> Option<Ended> {
        let slot = &mut self.slots[slot];
        let counted = matches!(slot.state, State::Submitted);
        let ended = slot.ended()?;
        self.submitted -= usize::from(counted);
        Some(ended)
    }

    /// Has the slot's job set up anew before it is loaded again.
    ///
    /// # Panics
    /// While the job runs.
    pub(super) fn spoil(&mut self, slot: usize) {
        let state = &mut self.slots[slot].state;
        assert!(!state.runs(), "the job runs");
        *state = State::Unset;
    }

    /// Leaves the slot to its device for ever.
    ///
    /// # Panics
    /// Where its job was not submitted.
    pub(super) fn give_up(&mut self, slot: usize) {
        let state = &mut self.slots[slot].state;
        assert!(matches!(state, State::Submitted), "the job was not submitted");
        *state = State::GivenUp(self.input.clone());
        self.submitted -= 1;
    }

    /// The slot's output. Clones may be kept: the next job then has other memory.
    ///
    /// # Panics
    /// While the slot's job runs.
    pub(super) fn output(&self, slot: usize) -> &PageMemory {
        let Slot { state, output, .. } = &self.slots[slot];
        assert!(!state.runs(), "the job runs");
        output
    }

    /// The slot's output, to be written in a job's place.
    ///
    /// # Panics
    /// While the slot's job runs.
    pub(super) fn output_mut(&mut self, slot: usize) -> &mut [u8] {
        let slot = &mut self.slots[slot];
        assert!(!slot.state.runs(), "the job runs");
        slot.room(self.config.page_size)
    }

    /// A slot whose job was submitted and has not ended.
    pub(super) fn submitted(&self) -> Option<usize> {
        self.slots.iter().position(|slot| matches!(slot.state, State::Submitted))
    }
}

/// A job that is set, and may be submitted.
pub(super) struct Loaded<'a> {
    slot: &'a mut Slot,
    submitted: &'a mut usize,
}

impl Loaded<'_> {
    /// Has a device run the job.
    ///
    /// # Errors
    /// What libqpl answers, where it does not take the job, and the job, to be submitted again.
    pub(super) fn submit(self) -> Result<(), (Self, Status)> {
        // SAFETY: `load` has set the job to a part of the queue's input and to the slot's output, of
        // which it has made sure that nobody else holds a clone; and since then this value has kept
        // everybody else from the queue. From now on nothing here lends the output, sets the job or
        // frees either before `Slot::ended` has found that it has ended. The input is neither
        // written nor freed: the queue holds its clone for as long as a job counts as submitted,
        // and one that is given up a clone of its own.
        let status = unsafe { self.slot.job().submit() };
        if status != Status::OK {
            return Err((self, status));
        }
        self.slot.state = State::Submitted;
        *self.submitted += 1;
        Ok(())
    }
}

impl Slot {
    fn new() -> Self {
        Self { job: None, state: State::Unset, output: PageMemory::new(0) }
    }

    /// Sets the job up, unless it is. After an error everything is as it was.
    fn set_up(&mut self, library: &Library) -> Result<(), Status> {
        if matches!(self.state, State::Unset) {
            self.job = Some(Job::new(library, Path::Hardware)?);
            self.state = State::Resting;
        }
        Ok(())
    }

    fn job(&mut self) -> &mut Job {
        self.job.as_mut().expect("the job was set up")
    }

    /// The output of a job that does not run.
    fn room(&mut self, page_size: PageSize) -> &mut [u8] {
        if self.output.as_slice().is_empty() {
            self.output = PageMemory::new(page_size.bytes());
        }
        self.output.get_mut_or_new()
    }

    fn ended(&mut self) -> Option<Ended> {
        assert!(self.state.runs(), "the job was not submitted");
        // SAFETY: it was.
        let ended = unsafe { self.job().check() }?;
        self.state = State::Resting;
        Some(ended)
    }

    /// Waits until the job does not run, at most until `deadline`, and not for one that was given
    /// up, which may have ended meanwhile. Returns whether it rests.
    fn settle(&mut self, deadline: Instant) -> bool {
        while self.state.runs() && self.ended().is_none() {
            if matches!(self.state, State::GivenUp(_)) || Instant::now() >= deadline {
                return false;
            }
            thread::yield_now();
        }
        true
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        let deadline = Instant::now() + GRACE;
        let mut left = 0;
        for mut slot in self.slots.drain(..) {
            if !slot.settle(deadline) {
                mem::forget(slot);
                left += 1;
            }
        }
        if left > 0 {
            mem::forget(self.input.take());
            tracing::warn!("an IAA has not ended {left} jobs: their memory is left to it");
        }
    }
}

impl State {
    /// Whether a device may be at work on the slot.
    fn runs(&self) -> bool {
        matches!(self, Self::Submitted | Self::GivenUp(_))
    }
}
