//! A source that is cancelled when its time is over.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::State;
use crate::engine::session::{Session, Waiter};
use crate::error::Error;

/// Cancels a migration when a time is over, unless it is asked before whether it has. Its thread ends
/// with the migration.
#[derive(Debug)]
pub(crate) struct Timer {
    /// Whoever sets it first has decided: the thread that the migration is late, or its user that it
    /// is not.
    decided: Arc<AtomicBool>,
}

impl Timer {
    pub(super) fn start(session: &Arc<Session<State>>, limit: Duration) -> Result<Self, Error> {
        let decided = Arc::new(AtomicBool::new(false));
        let late = Arc::clone(&decided);
        let wait = move |session: &Session<State>| {
            let what = "the end of the migration's time";
            let waited: Option<()> = session.wait_for(Waiter::Limit, what, limit, |_| None)?;
            if waited.is_none() && !late.swap(true, Ordering::AcqRel) {
                session.fail(Error::Cancelled);
            }
            Ok(())
        };
        session.spawn("timer", wait)?;
        Ok(Self { decided })
    }

    /// Stops the timer. Returns whether the time was over and the migration has been cancelled.
    pub(crate) fn stop(self) -> bool {
        self.decided.swap(true, Ordering::AcqRel)
    }
}
