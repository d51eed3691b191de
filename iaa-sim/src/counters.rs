//! What has happened on a device.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// Counts, each of which only rises.
        #[derive(Debug, Default)]
        pub struct Counters {
            $($(#[$doc])* pub $name: Counter,)*
        }

        impl Counters {
            /// All counts by name.
            pub fn all(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name.get())),*].into_iter()
            }
        }
    };
}

counters! {
    /// Descriptors that a queue took, without no-operations.
    accepted,
    /// No-operations.
    no_operations,
    /// Submissions that were refused for want of room. (A refused write is not seen: those by the
    /// face `write` are not among them.)
    refused_full,
    /// Submissions that were refused since the queue was disabled.
    refused_disabled,
    /// Submissions that were refused by the fault `queue_full`, or times at which it closed a queue.
    faults_queue_full,
    /// Completion records that were written.
    completed,
    /// Those of them with status success.
    succeeded,
    /// Bytes of source 1 of these.
    source_bytes,
    /// Bytes of output of these.
    output_bytes,
    /// Page faults by the fault `page_fault`.
    faults_page,
    /// Errors by the fault `error`.
    faults_error,
    /// Outputs of another size by the fault `wrong_output_size`.
    faults_wrong_output_size,
    /// Descriptors without a completion by the fault `no_completion`.
    faults_no_completion,
    /// Operations that took longer by the fault `slow`.
    faults_slow,
    /// Page faults on memory that was not there.
    page_faults,
    /// Times that an engine waited for memory.
    blocked,
    /// Completion records that could not be written.
    records_lost,
    /// Descriptors that a reset has lost.
    lost_by_reset,
    /// Resets of the device.
    resets,
    /// Writes to a queue of other than 64 bytes.
    malformed_writes,
}

/// One count.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// What it is now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    pub(crate) fn one(&self) {
        self.add(1);
    }
}

/// A line for each: `name = number`, as in TOML.
impl fmt::Display for Counters {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.all().try_for_each(|(name, count)| writeln!(to, "{name} = {count}"))
    }
}
