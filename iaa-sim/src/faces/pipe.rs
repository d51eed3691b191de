//! A queue's file that does not map: a pipe, to which descriptors are written.
//!
//! What waits in the queue waits in the pipe, up to an engine's taking it, so that the kernel refuses
//! the write for which there is no room. For that each write must fill one of the pipe's buffers
//! (`O_DIRECT`), and must not wait (`O_NONBLOCK`): flags of the program's own descriptor of the file,
//! which it has opened without them. A program that cannot map the file first submits a no-operation and
//! waits for it; while it waits, they are set.

use std::collections::VecDeque;
use std::ffi::c_int;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use super::fork;
use crate::descriptor::{DESCRIPTOR_BYTES, Descriptor};
use crate::device::{Device, Devices, Pull, Pulled};

/// Bytes of each of a pipe's buffers.
const BUFFER: c_int = 4096;

/// How often a pipe is emptied and filled again for what was written meanwhile.
const TRIES: usize = 1000;

/// The descriptors of a queue with the face `write`.
#[derive(Clone, Debug)]
pub(super) struct Pipe(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// The end that is read. Does not wait.
    read: OwnedFd,
    /// The end that programs open anew.
    write: OwnedFd,
    inode: u64,
    /// How many writes there is room for.
    room: usize,
    /// Since when there is something in it; 0 where that is not known.
    since: AtomicU64,
    gate: Mutex<Gate>,
}

#[derive(Debug, Default)]
struct Gate {
    /// When it opens again, if it is closed: then the pipe is full of stoppers, of a byte each, and nothing
    /// is read that could make room.
    opens: Option<u64>,
    /// What was in the pipe when it was closed, and since when.
    before: VecDeque<(Descriptor, u64)>,
}

impl Pipe {
    /// One with room for `depth` descriptors, or where that is not a power of 2, for the next one.
    pub(super) fn new(depth: usize) -> io::Result<Self> {
        let mut ends: [RawFd; 2] = [-1; 2];
        let flags = libc::O_CLOEXEC | libc::O_NONBLOCK | libc::O_DIRECT;
        // SAFETY: it writes two numbers to where there is room for two.
        check(unsafe { libc::pipe2(ends.as_mut_ptr(), flags) })?;
        // SAFETY: the call has just opened it, for us.
        let read = unsafe { OwnedFd::from_raw_fd(ends[0]) };
        // SAFETY: the same.
        let write = unsafe { OwnedFd::from_raw_fd(ends[1]) };
        let bytes = depth as c_int * BUFFER;
        // SAFETY: it takes a number.
        let bytes = check(unsafe { libc::fcntl(write.as_raw_fd(), libc::F_SETPIPE_SZ, bytes) })?;
        let room = (bytes / BUFFER) as usize;
        let inode = fs::metadata(format!("/proc/self/fd/{}", write.as_raw_fd()))?.ino();
        let gate = Mutex::default();
        Ok(Self(Arc::new(Shared { read, write, inode, room, since: AtomicU64::new(0), gate })))
    }

    /// The end that is written to.
    pub(super) fn fd(&self) -> RawFd {
        self.0.write.as_raw_fd()
    }

    /// Fills it, so that nothing more is accepted.
    pub(super) fn fill(&self) {
        self.0.fill();
    }

    /// The file by which a program submits.
    pub(super) fn path(&self) -> String {
        format!("/proc/self/fd/{}", self.fd())
    }
}

impl Shared {
    /// Sees to it that programs that have opened the file need not wait when it is full.
    fn adopt(&self) -> io::Result<()> {
        for entry in fs::read_dir("/proc/self/fd")? {
            let name = entry?.file_name();
            let Some(fd) = name.to_str().and_then(|name| name.parse::<RawFd>().ok()) else {
                continue;
            };
            let is_ours = [&self.read, &self.write].iter().any(|own| own.as_raw_fd() == fd);
            let link = fs::read_link(format!("/proc/self/fd/{fd}"));
            let of_this =
                link.is_ok_and(|link| link.as_os_str() == &*format!("pipe:[{}]", self.inode));
            if of_this && !is_ours {
                fork::note(fd, self.inode);
                let flags = libc::O_NONBLOCK | libc::O_DIRECT;
                // SAFETY: it sets flags of an open file, or fails where it was closed meanwhile.
                check(unsafe { libc::fcntl(fd, libc::F_SETFL, flags) })?;
            }
        }
        Ok(())
    }

    fn gate(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self) -> Option<Result<Descriptor, usize>> {
        let mut bytes = [0; DESCRIPTOR_BYTES];
        let into = bytes.as_mut_ptr().cast();
        // SAFETY: there is room for so many bytes.
        match unsafe { libc::read(self.read.as_raw_fd(), into, DESCRIPTOR_BYTES) } {
            64 => Some(Ok(Descriptor(bytes))),
            some @ 1.. => Some(Err(some as usize)),
            _ => None,
        }
    }

    fn is_empty(&self) -> bool {
        let mut bytes: c_int = 0;
        // SAFETY: it writes a number to where there is one.
        let done = unsafe { libc::ioctl(self.read.as_raw_fd(), libc::FIONREAD, &mut bytes) };
        done != 0 || bytes == 0
    }

    /// Fills the pipe, so that nothing more is accepted. Returns how many stoppers that took.
    fn fill(&self) -> usize {
        let mut count = 0;
        loop {
            // SAFETY: it reads a byte of a constant.
            let written = unsafe { libc::write(self.write.as_raw_fd(), [0_u8].as_ptr().cast(), 1) };
            if written != 1 {
                return count;
            }
            count += 1;
        }
    }
}

