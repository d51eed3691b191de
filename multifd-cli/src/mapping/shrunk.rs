//! Mapped files that become shorter while they are read.
//!
//! The kernel answers an access behind a mapped file's end with SIGBUS, which would end the program
//! without a word. Here it gives the rest of the mapping memory of zeros instead and takes note, so
//! that the access goes on; [`check`] then says which file it was. Whoever reads mapped memory asks
//! that before the result leaves the program.
//!
//! That does not work for files in huge pages (hugetlbfs): such a mapping takes no ordinary memory in its
//! middle, and SIGBUS ends the program as before.

#![allow(unsafe_code, reason = "a signal's handler, and memory in place of a file's")]

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};
use std::sync::{Arc, OnceLock};

use multifd::core::vm_memory::MmapRegion;

use crate::failure::Failure;

/// A mapped file. It is never freed, as the handler may look at it at any time, and nor is the
/// mapping: its addresses must not become those of other memory, which the handler would replace.
#[derive(Debug)]
struct Mapped {
    /// What keeps the file mapped.
    _memory: Arc<MmapRegion>,
    /// The first address of the mapping, and that behind its last.
    start: usize,
    end: usize,
    /// Bytes of a page of this machine.
    page: usize,
    path: PathBuf,
    file: File,
    /// Bytes that the file has, up to the mapping's end.
    length: u64,
    /// Some of it could not be read.
    is_lost: AtomicBool,
    next: *const Mapped,
}

/// The mapped file that was added last, and by [`Mapped::next`] all others.
static LAST: AtomicPtr<Mapped> = AtomicPtr::new(ptr::null_mut());

/// What was done at SIGBUS before.
static BEFORE: OnceLock<libc::sigaction> = OnceLock::new();

/// Watches `memory`, which is `file`'s, and keeps it mapped as long as the program runs.
/// The memory begins at byte `offset` of the file.
pub(super) fn watch(
    path: &Path,
    file: File,
    offset: u64,
    memory: Arc<MmapRegion>,
) -> io::Result<()> {
    handle_sigbus()?;
    let length = offset + memory.size() as u64;
    let start = memory.as_ptr().addr();
    let mapped = Box::into_raw(Box::new(Mapped {
        start,
        end: start + memory.size(),
        _memory: memory,
        page: page_bytes()?,
        path: path.to_owned(),
        file,
        length,
        is_lost: AtomicBool::new(false),
        next: LAST.load(Ordering::Acquire),
    }));
    loop {
        // SAFETY: `mapped` comes from a box, and nobody else has it yet.
        let next = unsafe { (*mapped).next }.cast_mut();
        match LAST.compare_exchange(next, mapped, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => return Ok(()),
            // SAFETY: as above.
            Err(other) => unsafe { (*mapped).next = other },
        }
    }
}

/// Fails if a mapped file has become shorter, or could not be read. The error names it.
pub(crate) fn check() -> Result<(), Failure> {
    all().try_for_each(Mapped::check)
}

/// Every mapped file, the last first.
fn all() -> impl Iterator<Item = &'static Mapped> {
    let mut at: *const Mapped = LAST.load(Ordering::Acquire);
    std::iter::from_fn(move || {
        // SAFETY: the pointers of the list are null or come from boxes that are never freed, and
        // are not written to once they are in the list.
        let mapped = unsafe { at.as_ref() }?;
        at = mapped.next;
        Some(mapped)
    })
}

fn handle_sigbus() -> io::Result<()> {
    static DONE: OnceLock<Result<(), i32>> = OnceLock::new();
    let done = DONE.get_or_init(|| install().map_err(|error| error.raw_os_error().unwrap_or(0)));
    done.map_err(io::Error::from_raw_os_error)
}

