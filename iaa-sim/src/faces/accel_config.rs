//! libaccel-config's functions, as far as libqpl uses them.
//!
//! Handles are numbers, not addresses: whatever a caller gives, nothing is read through it.

use std::ffi::{c_char, c_int, c_uint};
use std::ptr;

use super::{Faces, faces};

/// A context, device or queue of libaccel-config, to its user.
#[repr(C)]
#[derive(Debug)]
pub(super) struct Opaque {
    _private: [u8; 0],
}

type Handle = *mut Opaque;

/// What `accfg_device_get_state` and `accfg_wq_get_state` call enabled.
const ENABLED: c_int = 1;
const DISABLED: c_int = 0;
/// What `accfg_wq_get_mode` calls shared.
const SHARED: c_int = 0;
/// The first version of IAA: major and minor.
const VERSION: c_uint = 0x100;
/// What the device can do, in the bits of its register GENCAP.
const BLOCK_ON_FAULT: u64 = 1 << 0;
const DECOMPRESSION: u64 = 1 << 40;

/// Queues that a device can have, by their handles.
const QUEUES: usize = 1 << 8;

/// The simulation's version. libaccel-config has no such function: by it one can tell them apart.
#[unsafe(no_mangle)]
pub(super) extern "C" fn iaa_sim_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// Makes a context. Never fails: without devices, it has none.
///
/// # Safety
/// `context` can be written to.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn accfg_new(context: *mut Handle) -> c_int {
    if context.is_null() {
        return -libc::EINVAL;
    }
    // Makes the devices.
    let _ = faces();
    // SAFETY: by the contract, it is the caller's to write to, and it is not null.
    unsafe { context.write(handle(0)) };
    0
}

/// Gives a context back. The devices stay.
#[unsafe(no_mangle)]
pub(super) extern "C" fn accfg_unref(_context: Handle) -> Handle {
    ptr::null_mut()
}

/// The first device.
#[unsafe(no_mangle)]
pub(super) extern "C" fn accfg_device_get_first(_context: Handle) -> Handle {
    device_handle(0)
}

/// The next device.
#[unsafe(no_mangle)]
pub(super) extern "C" fn accfg_device_get_next(device: Handle) -> Handle {
    device_of(device).map_or(ptr::null_mut(), |(_, device)| device_handle(device + 1))
}

/// A device's name, which has `iax` in it.
#[unsafe(no_mangle)]
pub(super) extern "C" fn accfg_device_get_devname(device: Handle) -> *const c_char {
    device_of(device).map_or(ptr::null(), |(faces, device)| faces.names[device].as_ptr().cast())
}

/// Whether a device is enabled: always.
#[unsafe(no_mangle)]
pub(super) extern "C" fn accfg_device_get_state(device: Handle) -> c_int {
    device_of(device).map_or(DISABLED, |_| ENABLED)
}

/// A device's version.
#[unsafe(no_mangle)]
pub(super) extern "C" fn accfg_device_get_version(_device: Handle) -> c_uint {
    VERSION
}

/// A device's register GENCAP.
#[unsafe(no_mangle)]
pub(super) extern "C" fn accfg_device_get_gen_cap(device: Handle) -> u64 {
    let bits = max_transfer(device).checked_ilog2().unwrap_or_default();
    BLOCK_ON_FAULT | u64::from(bits) << 16 | DECOMPRESSION
}

/// A device's register IAACAP, which this version does not have.
#[unsafe(no_mangle)]
pub(super) extern "C" fn accfg_device_get_iaa_cap(_device: Handle, _cap: *mut u64) -> c_int {
    1
}

/// A device's NUMA node, or -1.
#[unsafe(no_mangle)]
pub(super) extern "C" fn accfg_device_get_numa_node(device: Handle) -> c_int {
    let node = device_of(device).and_then(|(faces, device)| faces.config.numa_node(device));
    node.map_or(-1, c_int::from)
}

/// Bytes of a device's largest transfer.
#[unsafe(no_mangle)]
pub(super) extern "C" fn accfg_device_get_max_transfer_size(device: Handle) -> u64 {
    max_transfer(device)
}

/// A device's first queue.
#[unsafe(no_mangle)]
pub(super) extern "C" fn accfg_wq_get_first(device: Handle) -> Handle {
    device_of(device).map_or(ptr::null_mut(), |(_, device)| queue_handle(device, 0))
}

/// The next queue of the same device.
#[unsafe(no_mangle)]
pub(super) extern "C" fn accfg_wq_get_next(queue: Handle) -> Handle {
    queue_of(queue).map_or(ptr::null_mut(), |(_, device, queue)| queue_handle(device, queue + 1))
}

