//! A queue's file that maps, and ENQCMD on its page.
//!
//! The file is a memfd. A processor without ENQCMD raises SIGILL at one; one that has it, in a process
//! that no device was given to, a general protection, which is SIGSEGV. The handler of both does what the
//! instruction does, where its destination is in a queue's page, and goes on behind it. All other faults
//! go where they went before.

use std::ffi::{c_char, c_int, c_void};
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::{mem, process, ptr};

use super::enqcmd::{Enqcmd, LONGEST, Registers};
use super::pipe::check;
use crate::descriptor::{DESCRIPTOR_BYTES, Descriptor};
use crate::device::{Clock, Device, Devices, Submission};
use crate::memory::{Memory, OwnMemory};

const PAGE: u64 = 4096;

/// What every memfd of ours is called, followed by a number.
const NAME: &str = "iaa-sim-wq";

/// The files of all queues.
#[derive(Debug)]
pub(super) struct Pages(Vec<Vec<Page>>);

#[derive(Debug)]
struct Page {
    file: OwnedFd,
    inode: u64,
}

/// What the handlers know. Never changes once it is there.
#[derive(Debug)]
struct Caught {
    queues: Vec<Target>,
    clock: Clock,
    process: u32,
    before: Before,
}

#[derive(Debug)]
struct Target {
    inode: u64,
    device: Arc<Device>,
    queue: usize,
}

/// The handlers that were there before.
struct Before {
    ill: libc::sigaction,
    segv: libc::sigaction,
}

static CAUGHT: OnceLock<Caught> = OnceLock::new();

/// Pages that are known to be a queue's: the address, with the queue's number in its low bits.
static KNOWN: [AtomicU64; 64] = [const { AtomicU64::new(0) }; 64];

impl Pages {
    pub(super) fn new(devices: usize, queues: usize) -> io::Result<Self> {
        let of_device =
            |device| (0..queues).map(|queue| Page::new(device, queue)).collect::<io::Result<_>>();
        (0..devices).map(of_device).collect::<io::Result<_>>().map(Self)
    }

    pub(super) fn paths(&self) -> Vec<Vec<String>> {
        let path = |page: &Page| format!("/proc/self/fd/{}", page.file.as_raw_fd());
        self.0.iter().map(|pages| pages.iter().map(path).collect()).collect()
    }

    /// Has ENQCMD on these pages caught for the rest of the process's life.
    pub(super) fn catch(self, devices: &Devices) -> io::Result<()> {
        let mut queues = Vec::new();
        for (pages, device) in self.0.into_iter().zip(devices.devices()) {
            for (queue, page) in pages.into_iter().enumerate() {
                queues.push(Target { inode: page.inode, device: device.clone(), queue });
                // Programs open it by its number, whenever they like.
                mem::forget(page.file);
            }
        }
        let before = Before { ill: action(libc::SIGILL)?, segv: action(libc::SIGSEGV)? };
        let caught = Caught { queues, clock: devices.clock(), process: process::id(), before };
        // Before the handlers, which look for it.
        let caught = CAUGHT.get_or_init(|| caught);
        install(libc::SIGILL, &caught.before.ill)?;
        install(libc::SIGSEGV, &caught.before.segv)
    }
}

impl Page {
    fn new(device: usize, queue: usize) -> io::Result<Self> {
        let name = format!("{NAME}{}.{queue}\0", device + 1);
        // SAFETY: the name ends in a NUL.
        let fd = check(unsafe {
            libc::memfd_create(name.as_ptr().cast::<c_char>(), libc::MFD_CLOEXEC)
        })?;
        // SAFETY: the call has just opened it, for us.
        let file = unsafe { OwnedFd::from_raw_fd(fd) };
        // SAFETY: the file is open.
        check(unsafe { libc::ftruncate(file.as_raw_fd(), PAGE as libc::off_t) })?;
        let inode = fs::metadata(format!("/proc/self/fd/{fd}"))?.ino();
        Ok(Self { file, inode })
    }
}

/// How a signal is handled now.
fn action(signal: c_int) -> io::Result<libc::sigaction> {
    // SAFETY: zeros are a value of the type, which is plain data.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    // SAFETY: it only writes to where there is room.
    check(unsafe { libc::sigaction(signal, ptr::null(), &mut action) })?;
    Ok(action)
}