fn install() -> io::Result<()> {
    let mut before = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: asks what is done at SIGBUS; `before` has room for the answer.
    let asked = unsafe { libc::sigaction(libc::SIGBUS, ptr::null(), before.as_mut_ptr()) };
    if asked != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call above has filled it.
    let before = unsafe { before.assume_init() };
    _ = BEFORE.set(before);
    let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) = on_sigbus;
    // SAFETY: all zero is a valid `sigaction`: an empty mask, no flags.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler as libc::sighandler_t;
    // On the alternative stack that Rust's threads have, as its own handler, which may be next.
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    // SAFETY: the handler has the form that SA_SIGINFO asks for, and does only what a handler may:
    // it reads atomics and memory that is never freed, and makes system calls.
    match unsafe { libc::sigaction(libc::SIGBUS, &raw const action, ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

extern "C" fn on_sigbus(
    signal: libc::c_int,
    info: *mut libc::siginfo_t,
    _context: *mut libc::c_void,
) {
    // SAFETY: the kernel gives a valid pointer to a handler with SA_SIGINFO.
    let info = unsafe { &*info };
    // SAFETY: the kernel has set the address for this signal.
    let address = unsafe { info.si_addr() }.addr();
    // Not where the memory itself is broken.
    let is_behind_the_end = info.si_code == libc::BUS_ADRERR;
    let hit =
        all().find(|mapped| is_behind_the_end && (mapped.start..mapped.end).contains(&address));
    if hit.is_some_and(|mapped| mapped.lose(address)) {
        return;
    }
    // Not ours. The access is tried again when this returns, and what was done before takes over.
    let before = BEFORE.get().map_or(ptr::null(), ptr::from_ref);
    // SAFETY: restores what was there before; null would change nothing.
    unsafe { libc::sigaction(signal, before, ptr::null_mut()) };
}

/// Bytes of a page of this machine, which is what can be mapped.
pub(crate) fn page_bytes() -> io::Result<usize> {
    // SAFETY: asks for a number.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(bytes).map_err(|_| io::Error::last_os_error())
}

impl Mapped {
    fn check(&self) -> Result<(), Failure> {
        let path = self.path.display();
        let bytes = self.length;
        let found = self.file.metadata().map_or(bytes, |metadata| metadata.len());
        if found < bytes {
            return Err(Failure::new(format!(
                "cannot use {path}: it became shorter while it was read, {found} of {bytes} bytes; \
                 leave the file alone until the end"
            )));
        }
        if self.is_lost.load(Ordering::Acquire) {
            return Err(Failure::new(format!(
                "cannot read {path}: a part of it was not readable: either it became shorter and grew \
                 again while it was read, or its disk is broken; leave the file alone until the end, \
                 or check its disk"
            )));
        }
        Ok(())
    }

    /// What of the mapping follows `address`, as whole pages: its first address and its bytes.
    fn rest(&self, address: usize) -> (usize, usize) {
        let first = address - address % self.page;
        (first, self.end.next_multiple_of(self.page) - first)
    }

    /// Puts zeros in place of what follows `address`. False if the kernel refuses. Called by the
    /// handler.
    fn lose(&self, address: usize) -> bool {
        let (address, bytes) = self.rest(address);
        let flags = libc::MAP_FIXED | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // Writable as well: the demo's guest writes to its private mapping.
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let at = ptr::without_provenance_mut(address);
        // Before the zeros are there for another thread to read.
        self.is_lost.store(true, Ordering::Release);
        // SAFETY: replaces a part of the mapping that the program has of this file, and only that: it
        // is never unmapped. It is accessed as a guest's memory, whose content may change at any time.
        let mapped = unsafe { libc::mmap(at, bytes, access, flags, -1, 0) };
        mapped != libc::MAP_FAILED
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapped(page: usize, pages: usize) -> Mapped {
        Mapped {
            _memory: Arc::new(MmapRegion::new(4096).unwrap()),
            start: 0x40_0000,
            end: 0x40_0000 + pages * 4096,
            page,
            path: PathBuf::from("guest.ram"),
            file: tempfile::tempfile().unwrap(),
            length: pages as u64 * 4096,
            is_lost: AtomicBool::new(false),
            next: ptr::null(),
        }
    }

    #[test]
    fn a_file_that_is_whole_again_but_was_not_is_an_error() {
        let mapped = mapped(4096, 3);
        let error = mapped.check().unwrap_err().to_string();
        assert!(error.contains("became shorter while it was read, 0 of 12288 bytes"), "{error}");
        mapped.file.set_len(12288).unwrap();
        mapped.check().unwrap();
        mapped.is_lost.store(true, Ordering::Release);
        let error = mapped.check().unwrap_err().to_string();
        assert!(error.contains("became shorter and grew again"), "{error}");
    }

    #[test]
    fn what_follows_an_address_is_whole_pages_of_the_machine() {
        let small = mapped(4096, 3);
        assert_eq!(small.rest(0x40_0000), (0x40_0000, 0x3000));
        assert_eq!(small.rest(0x40_1fff), (0x40_1000, 0x2000));
        // Three pages of a guest in one of a machine with larger ones.
        let large = mapped(0x1_0000, 3);
        assert_eq!(large.rest(0x40_1fff), (0x40_0000, 0x1_0000));
        let large = mapped(0x1_0000, 17);
        assert_eq!(large.rest(0x41_0010), (0x41_0000, 0x1_0000));
    }
}
