//! The threads of a migration, as the program wants them.

use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::cpu_time::{CountedThread, CpuTime};
use crate::error::Error;

/// How a migration's threads are named, and what each does first: a seccomp filter, an affinity, a
/// priority.
///
/// A thread's name is a prefix, `multifd-` unless said otherwise, and what the thread is for: `accept`,
/// `watch`, `return`, `recv`, or `send-0`, `send-1`, …; `after` at a destination whose main channel is a
/// stream of the caller's own. Linux shows 15 bytes of it.
#[derive(Clone)]
pub struct Threads {
    prefix: Arc<str>,
    first: Option<Arc<First>>,
    cpu_time: CpuTime,
}

type First = dyn Fn(&str) -> io::Result<()> + Send + Sync;

impl Threads {
    /// Threads named `multifd-…` that do nothing first.
    pub fn new() -> Self {
        Self { prefix: "multifd-".into(), first: None, cpu_time: CpuTime::new() }
    }

    /// Names threads by `prefix` and what they are for.
    #[must_use]
    pub fn prefix(self, prefix: &str) -> Self {
        Self { prefix: prefix.into(), ..self }
    }

    /// Has each thread call `first` with its name before anything else. An error or a panic there
    /// fails the migration.
    #[must_use]
    pub fn first(self, first: impl Fn(&str) -> io::Result<()> + Send + Sync + 'static) -> Self {
        Self { first: Some(Arc::new(first)), ..self }
    }

    /// Has the CPU time of the threads added to `cpu_time`.
    #[must_use]
    pub fn cpu_time(self, cpu_time: &CpuTime) -> Self {
        Self { cpu_time: cpu_time.clone(), ..self }
    }

    /// Counts the CPU time of the thread that calls, until the result is dropped.
    pub(super) fn count(&self) -> CountedThread {
        self.cpu_time.count_this_thread()
    }

    /// The name of the thread for `role`.
    pub(super) fn name(&self, role: &str) -> String {
        format!("{}{role}", self.prefix)
    }

    /// Does, in the thread `name`, what comes first there.
    pub(super) fn begin(&self, name: &str) -> Result<(), Error> {
        let Some(first) = &self.first else { return Ok(()) };
        let begun = catch_unwind(AssertUnwindSafe(|| first(name)))
            .unwrap_or_else(|_| Err(io::Error::other("it panicked")));
        begun.map_err(|source| Error::Thread { name: name.to_owned(), source })
    }
}

impl Default for Threads {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Threads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Threads").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prefix_and_what_comes_first_are_set_in_any_order() {
        let refuses = |name: &str| match name {
            "x-accept" => Err(io::Error::other("a test's")),
            "x-recv" => panic!("a test's"),
            _ => Ok(()),
        };
        for threads in
            [Threads::new().prefix("x-").first(refuses), Threads::new().first(refuses).prefix("x-")]
        {
            for (role, fails) in [("watch", false), ("accept", true), ("recv", true)] {
                let name = threads.name(role);
                assert_eq!(name, format!("x-{role}"));
                match threads.begin(&name) {
                    Ok(()) => assert!(!fails),
                    Err(Error::Thread { name: said, .. }) => assert!(fails && said == name),
                    Err(error) => panic!("{error}"),
                }
            }
            assert_eq!(format!("{threads:?}"), "Threads { prefix: \"x-\", .. }");
        }
        assert_eq!(Threads::new().name("send-0"), "multifd-send-0");
    }
}
