//! The descriptors that wait in a queue.
//!
//! Putting one in takes no lock and allocates nothing, so that a signal's handler may do it.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::descriptor::{DESCRIPTOR_BYTES, Descriptor};

/// 64-bit words of a descriptor.
const WORDS: usize = DESCRIPTOR_BYTES / 8;

/// A ring that any thread puts into and one at a time takes from. Whoever uses it sees to it that
/// there is room.
#[derive(Debug)]
pub(super) struct Ring {
    slots: Box<[Slot]>,
    /// How many were put in.
    put: AtomicUsize,
    /// How many were taken.
    taken: AtomicUsize,
}

/// A descriptor as it waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Waiting {
    pub(super) descriptor: Descriptor,
    pub(super) number: u64,
    /// When it was submitted.
    pub(super) arrived: u64,
}

#[derive(Debug)]
struct Slot {
    /// `n`: free for the descriptor that is put in `n`th; `n + 1`: has it.
    turn: AtomicUsize,
    words: [AtomicU64; WORDS],
    number: AtomicU64,
    arrived: AtomicU64,
}

impl Ring {
    /// One with room for so many.
    pub(super) fn new(depth: usize) -> Self {
        // One more: with a single slot, `has the first` and `free for the second` would be the same.
        let slots = (0..depth + 1).map(|turn| Slot {
            turn: AtomicUsize::new(turn),
            words: [const { AtomicU64::new(0) }; WORDS],
            number: AtomicU64::new(0),
            arrived: AtomicU64::new(0),
        });
        let slots = slots.collect();
        Self { slots, put: AtomicUsize::new(0), taken: AtomicUsize::new(0) }
    }

    /// Puts one in. Returns whether there was room.
    pub(super) fn put(&self, waiting: &Waiting) -> bool {
        let mut turn = self.put.load(Ordering::Relaxed);
        let slot = loop {
            let slot = &self.slots[turn % self.slots.len()];
            if slot.turn.load(Ordering::Acquire) == turn {
                let next = turn.wrapping_add(1);
                let order = Ordering::Relaxed;
                match self.put.compare_exchange_weak(turn, next, order, order) {
                    Ok(_) => break slot,
                    Err(other) => turn = other,
                }
            } else {
                let now = self.put.load(Ordering::Relaxed);
                if now == turn {
                    return false;
                }
                turn = now;
            }
        };
        let Descriptor(bytes) = &waiting.descriptor;
        for (word, bytes) in slot.words.iter().zip(bytes.chunks_exact(8)) {
            let mut value = [0; 8];
            value.copy_from_slice(bytes);
            word.store(u64::from_ne_bytes(value), Ordering::Relaxed);
        }
        slot.number.store(waiting.number, Ordering::Relaxed);
        slot.arrived.store(waiting.arrived, Ordering::Relaxed);
        slot.turn.store(turn + 1, Ordering::Release);
        true
    }

    /// Takes the one that has waited longest. Not to be called by two threads at a time.
    pub(super) fn take(&self) -> Option<Waiting> {
        let turn = self.taken.load(Ordering::Relaxed);
        let slot = &self.slots[turn % self.slots.len()];
        if slot.turn.load(Ordering::Acquire) != turn + 1 {
            return None;
        }
        let mut bytes = [0; DESCRIPTOR_BYTES];
        for (word, bytes) in slot.words.iter().zip(bytes.chunks_exact_mut(8)) {
            bytes.copy_from_slice(&word.load(Ordering::Relaxed).to_ne_bytes());
        }
        let waiting = Waiting {
            descriptor: Descriptor(bytes),
            number: slot.number.load(Ordering::Relaxed),
            arrived: slot.arrived.load(Ordering::Relaxed),
        };
        slot.turn.store(turn + self.slots.len(), Ordering::Release);
        self.taken.store(turn + 1, Ordering::Relaxed);
        Some(waiting)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::thread;

    use super::*;

    fn waiting(number: u64) -> Waiting {
        let byte = number as u8;
        Waiting { descriptor: Descriptor([byte; 64]), number, arrived: number * 7 }
    }

    #[test]
    fn what_was_put_in_comes_out_in_order() {
        for depth in [1, 2, 3, 128] {
            let ring = Ring::new(depth);
            for round in 0..5 {
                let numbers = || (0..depth as u64).map(|number| waiting(number + 1000 * round));
                assert!(numbers().all(|waiting| ring.put(&waiting)), "depth {depth}");
                assert!(numbers().all(|waiting| ring.take() == Some(waiting)), "depth {depth}");
                assert_eq!(ring.take(), None);
            }
        }
    }

    #[test]
    fn nothing_is_lost_or_torn_between_threads() {
        const EACH: u64 = 10_000;
        let ring = Ring::new(4);
        let seen = Mutex::new(Vec::new());
        thread::scope(|scope| {
            for thread in 0..2 {
                let ring = &ring;
                scope.spawn(move || {
                    for number in 0..EACH {
                        while !ring.put(&waiting(thread * EACH + number)) {
                            thread::yield_now();
                        }
                    }
                });
            }
            let mut seen = seen.lock().unwrap();
            while seen.len() < 2 * EACH as usize {
                match ring.take() {
                    Some(taken) => seen.push(taken),
                    None => thread::yield_now(),
                }
            }
        });
        let mut seen = seen.into_inner().unwrap();
        assert!(seen.iter().all(|taken| *taken == waiting(taken.number)));
        seen.sort_by_key(|taken| taken.number);
        assert!(seen.iter().map(|taken| taken.number).eq(0..2 * EACH));
    }
}
