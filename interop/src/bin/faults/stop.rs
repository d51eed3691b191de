//! Signals that end this program: it kills what it has started, and removes its folder, before it ends.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

static TOLD: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

pub(crate) fn listen() -> io::Result<()> {
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        flag::register(signal, Arc::clone(&TOLD))?;
    }
    Ok(())
}

/// Whether it has been told to stop: every wait ends then.
pub(crate) fn is_told() -> bool {
    TOLD.load(Ordering::Relaxed)
}
