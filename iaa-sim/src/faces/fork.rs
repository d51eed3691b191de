//! What a forked child does with the queues: it has the parent's pipes, and another memory than that the
//! parent's engines would work on. So to a child, every queue is full for ever.

use std::os::fd::RawFd;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, AtomicU64, AtomicUsize, Ordering};
use std::{io, mem};

use super::pipe::Pipe;

/// The descriptors by which the program writes to queues, as far as there is room.
static OPEN: [Open; 4096] = [const { Open::none() }; 4096];
static COUNT: AtomicUsize = AtomicUsize::new(0);
/// A pipe that is full, and the end of it that is written to.
static PIPE: OnceLock<Pipe> = OnceLock::new();
static FULL: AtomicI32 = AtomicI32::new(-1);

/// A descriptor, and the pipe that it was of when it was noted: the program may have closed it since.
struct Open {
    fd: AtomicI32,
    inode: AtomicU64,
}

impl Open {
    const fn none() -> Self {
        Self { fd: AtomicI32::new(-1), inode: AtomicU64::new(0) }
    }

    fn is(&self, fd: RawFd, inode: u64) -> bool {
        (self.fd.load(Ordering::Acquire), self.inode.load(Ordering::Acquire)) == (fd, inode)
    }
}

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

/// Notes a descriptor by which the program writes to the queue whose pipe has that inode.
pub(super) fn note(fd: RawFd, inode: u64) {
    let known = COUNT.load(Ordering::Acquire).min(OPEN.len());
    if OPEN[..known].iter().any(|open| open.is(fd, inode)) {
        return;
    }
    if let Some(place) = OPEN.get(COUNT.fetch_add(1, Ordering::AcqRel)) {
        place.inode.store(inode, Ordering::Release);
        place.fd.store(fd, Ordering::Release);
    }
}

/// Calls nothing but `fstat` and `dup3`, since other threads of the parent may have held any lock.
extern "C" fn in_child() {
    let full = FULL.load(Ordering::Acquire);
    for open in &OPEN[..COUNT.load(Ordering::Acquire).min(OPEN.len())] {
        let (fd, inode) = (open.fd.load(Ordering::Acquire), open.inode.load(Ordering::Acquire));
        if full >= 0 && is_pipe(fd, inode) {
            // SAFETY: it takes numbers.
            unsafe { libc::dup3(full, fd, libc::O_CLOEXEC) };
        }
    }
}

fn is_pipe(fd: RawFd, inode: u64) -> bool {
    // SAFETY: zeros are a value of the type, which is plain data.
    let mut stat: libc::stat = unsafe { mem::zeroed() };
    // SAFETY: it only writes to where there is room.
    let done = unsafe { libc::fstat(fd, &mut stat) };
    done == 0 && stat.st_mode & libc::S_IFMT == libc::S_IFIFO && stat.st_ino == inode
}
