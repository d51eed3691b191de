//! What a device has to do later.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::completion::Completion;
use crate::descriptor::Descriptor;
use crate::fault::Fault;

/// A descriptor that an engine has taken.
#[derive(Clone, Copy, Debug)]
pub(super) struct Job {
    pub(super) descriptor: Descriptor,
    pub(super) number: u64,
    pub(super) engine: usize,
    /// When the engine began, or goes on, with it.
    pub(super) start: u64,
    /// When the engine no longer waits for memory.
    pub(super) give_up: u64,
    /// Whether it may wait for memory at all.
    pub(super) permits_block: bool,
    pub(super) fault: Option<Fault>,
    /// How many times as long as said it takes.
    pub(super) factor: f64,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Todo {
    /// Write the record of a job that is done.
    Write { completion: Completion, job: Job },
    /// Try a job again whose memory was missing.
    Again(Job),
}

/// All of it, by time; of the same time, by the descriptors' numbers.
#[derive(Debug, Default)]
pub(super) struct Pending(BinaryHeap<Reverse<Entry>>);

#[derive(Debug)]
struct Entry {
    at: u64,
    number: u64,
    todo: Todo,
}

impl Pending {
    pub(super) fn put(&mut self, at: u64, number: u64, todo: Todo) {
        self.0.push(Reverse(Entry { at, number, todo }));
    }

    /// The first, if its time has come, with its number.
    pub(super) fn take_due(&mut self, now: u64) -> Option<(u64, Todo)> {
        if self.next()? > now {
            return None;
        }
        self.0.pop().map(|Reverse(entry)| (entry.number, entry.todo))
    }

    /// When the first is due.
    pub(super) fn next(&self) -> Option<u64> {
        self.0.peek().map(|Reverse(entry)| entry.at)
    }

    /// Gives everything up, and says how many records are not written by that.
    pub(super) fn clear(&mut self) -> u64 {
        let writes =
            self.0.iter().filter(|Reverse(entry)| matches!(entry.todo, Todo::Write { .. }));
        let writes = writes.count() as u64;
        self.0.clear();
        writes
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.number) == (other.at, other.number)
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}