/// Puts our handler in the place of `before`, and with its mask and flags, so that this finds all as
/// without us. Alternate stacks are used where a thread has one.
fn install(signal: c_int, before: &libc::sigaction) -> io::Result<()> {
    let mut ours = *before;
    let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) = handle;
    ours.sa_sigaction = handler as usize;
    ours.sa_flags |= libc::SA_SIGINFO | libc::SA_ONSTACK;
    // It is for the handler before: ours stays.
    ours.sa_flags &= !libc::SA_RESETHAND;
    // SAFETY: the handler stays loaded, and does only what a handler may.
    check(unsafe { libc::sigaction(signal, &ours, ptr::null_mut()) })?;
    Ok(())
}

/// The handler of both signals. It takes no lock and allocates nothing, and leaves `errno` as it was.
extern "C" fn handle(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: it takes nothing and always succeeds.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: it is the thread's own, and lives as long as that.
    let errno = unsafe { &mut *errno };
    let before = *errno;
    // SAFETY: the kernel gives a handler with SA_SIGINFO a context, for the time of the call.
    let registers = unsafe { &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
    let done = CAUGHT.get().is_some_and(|caught| caught.emulate(registers));
    if !done {
        pass_on(signal, info, context);
    }
    *errno = before;
}

impl Caught {
    /// Does an ENQCMD to a queue, if that is what the thread was about to do.
    fn emulate(&self, registers: &mut [libc::greg_t; 23]) -> bool {
        let rip = registers[libc::REG_RIP as usize] as u64;
        let mut code = [0; LONGEST];
        let have = read_code(rip, &mut code);
        let Some(enqcmd) = Enqcmd::decode(&code[..have], rip, &general(registers)) else {
            return false;
        };
        let Some(target) = self.target(enqcmd.portal) else { return false };
        let mut bytes = [0; DESCRIPTOR_BYTES];
        if OwnMemory.read(enqcmd.descriptor, &mut bytes).is_err() {
            return false;
        }
        let retry = !self.is_own_process()
            || target.device.submit(target.queue, &Descriptor(bytes), self.clock.now())
                != Submission::Accepted;
        // It sets ZF where the queue did not take the descriptor, and clears the other five.
        let flags = &mut registers[libc::REG_EFL as usize];
        *flags = *flags & !STATUS_FLAGS | if retry { ZERO_FLAG } else { 0 };
        registers[libc::REG_RIP as usize] += enqcmd.length as libc::greg_t;
        true
    }

    /// A forked child has no threads for the devices: their queues are full for it.
    fn is_own_process(&self) -> bool {
        self.process == process::id()
    }

    /// The queue whose page has that address.
    fn target(&self, address: u64) -> Option<&Target> {
        let page = address & !(PAGE - 1);
        let known = KNOWN.iter().map(|known| known.load(Ordering::Acquire));
        if let Some(known) =
            known.into_iter().find(|known| known & !(PAGE - 1) == page && page != 0)
        {
            return self.queues.get((known & (PAGE - 1)) as usize);
        }
        let inode = mapped_inode(address)?;
        let number = self.queues.iter().position(|target| target.inode == inode)?;
        for place in &KNOWN {
            let entry = page | number as u64;
            if place.compare_exchange(0, entry, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                break;
            }
        }
        self.queues.get(number)
    }
}

const CARRY_PARITY_AUX_SIGN_OVERFLOW: libc::greg_t = 0x1 | 0x4 | 0x10 | 0x80 | 0x800;
const ZERO_FLAG: libc::greg_t = 0x40;
const STATUS_FLAGS: libc::greg_t = CARRY_PARITY_AUX_SIGN_OVERFLOW | ZERO_FLAG;

/// Reads an instruction, without a fault of its own. Returns how many bytes of it there are.
fn read_code(rip: u64, code: &mut [u8; LONGEST]) -> usize {
    if OwnMemory.read(rip, code).is_ok() {
        return LONGEST;
    }
    // The next page may be missing.
    let to_end = (PAGE - rip % PAGE) as usize;
    let begin = code.get_mut(..to_end);
    begin.map_or(0, |code| if OwnMemory.read(rip, code).is_ok() { to_end } else { 0 })
}

fn general(registers: &[libc::greg_t; 23]) -> Registers {
    const ORDER: [c_int; 16] = [
        libc::REG_RAX,
        libc::REG_RCX,
        libc::REG_RDX,
        libc::REG_RBX,
        libc::REG_RSP,
        libc::REG_RBP,
        libc::REG_RSI,
        libc::REG_RDI,
        libc::REG_R8,
        libc::REG_R9,
        libc::REG_R10,
        libc::REG_R11,
        libc::REG_R12,
        libc::REG_R13,
        libc::REG_R14,
        libc::REG_R15,
    ];
    ORDER.map(|register| registers[register as usize] as u64)
}

/// The inode of the memfd of ours that is mapped at an address, by `/proc/self/maps`.
fn mapped_inode(address: u64) -> Option<u64> {
    let flags = libc::O_RDONLY | libc::O_CLOEXEC;
    // SAFETY: the path ends in a NUL.
    let fd = unsafe { libc::open(c"/proc/self/maps".as_ptr(), flags) };
    if fd < 0 {
        return None;
    }
    let mut found = None;
    let mut line = Line::default();
    let mut buffer = [0_u8; 1024];
    'file: loop {
        // SAFETY: there is room for so many bytes.
        let have = unsafe { libc::read(fd, buffer.as_mut_ptr().cast(), buffer.len()) };
        let Some(have) = usize::try_from(have).ok().filter(|have| *have > 0) else { break };
        for &byte in &buffer[..have] {
            if byte != b'\n' {
                line.push(byte);
            } else {
                if line.begin() <= address && address < line.end() {
                    found = line.inode();
                    break 'file;
                }
                line = Line::default();
            }
        }
    }
    // SAFETY: it was opened here.
    unsafe { libc::close(fd) };
    found
}

