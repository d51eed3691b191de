//! Which jobs there are, by their addresses. Nothing of it lies in the caller's memory, so that
//! whatever the caller does to that can be noticed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::job::Record;

/// Every job that was initialised, in parts, so that threads seldom meet.
pub(crate) struct Table([Mutex<HashMap<usize, Entry>>; PARTS]);

const PARTS: usize = 64;

/// What is known of an address.
#[derive(Clone)]
pub(crate) enum Entry {
    Live(Arc<Record>),
    /// A job was there, and was finished.
    Finished,
}

impl Table {
    pub(crate) fn new() -> Self {
        Self(std::array::from_fn(|_| Mutex::default()))
    }

    pub(crate) fn get(&self, address: usize) -> Option<Entry> {
        self.part(address).get(&address).cloned()
    }

    pub(crate) fn set(&self, address: usize, entry: Entry) {
        self.part(address).insert(address, entry);
    }

    fn part(&self, address: usize) -> MutexGuard<'_, HashMap<usize, Entry>> {
        // Jobs are far apart and aligned: the lowest bits say nothing.
        let part = (address >> 3).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (usize::BITS - 6);
        self.0[part].lock().unwrap_or_else(PoisonError::into_inner)
    }
}
