//! The memory that an engine works on.

use std::io;

/// Memory that descriptors point into.
pub trait Memory {
    /// Reads the bytes from `address` on.
    ///
    /// # Errors
    /// The first address that cannot be read.
    fn read(&self, address: u64, into: &mut [u8]) -> Result<(), PageFault>;

    /// Writes bytes from `address` on. Where it fails, those before the fault may be written.
    ///
    /// # Errors
    /// The first address that cannot be written.
    fn write(&self, address: u64, from: &[u8]) -> Result<(), PageFault>;
}

/// Memory that is not there, or not to be used in that way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageFault {
    /// The first byte that could not be used.
    pub address: u64,
}

/// The memory of this process. The kernel looks up what is there: nothing crashes.
#[derive(Clone, Copy, Debug)]
pub struct OwnMemory;

impl Memory for OwnMemory {
    fn read(&self, address: u64, into: &mut [u8]) -> Result<(), PageFault> {
        move_all(address, into.len(), |done| {
            let local = libc::iovec {
                iov_base: into[done..].as_mut_ptr().cast(),
                iov_len: into.len() - done,
            };
            let remote = remote(address, done, into.len());
            // SAFETY: both lists have one entry; `local` is a slice that is borrowed mutably, and the
            // kernel checks the other side.
            unsafe { libc::process_vm_readv(own_id(), &local, 1, &remote, 1, 0) }
        })
    }

    fn write(&self, address: u64, from: &[u8]) -> Result<(), PageFault> {
        move_all(address, from.len(), |done| {
            let local = libc::iovec {
                iov_base: from[done..].as_ptr().cast_mut().cast(),
                iov_len: from.len() - done,
            };
            let remote = remote(address, done, from.len());
            // SAFETY: both lists have one entry; `local` is only read, and the program that submitted
            // the descriptor has given the other side to the device.
            unsafe { libc::process_vm_writev(own_id(), &local, 1, &remote, 1, 0) }
        })
    }
}

fn remote(address: u64, done: usize, bytes: usize) -> libc::iovec {
    let base = (address as usize).wrapping_add(done) as *mut libc::c_void;
    libc::iovec { iov_base: base, iov_len: bytes - done }
}

/// Repeats a call that may move less than is left until nothing is left, or nothing moves.
fn move_all(
    address: u64,
    bytes: usize,
    mut call: impl FnMut(usize) -> isize,
) -> Result<(), PageFault> {
    let mut done = 0;
    while done < bytes {
        match call(done) {
            moved @ 1.. => done += moved as usize,
            _ if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {}
            _ => return Err(PageFault { address: address.wrapping_add(done as u64) }),
        }
    }
    Ok(())
}

fn own_id() -> libc::pid_t {
    std::process::id() as libc::pid_t
}
