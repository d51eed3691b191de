//! The memory of a job that a device writes.

use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicU8, Ordering, fence};
use std::{array, ptr};

use iaa_sim::completion::{COMPLETION_BYTES, Completion};

use super::descriptor::DECOMPRESS_AECS_BYTES;

/// A completion record, and the two AECSs of a decompression.
#[repr(C, align(64))]
pub(crate) struct DeviceMemory {
    record: [AtomicU8; COMPLETION_BYTES],
    /// Written by a device whose output is full, and never read here.
    aecs: UnsafeCell<MaybeUninit<[u8; 2 * DECOMPRESS_AECS_BYTES]>>,
}

// SAFETY: the record is of atomics, and of the AECSs only the address is used.
unsafe impl Sync for DeviceMemory {}

impl DeviceMemory {
    pub(crate) fn new() -> Box<Self> {
        Box::new(Self {
            record: array::from_fn(|_| AtomicU8::new(0)),
            aecs: UnsafeCell::new(MaybeUninit::uninit()),
        })
    }

    pub(crate) fn record_address(&self) -> u64 {
        self.record.as_ptr().expose_provenance() as u64
    }

    pub(crate) fn aecs_address(&self) -> u64 {
        self.aecs.get().expose_provenance() as u64
    }

    /// Marks the record as not written, before a submission.
    pub(crate) fn clear(&self) {
        self.record[0].store(0, Ordering::Release);
    }

    /// What the record says, once it is written.
    pub(crate) fn completion(&self) -> Option<Completion> {
        let status = self.record[0].load(Ordering::Relaxed);
        if status == 0 {
            return None;
        }
        // The device writes the status last.
        fence(Ordering::Acquire);
        let bytes = array::from_fn(|at| self.record[at].load(Ordering::Relaxed));
        Some(Completion::from_bytes(&bytes))
    }
}

/// Uses a byte that a device has missed, so that the kernel brings it: as libqpl does, which ends the process
/// where it cannot.
pub(crate) fn touch(address: u64, write: bool) {
    let byte: *mut MaybeUninit<u8> = ptr::with_exposed_provenance_mut(address as usize);
    // SAFETY: the byte is of the memory that the caller has given to the job, or of the job's own, and no device
    // is at work on it: its descriptor has ended.
    let value = unsafe { byte.read_volatile() };
    if write {
        // SAFETY: as above; it stays what it is.
        unsafe { byte.write_volatile(value) };
    }
}

/// The NUMA node of the processor that this thread is on.
pub(crate) fn own_node() -> u32 {
    let (mut cpu, mut node) = (0_u32, 0_u32);
    let (cpu, no_cache) = (&raw mut cpu, ptr::null_mut::<u8>());
    // SAFETY: both may be written, and the third argument has no meaning any more.
    let failed = unsafe { libc::syscall(libc::SYS_getcpu, cpu, &raw mut node, no_cache) } != 0;
    if failed { 0 } else { node }
}