/// Whether a queue is enabled: always, when one asks.
#[unsafe(no_mangle)]
pub(super) extern "C" fn accfg_wq_get_state(queue: Handle) -> c_int {
    queue_of(queue).map_or(DISABLED, |_| ENABLED)
}

/// A queue's mode: shared.
#[unsafe(no_mangle)]
pub(super) extern "C" fn accfg_wq_get_mode(_queue: Handle) -> c_int {
    SHARED
}

/// A queue's number in its device.
#[unsafe(no_mangle)]
pub(super) extern "C" fn accfg_wq_get_id(queue: Handle) -> c_int {
    queue_of(queue).map_or(-1, |(_, _, queue)| queue as c_int)
}

/// A queue's priority.
#[unsafe(no_mangle)]
pub(super) extern "C" fn accfg_wq_get_priority(queue: Handle) -> c_int {
    queue_of(queue).map_or(0, |(faces, _, queue)| faces.config.queue_priority(queue).into())
}

/// Descriptors that a queue holds.
#[unsafe(no_mangle)]
pub(super) extern "C" fn accfg_wq_get_size(queue: Handle) -> u64 {
    queue_of(queue).map_or(0, |(faces, _, queue)| faces.config.queue_depth(queue) as u64)
}

/// Whether a queue permits that the engine waits for memory.
#[unsafe(no_mangle)]
pub(super) extern "C" fn accfg_wq_get_block_on_fault(queue: Handle) -> c_int {
    queue_of(queue).map_or(0, |(faces, _, _)| faces.config.block_on_fault.into())
}

/// Bytes of a queue's largest transfer.
#[unsafe(no_mangle)]
pub(super) extern "C" fn accfg_wq_get_max_transfer_size(queue: Handle) -> u64 {
    max_transfer(queue)
}

/// A queue's name.
#[unsafe(no_mangle)]
pub(super) extern "C" fn accfg_wq_get_devname(queue: Handle) -> *const c_char {
    queue_of(queue).map_or(ptr::null(), |_| c"wq".as_ptr())
}

/// Writes the path of a queue's file, with a NUL, to `buffer`. Returns its length, or a negative number
/// where there is no room.
///
/// # Safety
/// `size` bytes can be written to `buffer`.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn accfg_wq_get_user_dev_path(
    queue: Handle,
    buffer: *mut c_char,
    size: usize,
) -> c_int {
    let Some((faces, device, queue)) = queue_of(queue) else { return -libc::EINVAL };
    let path = &faces.paths[device][queue];
    if buffer.is_null() || path.len() >= size {
        return -libc::ENOSPC;
    }
    // SAFETY: by the contract, and since the path is shorter than that, it can be written to.
    unsafe { ptr::copy_nonoverlapping(path.as_ptr().cast(), buffer, path.len()) };
    // SAFETY: the path and a NUL are no longer than `size`.
    let end = unsafe { buffer.add(path.len()) };
    // SAFETY: the same.
    unsafe { end.write(0) };
    path.len() as c_int
}

/// A handle of that number, which is not null.
fn handle(number: usize) -> Handle {
    ptr::without_provenance_mut(number + 1)
}

/// The handle of a device, or null where there is none of that number.
fn device_handle(device: usize) -> Handle {
    let exists = faces().is_some_and(|faces| device < faces.paths.len());
    if exists { handle(device * QUEUES) } else { ptr::null_mut() }
}

/// The handle of a queue, or null where there is none of that number.
fn queue_handle(device: usize, queue: usize) -> Handle {
    let exists = faces().is_some_and(|faces| queue < faces.paths[device].len());
    if exists { handle(device * QUEUES + queue) } else { ptr::null_mut() }
}

/// Bytes of the largest transfer of a device, or of its queue.
fn max_transfer(handle: Handle) -> u64 {
    device_of(handle).map_or(0, |(faces, _)| faces.config.max_transfer.into())
}

fn device_of(handle: Handle) -> Option<(&'static Faces, usize)> {
    queue_of(handle).map(|(faces, device, _)| (faces, device))
}

/// The device and the queue of a handle, which are numbers of ones that exist.
fn queue_of(handle: Handle) -> Option<(&'static Faces, usize, usize)> {
    let number = handle.addr().checked_sub(1)?;
    let (device, queue) = (number / QUEUES, number % QUEUES);
    let faces = faces()?;
    faces.paths.get(device).filter(|queues| queue < queues.len())?;
    Some((faces, device, queue))
}