/// A line of `/proc/self/maps`: `begin-end permissions offset device inode path`.
struct Line {
    bytes: [u8; 160],
    length: usize,
}

impl Default for Line {
    fn default() -> Self {
        Self { bytes: [0; 160], length: 0 }
    }
}

impl Line {
    fn push(&mut self, byte: u8) {
        // The end of a long path does not matter.
        if let Some(place) = self.bytes.get_mut(self.length) {
            *place = byte;
            self.length += 1;
        }
    }

    fn begin(&self) -> u64 {
        number(self.word(0), 16)
    }

    fn end(&self) -> u64 {
        let word = self.word(0);
        let dash = word.iter().position(|&byte| byte == b'-').unwrap_or(word.len());
        number(word.get(dash + 1..).unwrap_or_default(), 16)
    }

    /// The inode, if it is of a memfd that is called like ours.
    fn inode(&self) -> Option<u64> {
        const PREFIX: &[u8] = b"/memfd:iaa-sim-wq";
        self.word(5).starts_with(PREFIX).then(|| number(self.word(4), 10))
    }

    fn word(&self, number: usize) -> &[u8] {
        let words = self.bytes[..self.length].split(|&byte| byte == b' ');
        words.filter(|word| !word.is_empty()).nth(number).unwrap_or_default()
    }
}

/// The number that a text begins with.
fn number(text: &[u8], radix: u32) -> u64 {
    let digits = text.iter().map_while(|&byte| char::from(byte).to_digit(radix));
    digits.fold(0, |number, digit| {
        number.wrapping_mul(u64::from(radix)).wrapping_add(u64::from(digit))
    })
}

/// Gives a signal to whom it would have gone without us.
fn pass_on(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    let before = CAUGHT.get().map(|caught| match signal {
        libc::SIGILL => &caught.before.ill,
        _ => &caught.before.segv,
    });
    // SAFETY: the kernel gives a handler with SA_SIGINFO this, for the time of the call.
    let sent = unsafe { (*info).si_code } <= 0;
    match before {
        Some(before) if before.sa_sigaction == libc::SIG_IGN && sent => {}
        Some(before) if !matches!(before.sa_sigaction, libc::SIG_IGN | libc::SIG_DFL) => {
            call(before, signal, info, context);
        }
        _ => {
            // By default it ends the process, and nobody can ignore a fault. The instruction is repeated,
            // and meets the same: core and status are as they would have been.
            // SAFETY: zeros are the default action, with no flags and an empty mask.
            let default: libc::sigaction = unsafe { mem::zeroed() };
            // SAFETY: it lives through the call.
            unsafe { libc::sigaction(signal, &default, ptr::null_mut()) };
            if sent {
                // There is nothing to repeat. It is blocked until this handler returns.
                // SAFETY: it takes a number.
                unsafe { libc::raise(signal) };
            }
        }
    }
}

fn call(before: &libc::sigaction, signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    if before.sa_flags & libc::SA_SIGINFO != 0 {
        // SAFETY: with that flag, the program has given a function of this type.
        let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) =
            unsafe { mem::transmute(before.sa_sigaction) };
        handler(signal, info, context);
    } else {
        // SAFETY: without it, one of this type.
        let handler: extern "C" fn(c_int) = unsafe { mem::transmute(before.sa_sigaction) };
        handler(signal);
    }
}

impl std::fmt::Debug for Before {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        to.debug_struct("Before").finish_non_exhaustive()
    }
}
