//! What a forked child does with the queues: it has the parent's pipes, and another memory than that the
//! parent's engines would work on. So to a child, every queue is full for ever.

use std::io;
use std::os::fd::RawFd;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};

use super::pipe::Pipe;

/// The descriptors by which the program writes to queues, as far as there is room.
static OPEN: [AtomicI32; 4096] = [const { AtomicI32::new(-1) }; 4096];
static COUNT: AtomicUsize = AtomicUsize::new(0);
/// A pipe that is full, and the end of it that is written to.
static PIPE: OnceLock<Pipe> = OnceLock::new();
static FULL: AtomicI32 = AtomicI32::new(-1);

/// Sees to it that children do no harm.
pub(super) fn prepare() -> io::Result<()> {
    let pipe = Pipe::new(1)?;
    pipe.fill();
    FULL.store(PIPE.get_or_init(|| pipe).fd(), Ordering::Release);
    // SAFETY: the function stays loaded, and does nothing that a child may not do.
    match unsafe { libc::pthread_atfork(None, None, Some(in_child)) } {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

/// Notes a descriptor by which the program writes to a queue.
pub(super) fn note(fd: RawFd) {
    let known = COUNT.load(Ordering::Acquire).min(OPEN.len());
    if OPEN[..known].iter().any(|open| open.load(Ordering::Acquire) == fd) {
        return;
    }
    if let Some(place) = OPEN.get(COUNT.fetch_add(1, Ordering::AcqRel)) {
        place.store(fd, Ordering::Release);
    }
}

/// Calls nothing but `dup3`, since other threads of the parent may have held any lock.
extern "C" fn in_child() {
    let full = FULL.load(Ordering::Acquire);
    for open in &OPEN[..COUNT.load(Ordering::Acquire).min(OPEN.len())] {
        let fd = open.load(Ordering::Acquire);
        if full >= 0 && fd >= 0 {
            // SAFETY: it takes numbers; where `fd` was closed meanwhile, the child gets an open file more.
            unsafe { libc::dup3(full, fd, libc::O_CLOEXEC) };
        }
    }
}
