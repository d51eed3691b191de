//! One device: what its queues take, when its engines are done with it, and what goes wrong.
//!
//! Time is computed, not slept through: an engine begins with a descriptor when it is done with the one
//! before, even if a thread of the simulation comes too late. So delays do not add up. [`Device`] has no
//! clock and no thread; [`Devices`] has both.

#[allow(unsafe_code, reason = "the futex call")]
mod event;
mod pending;
mod queue;
mod ring;
mod run;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

#[cfg(feature = "libaccel-config")]
pub(crate) use run::Clock;
pub use run::Devices;

pub use queue::{Pull, Pulled};

use iaa_timing::{Engines, Time, Turns};

use crate::completion::Completion;
use crate::config::{Config, Speed};
use crate::counters::Counters;
use crate::descriptor::Descriptor;
use crate::engine::Engine;
use crate::fault::{Fault, Faults, Refusal, WrongSize};
use crate::memory::Memory;
use crate::operation::{
    BLOCK_ON_FAULT, COMPLETION_REQUESTED, COMPLETION_VALID, COMPRESS, DECOMPRESS, NO_OPERATION,
};
use crate::status::Status;
use event::Event;
use pending::{Job, Pending, Todo};
use queue::{Queue, Taken};
use ring::Waiting;

/// A device. Times are nanoseconds of a clock of the caller's.
#[derive(Debug)]
pub struct Device {
    config: Config,
    faults: Faults,
    queues: Vec<Queue>,
    next_number: AtomicU64,
    was_reset: AtomicBool,
    counters: Counters,
    changed: Event,
    state: Mutex<State>,
    faulted: Faulted,
}

/// Descriptors that had a page fault by a fault, of which some are submitted once more: maybe to another
/// device.
type Faulted = Arc<Mutex<VecDeque<Descriptor>>>;

/// What became of a submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Submission {
    /// The queue has the descriptor.
    Accepted,
    /// The queue is full: try again.
    Full,
    /// The queue does not exist, is disabled, or its device was reset: it is so for ever.
    Disabled,
}

/// What [`Device::step`] came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Something was done; there may be more.
    Worked,
    /// There is nothing to do before that time, or, where it is none, before the next submission.
    Idle(Option<u64>),
}

#[derive(Debug)]
struct State {
    engines: Engines,
    turns: Turns,
    pending: Pending,
    /// Whether the device was reset: what was begun before is lost.
    is_reset: bool,
}

/// Of a no-operation: no fault is drawn for it.
const UNNUMBERED: u64 = u64::MAX;

const SUCCESS: u8 = Status::Success as u8;
const READ_FAULT: u8 = Status::ReadPageFault as u8;
const WRITE_FAULT: u8 = Status::WritePageFault as u8;

/// How many descriptors with page faults are remembered.
const FAULTED: usize = 1024;

impl Device {
    /// The device of that number, with queues that are submitted to by [`submit`](Self::submit).
    #[must_use]
    pub fn new(config: &Config, number: usize) -> Self {
        let queues = (0..config.queues).map(|queue| Queue::new(config.queue_depth(queue)));
        Self::with_queues(config, number, queues.collect())
    }

    /// One whose queues have their descriptors from elsewhere: a submission by [`submit`](Self::submit) finds
    /// them full.
    #[must_use]
    pub fn pulling(config: &Config, number: usize, pulls: Vec<Box<dyn Pull>>) -> Self {
        Self::with_queues(config, number, pulls.into_iter().map(Queue::pulling).collect())
    }

    fn with_queues(config: &Config, number: usize, queues: Vec<Queue>) -> Self {
        let priorities = (0..queues.len()).map(|queue| config.queue_priority(queue));
        let state = State {
            engines: Engines::new(config.engines),
            turns: Turns::new(priorities),
            pending: Pending::default(),
            is_reset: false,
        };
        Self {
            faults: Faults::new(config, number),
            queues,
            next_number: AtomicU64::new(0),
            was_reset: AtomicBool::new(false),
            counters: Counters::default(),
            changed: Event::default(),
            state: Mutex::new(state),
            faulted: Faulted::default(),
            config: config.clone(),
        }
    }

