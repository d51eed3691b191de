//! Cancelling a migration.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Cancels migrations, from any thread and at any time. Threads and sockets are gone when the call
/// that the token interrupts has returned. A token does not keep a migration alive.
///
/// A migration has tokens of its own from when it exists (`cancel_token`); one that is made before and
/// given to a builder (`cancelled_by`) interrupts connecting, too.
#[derive(Clone, Default)]
pub struct CancelToken(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    cancelled: bool,
    migrations: Vec<Weak<dyn Cancel>>,
}

/// What can be cancelled.
pub(crate) trait Cancel: Send + Sync {
    fn cancel(&self);
}

impl CancelToken {
    /// A token for migrations that are yet to begin.
    pub fn new() -> Self {
        Self::default()
    }

    /// Cancels the migrations of this token, and each that it is given to later. They fail with
    /// [`Error::Cancelled`](crate::Error::Cancelled), unless they have succeeded or failed before.
    pub fn cancel(&self) {
        let migrations = {
            let mut inner = self.lock();
            inner.cancelled = true;
            std::mem::take(&mut inner.migrations)
        };
        migrations.iter().filter_map(Weak::upgrade).for_each(|migration| migration.cancel());
    }

    /// Whether it has been cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.lock().cancelled
    }

    /// Has `migration` be cancelled by this token: now, if that has been used.
    pub(crate) fn attach<C: Cancel + 'static>(&self, migration: &Arc<C>) {
        let mut inner = self.lock();
        if inner.cancelled {
            drop(inner);
            migration.cancel();
            return;
        }
        inner.migrations.retain(|migration| migration.strong_count() > 0);
        let weak: Weak<C> = Arc::downgrade(migration);
        inner.migrations.push(weak);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for CancelToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CancelToken")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Counts how often it is cancelled.
    #[derive(Default)]
    struct Counting(AtomicUsize);

    impl Cancel for Counting {
        fn cancel(&self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_token_cancels_each_migration_once_and_keeps_none_that_is_over() {
        let token = CancelToken::new();
        let migrations: [Arc<Counting>; 3] = Default::default();
        for migration in &migrations {
            for _ in 0..10 {
                token.attach(&Arc::new(Counting::default()));
            }
            token.attach(migration);
        }
        // The last of them, which nothing has looked for yet.
        token.attach(&Arc::new(Counting::default()));
        assert_eq!(token.lock().migrations.len(), migrations.len() + 1);
        assert!(!token.is_cancelled());
        for _ in 0..2 {
            token.cancel();
            assert!(token.is_cancelled());
        }
        let late = Arc::new(Counting::default());
        token.attach(&late);
        let all = migrations.iter().chain([&late]);
        assert!(all.map(|migration| migration.0.load(Ordering::Relaxed)).eq([1; 4]));
    }
}
