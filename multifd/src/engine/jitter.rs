//! Delays between threads, for tests: no verdict may depend on them.

use std::cell::Cell;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A number that the delays are made from; there are none without it.
static SEED: LazyLock<Option<u64>> =
    LazyLock::new(|| std::env::var("MULTIFD_TEST_JITTER").ok()?.parse().ok());

static THREADS: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static STATE: Cell<u64> = Cell::new(THREADS.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed));
}

/// Lets other threads go first now and then, where tests ask for it.
pub(super) fn delay() {
    let Some(seed) = *SEED else { return };
    let state = STATE.get().wrapping_mul(6_364_136_223_846_793_005).wrapping_add(seed | 1);
    STATE.set(state);
    let random = state >> 33;
    match random % 64 {
        0 => std::thread::sleep(Duration::from_micros(random / 64 % 1000)),
        1..=8 => std::thread::yield_now(),
        _ => {}
    }
}
