//! The threads that do the engines' work, while the caller does something else.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::{cmp, thread};

use qpl_sys::{Operation, Status};

use crate::device::Slot;
use crate::fatal;
use crate::fault::{Fault, Lie};
use crate::job::{Record, Request};
use crate::software::{self, Outcome};

/// Jobs for the threads, in the order of their submission.
#[derive(Default)]
pub(crate) struct Backlog {
    work: Mutex<VecDeque<Work>>,
    arrived: Condvar,
}

/// A job that a device has taken.
pub(crate) struct Work {
    pub(crate) record: Arc<Record>,
    pub(crate) request: Request,
    pub(crate) fault: Option<Fault>,
    pub(crate) slot: Slot,
    pub(crate) due: u64,
}

impl Backlog {
    pub(crate) fn push(&self, work: Work) {
        self.work.lock().unwrap_or_else(PoisonError::into_inner).push_back(work);
        self.arrived.notify_one();
    }

    fn pop(&self) -> Work {
        let work = self.work.lock().unwrap_or_else(PoisonError::into_inner);
        let work = self.arrived.wait_while(work, |work| work.is_empty());
        let mut work = work.unwrap_or_else(PoisonError::into_inner);
        work.pop_front().expect("it was waited for until there is some")
    }

    /// Starts a thread for each of so many engines, as far as there are CPUs for them. Each hands
    /// what it has computed to `done`.
    pub(crate) fn start(&'static self, engines: usize, done: fn(&Work, Outcome)) {
        let cpus = thread::available_parallelism().map_or(1, usize::from);
        for engine in 0..cmp::min(engines, cpus) {
            let run = move || loop {
                let work = self.pop();
                // Whatever happens, no job is left that never ends and does not say why.
                let compute = AssertUnwindSafe(|| done(&work, compute(&work)));
                if catch_unwind(compute).is_err() {
                    fatal::give_up("an engine panicked");
                }
            };
            let thread = thread::Builder::new().name(format!("qpl-sim-engine-{engine}"));
            if let Err(error) = thread.spawn(run) {
                fatal::give_up(&format!("an engine gets no thread: {error}"));
            }
        }
    }
}

fn compute(work: &Work) -> Outcome {
    let Request { operation, .. } = work.request;
    work.request.on_buffers(|input, output| run(operation, work.fault, input, output))
}

/// Runs a job that meets `fault`.
fn run(operation: Operation, fault: Option<Fault>, input: &[u8], output: &mut [u8]) -> Outcome {
    match fault {
        Some(Fault::Ends { status, written }) => {
            let mut whole = vec![0; output.len()];
            let outcome = software::run(operation, input, &mut whole);
            let written = (written % (u64::from(outcome.written) + 1)) as usize;
            output[..written].copy_from_slice(&whole[..written]);
            Outcome::failed(status)
        }
        Some(Fault::Lies(lie)) => {
            let room = output.len() as u32;
            let outcome = software::run(operation, input, output);
            match outcome.status {
                Status::OK => Outcome { written: lie.about(outcome.written, room), ..outcome },
                _ => outcome,
            }
        }
        Some(Fault::Busy | Fault::Hang) | None => software::run(operation, input, output),
    }
}

impl Lie {
    /// What a job says that has written so many bytes and had so much room.
    fn about(self, written: u32, room: u32) -> u32 {
        match self {
            Self::Nothing => 0,
            Self::Above(bytes) => room.saturating_add(bytes),
            Self::Short(bytes) => written.saturating_sub(bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_fault_leaves_part_of_the_output_and_no_more() {
        let page: Vec<_> = (0..=255).cycle().take(4096).collect();
        let mut stream = vec![0; 4096];
        let whole = run(Operation::Compress, None, &page, &mut stream);
        let mut parts = Vec::new();
        for written in [0, 10, u64::MAX] {
            let mut part = vec![0xee; 4096];
            let fault = Fault::Ends { status: Status::PAGE_FAULT, written };
            let outcome = run(Operation::Compress, Some(fault), &page, &mut part);
            assert_eq!(outcome, Outcome::failed(Status::PAGE_FAULT));
            let bytes = (written % (u64::from(whole.written) + 1)) as usize;
            assert_eq!(part[..bytes], stream[..bytes]);
            assert!(part[bytes..].iter().all(|&byte| byte == 0xee));
            parts.push(part);
        }
        assert_ne!(parts[0], parts[1]);
    }

    #[test]
    fn a_lie_is_about_success_alone() {
        let lie = Some(Fault::Lies(Lie::Above(7)));
        let outcome = run(Operation::Compress, lie, &[5; 4096], &mut [0; 4095]);
        assert_eq!((outcome.status, outcome.written), (Status::OK, 4102));
        let outcome = run(Operation::Compress, lie, &[5; 4096], &mut [0; 3]);
        assert_eq!(outcome, Outcome::failed(Status::MORE_OUTPUT_NEEDED));
    }
}
