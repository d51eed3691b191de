//! One case: its name, its group, and how it is run.

use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{PoisonError, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use multifd_core::{MultiFdMethods, UsageError};

use crate::groups;
use crate::harness::{Stop, Subject, Verdict, panicked};
use crate::report::{CaseReport, Outcome, Report};

/// What a case is about.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Group {
    /// What the descriptor says of the codec.
    Descriptor,
    /// What is sent comes back, of every shape and content.
    RoundTrip,
    /// Recordings of real QEMUs decode to the RAM that was sent.
    Golden,
    /// Another implementation of the format reads what the codec writes, and the other way round.
    Independent,
    /// Payloads of incompressible pages fit into a receiver's buffer.
    PayloadBounds,
    /// Zero pages, at their first and at later arrivals.
    ZeroPages,
    /// Bytes that no honest peer sends.
    Hostile,
    /// What a channel takes, whatever it is sent.
    Memory,
    /// Pages that the guest changes while they are sent.
    ChangingPages,
    /// The end of a channel, in order or after an error.
    Cleanup,
    /// Several channels at once.
    Channels,
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.module().replace('_', " "))
    }
}

/// One case of the suite.
#[derive(Clone, Copy)]
pub struct Case {
    group: Group,
    name: &'static str,
    check: fn(&Subject) -> Verdict,
}

#[doc(hidden)]
#[macro_export]
macro_rules! __table {
    ($($group:ident $module:ident { $($case:ident)* })*) => {
        static CASES: &[Case] = &[$($(
            Case {
                group: Group::$group,
                name: stringify!($case),
                check: groups::$module::$case,
            },
        )*)*];

        impl Group {
            /// The name of the group's module, of which its tests are.
            pub(crate) const fn module(self) -> &'static str {
                match self {
                    $(Self::$group => stringify!($module),)*
                }
            }
        }
    };
}

crate::__for_each_case!(__table);

/// Every case of the suite, group by group.
pub fn cases() -> &'static [Case] {
    CASES
}

/// Runs every case on one codec, one after the other. `observe` is told of each as it ends.
///
/// A case runs on a thread of its own: a panic of the codec, and a codec that does not return for
/// five minutes, fail the case and not the caller.
pub fn run(codec: &Arc<dyn MultiFdMethods>, mut observe: impl FnMut(&CaseReport)) -> Report {
    let reports = cases().iter().map(|case| {
        let report = case.run(codec);
        observe(&report);
        report
    });
    Report::new(codec.descriptor(), reports.collect())
}

/// How long a case may take. The slowest take seconds.
const TIME_LIMIT: Duration = Duration::from_secs(300);

/// Cases that measure the process's memory run alone; the others share the lock.
static MEMORY: RwLock<()> = RwLock::new(());

impl Case {
    /// What the case is about.
    pub fn group(&self) -> Group {
        self.group
    }

    /// What the case proves, in a sentence of words joined by underscores.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Runs the case on one codec.
    pub fn run(&self, codec: &Arc<dyn MultiFdMethods>) -> CaseReport {
        self.run_within(TIME_LIMIT, codec)
    }

    /// [`run`](Self::run) with another time limit, for codecs known to hang.
    #[doc(hidden)]
    pub fn run_within(&self, limit: Duration, codec: &Arc<dyn MultiFdMethods>) -> CaseReport {
        self.locked(|| {
            let start = Instant::now();
            let outcome = self.outcome(limit, codec);
            CaseReport::new(codec.name(), *self, outcome, start.elapsed())
        })
    }

    /// Runs the case on a codec that has to be available, which is asked in the case's own time: a
    /// probe takes memory, too.
    pub(crate) fn require_and_run(
        &self,
        codec: &Arc<dyn MultiFdMethods>,
    ) -> Result<Outcome, UsageError> {
        self.locked(|| codec.require().map(|()| self.outcome(TIME_LIMIT, codec)))
    }

    /// Does `work` while no other case measures the process's memory, or alone where this one does.
    fn locked<T>(&self, work: impl FnOnce() -> T) -> T {
        let alone = (self.group == Group::Memory)
            .then(|| MEMORY.write().unwrap_or_else(PoisonError::into_inner));
        let _shared =
            alone.is_none().then(|| MEMORY.read().unwrap_or_else(PoisonError::into_inner));
        work()
    }

    fn outcome(&self, limit: Duration, codec: &Arc<dyn MultiFdMethods>) -> Outcome {
        let (done, ended) = mpsc::channel();
        let (check, codec) = (self.check, Arc::clone(codec));
        let worker = thread::Builder::new().name(self.name.to_owned()).spawn(move || {
            let verdict = Subject::new(codec).and_then(|subject| check(&subject));
            // Nobody listens any more where the time was up.
            _ = done.send(verdict);
        });
        let worker = match worker {
            Ok(worker) => worker,
            Err(error) => return Outcome::Failed(format!("cannot start a thread: {error}")),
        };
        let verdict = match ended.recv_timeout(limit) {
            Ok(verdict) => verdict,
            Err(RecvTimeoutError::Timeout) => {
                let seconds = limit.as_secs_f64();
                let what = format!("not done after {seconds} s: the codec does not return");
                return Outcome::Failed(what);
            }
            // A panic where no codec is at work: most are told with their place.
            Err(RecvTimeoutError::Disconnected) => worker.join().map_err(|panic| panicked(&*panic)),
        };
        match verdict {
            Ok(()) => Outcome::Passed,
            Err(Stop::Failed(message)) => Outcome::Failed(message),
            Err(Stop::NotApplicable(reason)) => Outcome::NotApplicable(reason),
        }
    }
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}::{}", self.group.module(), self.name)
    }
}

/// The sentence that the case proves, behind its group.
impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.group, self.name.replace('_', " "))
    }
}
