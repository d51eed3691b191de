//! What the devices read and write: jobs, and the memory of their pages.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::mem;
use std::ptr::NonNull;
use std::slice;
use std::thread;
use std::time::{Duration, Instant};

use multifd_core::PageSize;
use qpl_sys::{Job as RawJob, Library, Operation, Path, Status};

use crate::job::{Ended, Job};
use crate::options::Options;

/// A job for every page of a packet, each with memory for a page of input and one of output.
///
/// A device may be at work on any of it after a call has returned, whatever becomes of the caller.
/// That is why the memory is this type's own: it is borrowed out only while its job rests, and it
/// is freed only when no job runs. What a device never gives back is never freed.
#[derive(Debug)]
pub(super) struct Queue {
    slots: Vec<Slot>,
    input: Pages,
    output: Pages,
    numa_id: i32,
    /// How long a job may take.
    timeout: Duration,
}

#[derive(Debug)]
struct Slot {
    job: Job,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Resting,
    /// Its job is set, and may be submitted.
    Loaded,
    /// The device has it.
    Submitted,
    /// It must be set up anew before it runs again.
    Spoilt,
    /// The device has it, and is not expected to end it.
    GivenUp,
}

impl Queue {
    /// Sets up a job for each page of a packet.
    ///
    /// # Errors
    /// What libqpl answers, where it cannot.
    pub(super) fn new(
        library: &Library,
        page_size: PageSize,
        options: &Options,
    ) -> Result<Self, Status> {
        let numa_id = options.numa.id();
        let slot = |_| {
            let job = Job::new(library, Path::Hardware)?;
            Ok(Slot { job, state: State::Resting })
        };
        let slots = (0..page_size.page_count()).map(slot).collect::<Result<_, _>>()?;
        let [input, output] = [Pages::new(page_size), Pages::new(page_size)];
        Ok(Self { slots, input, output, numa_id, timeout: options.timeout })
    }