    /// What has happened on it.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Submits a descriptor to a queue, as ENQCMD does. Takes no lock and allocates nothing, so that a
    /// signal's handler may call it.
    pub fn submit(&self, queue: usize, descriptor: &Descriptor, now: u64) -> Submission {
        let Some(queue) = self.queues.get(queue).filter(|queue| queue.is_enabled()) else {
            self.counters.refused_disabled.one();
            return Submission::Disabled;
        };
        if !queue.take_place() {
            self.counters.refused_full.one();
            return Submission::Full;
        }
        let number = self.number(descriptor);
        if let Some(refusal) = self.refusal(queue, number) {
            queue.give_place_back();
            return refusal;
        }
        self.count_accepted(descriptor);
        queue.put(&Waiting { descriptor: *descriptor, number, arrived: now });
        self.changed.happen();
        Submission::Accepted
    }

    /// Does the next thing that is due: an operation on `memory` by `engine`, or a completion record.
    /// Any number of threads may call it, each with an engine's room of its own.
    pub fn step(&self, now: u64, engine: &mut Engine, memory: &impl Memory) -> Step {
        let mut state = self.state();
        if self.was_reset.load(Ordering::Acquire) {
            if !state.is_reset {
                self.lose_everything(&mut state);
            }
            return Step::Idle(None);
        }
        if let Some((number, todo)) = state.pending.take_due(now) {
            match todo {
                Todo::Write { completion, job } => {
                    drop(state);
                    self.complete(number, completion, job, now, memory);
                }
                Todo::Again(job) => self.run(state, job, now, engine, memory),
            }
            return Step::Worked;
        }
        let due = state.pending.next();
        let Some((index, free)) = state.engines.next() else { return Step::Idle(due) };
        if free > now {
            return Step::Idle(Some(due.map_or(free, |due| due.min(free))));
        }
        match self.take(&mut state, now) {
            Taken::One(waiting) => {
                let start = state.engines.begin(index, waiting.arrived);
                let job = self.job(index, &waiting, start);
                self.run(state, job, now, engine, memory);
                Step::Worked
            }
            Taken::None { until } => Step::Idle([due, until].into_iter().flatten().min()),
        }
    }