impl Pull for Pipe {
    fn pull(&self, now: u64) -> Pulled {
        let shared = &*self.0;
        let mut gate = shared.gate();
        if let Some((descriptor, arrived)) = gate.before.pop_front() {
            return Pulled::One(descriptor, arrived);
        }
        if let Some(opens) = gate.opens.filter(|&opens| opens > now) {
            return Pulled::Nothing(Some(opens).filter(|&opens| opens != u64::MAX));
        }
        gate.opens = None;
        loop {
            let arrived = match shared.since.load(Ordering::Acquire) {
                0 => now,
                since => since,
            };
            match shared.read() {
                None => return Pulled::Nothing(None),
                Some(Ok(descriptor)) => {
                    if shared.is_empty() {
                        shared.since.store(0, Ordering::Release);
                    }
                    if descriptor.opcode() == 0 {
                        // Where it fails, a full queue makes the program wait: worse cannot happen.
                        let _ = shared.adopt();
                    }
                    return Pulled::One(descriptor, arrived);
                }
                // A stopper that was left behind.
                Some(Err(1)) => {}
                Some(Err(_)) => return Pulled::Malformed,
            }
        }
    }

    fn close_until(&self, time: u64) {
        let shared = &*self.0;
        let mut gate = shared.gate();
        if gate.opens.is_none() {
            let since = shared.since.load(Ordering::Acquire);
            // What a program writes while the pipe is emptied and filled has been accepted, too: then there is
            // no room for as many stoppers, and all is done once more. Of the tries, each is one that a program
            // was quicker than, for which it has a descriptor less in hand.
            for _ in 0..TRIES {
                while let Some(read) = shared.read() {
                    gate.before.extend(read.ok().map(|descriptor| (descriptor, since)));
                }
                if shared.fill() >= shared.room {
                    break;
                }
            }
        }
        gate.opens = gate.opens.max(Some(time));
    }
}

/// Starts a thread that tells devices of what is written to their queues.
pub(super) fn watch(pipes: Vec<Vec<Pipe>>, devices: &Devices) -> io::Result<()> {
    // SAFETY: it takes a number.
    let epoll = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
    // SAFETY: the call has just opened it, for us.
    let epoll = unsafe { OwnedFd::from_raw_fd(epoll) };
    let clock = devices.clock();
    let mut watched: Vec<(Pipe, Arc<Device>)> = Vec::new();
    for (pipes, device) in pipes.into_iter().zip(devices.devices()) {
        for pipe in pipes {
            let events = (libc::EPOLLIN | libc::EPOLLET) as u32;
            let mut event = libc::epoll_event { events, u64: watched.len() as u64 };
            let (epoll, read) = (epoll.as_raw_fd(), pipe.0.read.as_raw_fd());
            // SAFETY: both are open, and the event lives through the call.
            check(unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, read, &mut event) })?;
            watched.push((pipe, device.clone()));
        }
    }
    let run = move || {
        crate::thread::become_a_device();
        loop {
            let mut event = libc::epoll_event { events: 0, u64: 0 };
            // SAFETY: there is room for one event.
            let count = unsafe { libc::epoll_wait(epoll.as_raw_fd(), &mut event, 1, -1) };
            let at = event.u64 as usize;
            if let (1, Some((pipe, device))) = (count, watched.get(at)) {
                let (since, now) = (&pipe.0.since, clock.now().max(1));
                let _ = since.compare_exchange(0, now, Ordering::AcqRel, Ordering::Relaxed);
                device.wake();
            }
        }
    };
    thread::Builder::new().name("iaa-sim-queues".to_owned()).spawn(run)?;
    Ok(())
}

/// The value of a call, or the error that it says by a negative one.
pub(super) fn check(value: c_int) -> io::Result<c_int> {
    if value < 0 { Err(io::Error::last_os_error()) } else { Ok(value) }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;

    /// Writes descriptors as a program does, until it is told to stop or the queue has refused one that often.
    fn write_until(stop: &AtomicBool, fd: RawFd) -> u64 {
        let mut accepted = 0;
        while !stop.load(Ordering::Acquire) {
            let bytes = [1_u8; DESCRIPTOR_BYTES];
            // SAFETY: it reads so many bytes of an array.
            let written = unsafe { libc::write(fd, bytes.as_ptr().cast(), DESCRIPTOR_BYTES) };
            accepted += u64::from(written == DESCRIPTOR_BYTES as isize);
        }
        accepted
    }

    #[test]
    fn what_was_accepted_before_a_queue_is_closed_for_ever_is_taken_from_it() {
        for _ in 0..200 {
            let pipe = Pipe::new(16).unwrap();
            let (stop, fd) = (AtomicBool::new(false), pipe.fd());
            let taken = || matches!(pipe.pull(1), Pulled::One(..));
            let (accepted, early) = thread::scope(|scope| {
                let writers: Vec<_> =
                    (0..2).map(|_| scope.spawn(|| write_until(&stop, fd))).collect();
                let early = (0..50).filter(|_| taken()).count() as u64;
                pipe.close_until(u64::MAX);
                stop.store(true, Ordering::Release);
                let accepted = writers.into_iter().map(|writer| writer.join().unwrap());
                (accepted.sum::<u64>(), early)
            });
            let late = std::iter::from_fn(|| taken().then_some(())).count() as u64;
            assert_eq!(early + late, accepted);
        }
    }
}