    /// Has the slot's job do `op`, next, with a copy of `input`, and room for `output_bytes`.
    ///
    /// # Errors
    /// What libqpl answers, where the job must be set up anew and cannot.
    ///
    /// # Panics
    /// While the job runs; with more bytes than a page.
    pub(super) fn load(
        &mut self,
        slot: usize,
        op: Operation,
        input: &[u8],
        output_bytes: usize,
    ) -> Result<(), Status> {
        let Slot { job, state } = &mut self.slots[slot];
        assert!(!state.runs(), "the job runs");
        assert!(output_bytes <= self.output.page_bytes, "a slot has room for a page");
        if *state == State::Spoilt {
            job.set_up_anew()?;
        }
        *state = State::Loaded;
        // SAFETY: the slot's job rests, so no device is at its pages.
        let page = unsafe { self.input.page_mut(slot) };
        page[..input.len()].copy_from_slice(input);
        let output = (self.output.at(slot).as_ptr(), output_bytes);
        job.set(op, (page.as_ptr(), input.len()), output, self.numa_id);
        Ok(())
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

    /// Has a device run the job as it was [loaded](Self::load).
    ///
    /// # Errors
    /// What libqpl answers, where it does not take the job. It may be submitted again.
    ///
    /// # Panics
    /// While the job runs, and before it was loaded.
    pub(super) fn submit(&mut self, slot: usize) -> Result<(), Status> {
        let Slot { job, state } = &mut self.slots[slot];
        assert!(*state == State::Loaded, "the job was not loaded");
        // SAFETY: from now on the slot counts as submitted, and nothing here lends its pages, sets
        // its job or frees any of the three before `ended` has found that it has ended. Input and
        // output are as long as `load` told the job.
        let status = unsafe { job.submit() };
        if status != Status::OK {
            return Err(status);
        }
        *state = State::Submitted;
        Ok(())
    }

    /// How the slot's job ended; `None` while it runs.
    ///
    /// # Panics
    /// Where it was not submitted.
    pub(super) fn ended(&mut self, slot: usize) -> Option<Ended> {
        let Slot { job, state } = &mut self.slots[slot];
        assert!(state.runs(), "the job was not submitted");
        // SAFETY: it was.
        let ended = unsafe { job.check() }?;
        *state = State::Resting;
        Some(ended)
    }

    /// Has the slot's job set up anew before it is loaded again.
    ///
    /// # Panics
    /// While the job runs.
    pub(super) fn spoil(&mut self, slot: usize) {
        let state = &mut self.slots[slot].state;
        assert!(!state.runs(), "the job runs");
        *state = State::Spoilt;
    }

    /// Leaves the slot to its device for ever.
    ///
    /// # Panics
    /// Where its job was not submitted.
    pub(super) fn give_up(&mut self, slot: usize) {
        let state = &mut self.slots[slot].state;
        assert!(*state == State::Submitted, "the job was not submitted");
        *state = State::GivenUp;
    }

    /// The page of output of the slot.
    ///
    /// # Panics
    /// While the slot's job runs.
    pub(super) fn output(&mut self, slot: usize) -> &mut [u8] {
        assert!(!self.slots[slot].state.runs(), "the job runs");
        // SAFETY: the slot's job rests, so no device is at its pages.
        unsafe { self.output.page_mut(slot) }
    }

    /// The slots whose jobs were submitted and have not ended.
    pub(super) fn submitted(&self) -> impl Iterator<Item = usize> + use<> {
        let running = |slot: &Slot| slot.state == State::Submitted;
        let slots: Vec<_> = (0..self.slots.len()).filter(|&at| running(&self.slots[at])).collect();
        slots.into_iter()
    }

    /// Waits until no job runs, but no longer than `timeout`, and not for those that were given up,
    /// which may have ended meanwhile. Returns whether none runs.
    fn settle(&mut self, timeout: Duration) -> bool {
        let started = Instant::now();
        for slot in self.submitted() {
            while self.ended(slot).is_none() {
                if started.elapsed() >= timeout {
                    return false;
                }
                thread::yield_now();
            }
        }
        let given_up = |slot: &usize| self.slots[*slot].state == State::GivenUp;
        let given_up: Vec<_> = (0..self.slots.len()).filter(given_up).collect();
        given_up.into_iter().all(|slot| self.ended(slot).is_some())
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        if self.settle(self.timeout) {
            return;
        }
        tracing::warn!("an IAA does not end a job: the memory of one channel's jobs is left to it");
        mem::forget(mem::take(&mut self.slots));
        self.input.give_up();
        self.output.give_up();
    }
}

impl State {
    /// Whether a device may be at work on the slot.
    fn runs(self) -> bool {
        matches!(self, Self::Submitted | Self::GivenUp)
    }
}

/// Memory for a page a slot.
#[derive(Debug)]
struct Pages {
    memory: NonNull<u8>,
    page_bytes: usize,
    layout: Layout,
    given_up: bool,
}

// SAFETY: the memory belongs to this value alone.
unsafe impl Send for Pages {}

impl Pages {
    fn new(page_size: PageSize) -> Self {
        let page_bytes = page_size.bytes();
        let layout = Layout::from_size_align(page_bytes * page_size.page_count(), page_bytes);
        let layout = layout.expect("a packet has 512 KiB");
        // SAFETY: the size is not 0.
        let memory = unsafe { alloc(layout) };
        let Some(memory) = NonNull::new(memory) else { handle_alloc_error(layout) };
        // Every page is touched, and not with zeros, which might be mapped only when they are used:
        // a device that meets a page fault is several times slower.
        // SAFETY: the memory is as long as the layout says.
        unsafe { memory.write_bytes(0xff, layout.size()) };
        Self { memory, page_bytes, layout, given_up: false }
    }

    /// Where the slot's page begins.
    fn at(&self, slot: usize) -> NonNull<u8> {
        assert!((slot + 1) * self.page_bytes <= self.layout.size(), "there is such a slot");
        // SAFETY: the page is within the memory.
        unsafe { self.memory.add(slot * self.page_bytes) }
    }

    /// The slot's page.
    ///
    /// # Safety
    /// No device reads or writes it while it is borrowed.
    unsafe fn page_mut(&mut self, slot: usize) -> &mut [u8] {
        // SAFETY: the page is within the memory, which was written once; `&mut self` keeps others
        // away, and the caller the devices.
        unsafe { slice::from_raw_parts_mut(self.at(slot).as_ptr(), self.page_bytes) }
    }

    /// Leaves the memory to a device for ever.
    fn give_up(&mut self) {
        self.given_up = true;
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        if !self.given_up {
            // SAFETY: it was allocated with that layout, and no device has it: see `Queue::drop`.
            unsafe { dealloc(self.memory.as_ptr(), self.layout) };
        }
    }
}