    /// Says that there may be something to [`Pull`].
    pub fn wake(&self) {
        self.changed.happen();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of a descriptor, by which its faults are decided.
    fn number(&self, descriptor: &Descriptor) -> u64 {
        // A program waits for no-operations without a limit before it begins. So they meet no fault.
        match descriptor.opcode() {
            NO_OPERATION => UNNUMBERED,
            _ => self.next_number.fetch_add(1, Ordering::Relaxed),
        }
    }

    fn refusal(&self, queue: &Queue, number: u64) -> Option<Submission> {
        if number == UNNUMBERED {
            return None;
        }
        Some(match self.faults.refusal(number)? {
            Refusal::Full => {
                self.counters.faults_queue_full.one();
                Submission::Full
            }
            Refusal::QueueDisabled => {
                queue.disable();
                self.counters.refused_disabled.one();
                Submission::Disabled
            }
            Refusal::Reset => {
                self.reset();
                self.counters.refused_disabled.one();
                Submission::Disabled
            }
        })
    }

    /// Resets the device, as its driver does: what is not completed never will be, and its queues take
    /// nothing any more.
    pub fn reset(&self) {
        for queue in &self.queues {
            queue.disable();
        }
        self.was_reset.store(true, Ordering::Release);
        self.changed.happen();
    }

    /// Disables a queue: it takes nothing any more; what it has is done.
    pub fn disable(&self, queue: usize) {
        if let Some(queue) = self.queues.get(queue) {
            queue.disable();
        }
    }

    fn count_accepted(&self, descriptor: &Descriptor) {
        match descriptor.opcode() {
            NO_OPERATION => self.counters.no_operations.one(),
            _ => self.counters.accepted.one(),
        }
    }

    fn lose_everything(&self, state: &mut State) {
        let waiting = self.queues.iter().map(Queue::drain).sum::<u64>();
        let begun = state.engines.at_work() as u64;
        // An engine that waits for memory is busy: its job is counted already.
        let done = state.pending.clear();
        self.counters.lost_by_reset.add(waiting + begun + done);
        self.counters.resets.one();
        state.is_reset = true;
    }

    /// Takes a descriptor from the queue whose turn it is.
    fn take(&self, state: &mut State, now: u64) -> Taken {
        let mut until = None;
        let mut served = None;
        for index in state.turns.iter() {
            let taken = self.queues[index].take(now, &self.counters);
            match taken {
                queue::FromQueue::Waiting(waiting) => {
                    served = Some((index, waiting));
                    break;
                }
                queue::FromQueue::Pulled { descriptor, arrived } => {
                    let number = self.number(&descriptor);
                    self.count_accepted(&descriptor);
                    self.close_pulled(index, number, now);
                    served = Some((index, Waiting { descriptor, number, arrived }));
                    break;
                }
                queue::FromQueue::Nothing { until: queue } => {
                    until = [until, queue].into_iter().flatten().min();
                }
            }
        }
        let Some((index, waiting)) = served else { return Taken::None { until } };
        state.turns.serve(index);
        Taken::One(waiting)
    }

    /// What a refusal does to a queue that has accepted the descriptor already.
    fn close_pulled(&self, queue: usize, number: u64, now: u64) {
        let queue = &self.queues[queue];
        if number == UNNUMBERED {
            return;
        }
        match self.faults.refusal(number) {
            Some(Refusal::Full) => {
                self.counters.faults_queue_full.one();
                queue.close_until(now + self.config.faults.queue_full_time);
            }
            Some(Refusal::QueueDisabled) => queue.disable(),
            Some(Refusal::Reset) if queue.is_enabled() => self.reset(),
            Some(Refusal::Reset) | None => {}
        }
    }

    fn job(&self, engine: usize, waiting: &Waiting, start: u64) -> Job {
        let Waiting { descriptor, number, .. } = *waiting;
        let permits = descriptor.flags() & BLOCK_ON_FAULT != 0 && self.config.block_on_fault;
        let give_up = start.saturating_add(if permits { self.config.block_limit } else { 0 });
        let mut job = Job {
            descriptor,
            number,
            engine,
            start,
            give_up,
            permits_block: permits,
            fault: None,
            factor: 1.0,
        };
        if number == UNNUMBERED {
            return job;
        }
        let mut faulted = self.faulted.lock().unwrap_or_else(PoisonError::into_inner);
        let before = faulted.len();
        faulted.retain(|faulted| faulted.0[8..] != descriptor.0[8..]);
        let is_again = faulted.len() < before;
        job.fault = self.faults.of(&descriptor, number, is_again);
        let (factor, is_slow) = self.faults.slowness(number);
        job.factor = factor;
        if is_slow {
            self.counters.faults_slow.one();
        }
        if let Some(Fault::Page { .. }) = job.fault {
            self.counters.faults_page.one();
            if permits {
                // Its memory gets there while the engine waits.
                self.counters.blocked.one();
                job.start += self.config.block_time;
                job.fault = None;
            } else if !is_again {
                // It is submitted once more, not twice: what has the same bytes later is another.
                if faulted.len() == FAULTED {
                    faulted.pop_front();
                }
                faulted.push_back(descriptor);
            }
        }
        job
    }

    /// Runs a job, without the lock, and says when its completion is due and its engine free.
    fn run(
        &self,
        state: MutexGuard<'_, State>,
        mut job: Job,
        now: u64,
        engine: &mut Engine,
        memory: &impl Memory,
    ) {
        let more = state.pending.next().is_some();
        drop(state);
        if more {
            // It may be due while this thread computes.
            self.changed.happen();
        }
        let completion = self.result(&job, engine, memory);
        let is_fault = matches!(completion.status, READ_FAULT | WRITE_FAULT);
        let mut state = self.state();
        if self.was_reset.load(Ordering::Acquire) {
            // The reset has counted it.
            return;
        }
        if is_fault && job.permits_block && job.fault.is_none() && now < job.give_up {
            self.counters.blocked.one();
            let next = now + self.config.block_time.max(1);
            job.start = next;
            state.pending.put(next, job.number, Todo::Again(job));
        } else {
            self.counters.page_faults.add(u64::from(is_fault && job.fault.is_none()));
            let time = self.time_of(&job, completion);
            let due = state.engines.end(job.engine, job.start, time);
            if job.fault == Some(Fault::NoCompletion) {
                self.counters.faults_no_completion.one();
            } else {
                let todo = Todo::Write { completion, job };
                state.pending.put(due, job.number, todo);
            }
        }
    }

    /// What an operation comes to, with its fault.
    fn result(&self, job: &Job, engine: &mut Engine, memory: &impl Memory) -> Completion {
        let descriptor = &job.descriptor;
        match job.fault {
            _ if descriptor.opcode() == NO_OPERATION => Completion::of(Status::Success),
            None | Some(Fault::NoCompletion) => engine.run(descriptor, memory),
            Some(Fault::Page { place, address }) => page_fault(place, address),
            Some(Fault::Error { status, code, written }) => {
                self.counters.faults_error.one();
                if written {
                    let _ = engine.run(descriptor, memory);
                }
                Completion { status, error: code, ..Completion::default() }
            }
            Some(Fault::WrongSize(size)) => {
                let completion = engine.run(descriptor, memory);
                if completion.status != SUCCESS {
                    return completion;
                }
                self.counters.faults_wrong_output_size.one();
                let room = descriptor.destination_bytes();
                Completion { output_bytes: size.about(completion.output_bytes, room), ..completion }
            }
        }
    }

    fn time_of(&self, job: &Job, completion: Completion) -> Time {
        let speed = match job.descriptor.opcode() {
            COMPRESS => self.config.compress,
            DECOMPRESS => self.config.decompress,
            _ => Speed::default(),
        };
        let bytes = job.descriptor.source_bytes().max(completion.output_bytes);
        speed.time_of(bytes, job.factor)
    }

    /// Writes a completion record.
    fn complete(
        &self,
        number: u64,
        completion: Completion,
        job: Job,
        now: u64,
        memory: &impl Memory,
    ) {
        let is_success = completion.status == SUCCESS;
        let flags = job.descriptor.flags();
        // Without the request, a record is written of a failure alone.
        let is_wanted =
            flags & COMPLETION_VALID != 0 && (flags & COMPLETION_REQUESTED != 0 || !is_success);
        // Before the record: whoever sees that may look at the counters.
        let count = || {
            if is_wanted && number != UNNUMBERED {
                self.counters.completed.one();
            }
            if is_success && number != UNNUMBERED {
                self.counters.succeeded.one();
                self.counters.source_bytes.add(u64::from(job.descriptor.source_bytes()));
                self.counters.output_bytes.add(u64::from(completion.output_bytes));
            }
        };
        if !is_wanted {
            count();
            return;
        }
        let address = job.descriptor.completion_address();
        let [status, rest @ ..] = &completion.to_bytes();
        if memory.write(address.wrapping_add(1), rest).is_ok() {
            count();
            if memory.write(address, &[*status]).is_ok() {
                return;
            }
        }
        if now < job.give_up {
            self.counters.blocked.one();
            let next = now + self.config.block_time.max(1);
            self.state().pending.put(next, number, Todo::Write { completion, job });
        } else {
            self.counters.records_lost.one();
        }
    }
}

fn page_fault(place: crate::config::Place, address: u64) -> Completion {
    use crate::config::Place;
    let status = match place {
        Place::Source | Place::Aecs => Status::ReadPageFault,
        Place::Destination | Place::Completion => Status::WritePageFault,
    };
    Completion::page_fault(status, address)
}

impl WrongSize {
    /// What a record says of so many bytes of output, where there was so much room.
    fn about(self, output: u32, room: u32) -> u32 {
        match self {
            Self::Nothing => 0,
            Self::Above(bytes) => room.saturating_add(bytes),
            Self::Short(bytes) => output.saturating_sub(bytes),
        }
    }
}
