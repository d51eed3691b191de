//! The face `mapped`: ENQCMD on a queue's page, and every other fault as without the simulation.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]
#![allow(dead_code, reason = "each test uses a part of what they share")]
#![cfg(all(feature = "libaccel-config", target_arch = "x86_64"))]

mod child;

use std::arch::asm;
use std::os::unix::process::ExitStatusExt;
use std::ptr;

use child::{DECOMPRESS, NO_OPERATION, Record, descriptor, map, open_queue, process, simulate};

const MAPPED: (&str, &str) = ("FACE", "mapped");

const STALLED: [(&str, &str); 4] =
    [MAPPED, ("ENGINES", "1"), ("JITTER", "0"), ("DECOMPRESS_THROUGHPUT", "1K")];

/// Does an ENQCMD, as libqpl does. Returns whether the queue took the descriptor.
fn enqcmd(portal: usize, descriptor: &[u8; 64]) -> bool {
    let retry: u8;
    // SAFETY: it reads the descriptor, and writes what the simulation's engines write.
    unsafe {
        asm!(
            ".byte 0xf2, 0x0f, 0x38, 0xf8, 0x02",
            "setz {retry}",
            retry = out(reg_byte) retry,
            in("rax") portal,
            in("rdx") descriptor,
        );
    }
    retry == 0
}

fn portal() -> usize {
    map(&open_queue()).expect("the file must map")
}

#[test]
fn enqcmd_submits_at_every_place_of_the_page() {
    simulate(&[MAPPED, ("ERROR", "1"), ("ERROR_STATUS", "0x0a:17")], || {
        let portal = portal();
        for index in 0..128 {
            let record = Record::new();
            assert!(enqcmd(portal + index % 64 * 64, &descriptor(NO_OPERATION, record)));
            assert_eq!(record.wait(), 1);
            let record = Record::new();
            assert!(enqcmd(portal + index % 64 * 64, &descriptor(DECOMPRESS, record)));
            assert_eq!((record.wait(), record.error()), (0x0a, 17));
        }
    });
}

#[test]
fn a_queue_takes_its_depth_and_no_more() {
    for depth in ["1", "5", "128"] {
        simulate(&[&STALLED[..], &[("QUEUE_DEPTHS", depth)]].concat(), || {
            let portal = portal();
            let depth: usize = std::env::var("IAA_SIM_QUEUE_DEPTHS").unwrap().parse().unwrap();
            let more = || enqcmd(portal, &descriptor(DECOMPRESS, Record::new()));
            let accepted = std::cell::Cell::new(0);
            // The engine takes one when its thread wakes up, and has it for longer than the test.
            child::wait_for("full queue", || {
                accepted.set(accepted.get() + usize::from(more()));
                accepted.get() == depth + 1
            });
            for _ in 0..1000 {
                assert!(!more());
            }
        });
    }
}

#[test]
fn a_full_queue_by_a_fault_refuses_each_submission_but_no_operations() {
    simulate(&[MAPPED, ("QUEUE_FULL", "1")], || {
        let portal = portal();
        for _ in 0..100 {
            assert!(!enqcmd(portal, &descriptor(DECOMPRESS, Record::new())));
        }
        let record = Record::new();
        assert!(enqcmd(portal, &descriptor(NO_OPERATION, record)));
        assert_eq!(record.wait(), 1);
    });
}

#[test]
fn a_disabled_queue_refuses_from_its_descriptor_on() {
    simulate(&[MAPPED, ("QUEUE_DISABLED_AT", "2"), ("ERROR", "1")], || {
        let portal = portal();
        let records = [Record::new(), Record::new()];
        for record in records {
            assert!(enqcmd(portal, &descriptor(DECOMPRESS, record)));
        }
        for opcode in [DECOMPRESS, NO_OPERATION] {
            assert!(!enqcmd(portal, &descriptor(opcode, Record::new())));
        }
        for record in records {
            assert!(record.wait() > 1, "what it has is done");
        }
    });
}

#[test]
fn where_the_instruction_is_a_general_protection_it_is_done_as_well() {
    simulate(&[MAPPED], || {
        let portal = portal();
        let record = Record::new();
        let descriptor = descriptor(NO_OPERATION, record);
        let code = instruction_that_segfaults();
        let retry: u64;
        // SAFETY: behind the instruction, which the handler does, are `sete al` and `ret`.
        unsafe {
            asm!(
                "call {code}",
                code = in(reg) code,
                inout("rax") portal as u64 => retry,
                in("rdx") &descriptor,
                clobber_abi("C"),
            );
        }
        assert_eq!(retry as u8, 0);
        assert_eq!(record.wait(), 1);
    });
}

/// The address of an ENQCMD in a page that must not be executed: SIGSEGV is raised at it, whatever the
/// processor. What is behind it may be executed.
fn instruction_that_segfaults() -> usize {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    let access = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: it takes memory that nothing has yet.
    let pages = unsafe { libc::mmap(ptr::null_mut(), 0x2000, access, flags, -1, 0) };
    assert_ne!(pages, libc::MAP_FAILED);
    let code = b"\xf2\x0f\x38\xf8\x02\x0f\x94\xc0\xc3";
    let at = pages.wrapping_byte_add(0x1000 - 5);
    // SAFETY: it is in the two pages.
    unsafe { ptr::copy_nonoverlapping(code.as_ptr(), at.cast(), code.len()) };
    let second = pages.wrapping_byte_add(0x1000);
    // SAFETY: the page is ours.
    let done = unsafe { libc::mprotect(second, 0x1000, libc::PROT_READ | libc::PROT_EXEC) };
    assert_eq!(done, 0);
    at.addr()
}

#[test]
fn the_handler_leaves_errno_and_the_other_registers() {
    simulate(&[MAPPED], || {
        let portal = portal();
        let descriptor = descriptor(NO_OPERATION, Record::new());
        // SAFETY: it takes nothing and always succeeds.
        let errno = unsafe { libc::__errno_location() };
        // SAFETY: the thread's own.
        unsafe { errno.write(77) };
        let (mut a, mut b, mut c): (u64, u64, u64) = (1, 2, 3);
        let flags: u64;
        // SAFETY: the handler does the instruction.
        unsafe {
            asm!(
                "stc",
                ".byte 0xf2, 0x0f, 0x38, 0xf8, 0x02",
                "pushfq",
                "pop {flags}",
                flags = out(reg) flags,
                in("rax") portal,
                in("rdx") &descriptor,
                inout("rcx") a,
                inout("r8") b,
                inout("r15") c,
            );
        }
        assert_eq!((a, b, c), (1, 2, 3));
        assert_eq!(flags & 0x8d5, 0, "ZF says that it was taken; the others are cleared");
        // SAFETY: the thread's own.
        assert_eq!(unsafe { errno.read() }, 77);
        (a, b, c) = (0, 0, 0);
        assert_eq!(a + b + c, 0);
    });
}

#[test]
fn to_a_forked_child_the_queue_is_full() {
    simulate(&[MAPPED], || {
        let portal = portal();
        let descriptor = descriptor(NO_OPERATION, Record::new());
        // SAFETY: the child does nothing but the instruction and `_exit`.
        let child = unsafe { libc::fork() };
        if child == 0 {
            // SAFETY: it ends the child.
            unsafe { libc::_exit(if enqcmd(portal, &descriptor) { 8 } else { 7 }) };
        }
        let mut status = 0;
        // SAFETY: it writes a number to where there is one.
        assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
        assert_eq!(libc::WEXITSTATUS(status), 7);
    });
}

#[test]
fn another_instruction_that_does_not_exist_ends_the_process_as_before() {
    let output = process(&[MAPPED], || {
        portal();
        // SAFETY: it ends the process.
        unsafe { asm!("ud2") };
    });
    assert_eq!(output.status.signal(), Some(libc::SIGILL), "{output:?}");
}

#[test]
fn another_access_that_is_not_allowed_ends_the_process_as_before() {
    let output = process(&[MAPPED], || {
        portal();
        // SAFETY: it ends the process.
        unsafe { asm!("mov byte ptr [rax], 1", in("rax") 0x10_u64) };
    });
    assert_eq!(output.status.signal(), Some(libc::SIGSEGV), "{output:?}");
}

#[test]
fn a_signal_that_is_sent_ends_the_process_as_before() {
    for signal in [libc::SIGSEGV, libc::SIGILL] {
        let output = process(&[MAPPED, ("SEED", &signal.to_string())], || {
            portal();
            let signal = std::env::var("IAA_SIM_SEED").unwrap().parse().unwrap();
            // Rust's own handler of SIGSEGV restores the default at the first one.
            // SAFETY: it takes numbers.
            unsafe { libc::raise(signal) };
            // SAFETY: it takes numbers.
            unsafe { libc::raise(signal) };
        });
        assert_eq!(output.status.signal(), Some(signal), "{output:?}");
    }
}

#[test]
fn enqcmd_to_what_is_not_a_queue_ends_the_process_as_before() {
    let output = process(&[MAPPED], || {
        portal();
        let elsewhere = Box::leak(Box::new([0_u8; 4096]));
        enqcmd(elsewhere.as_ptr().addr(), &descriptor(NO_OPERATION, Record::new()));
    });
    let signals = [Some(libc::SIGILL), Some(libc::SIGSEGV)];
    assert!(signals.contains(&output.status.signal()), "{output:?}");
}

/// Exits with 42 where it runs on the thread's alternate stack, else with 43.
extern "C" fn earlier(_signal: libc::c_int) {
    // SAFETY: zeros are a value of the type, which is plain data.
    let mut stack: libc::stack_t = unsafe { std::mem::zeroed() };
    // SAFETY: it only writes to where there is room.
    unsafe { libc::sigaltstack(ptr::null(), &mut stack) };
    // SAFETY: it ends the process.
    unsafe { libc::_exit(if stack.ss_flags & libc::SS_ONSTACK != 0 { 42 } else { 43 }) };
}

#[test]
fn a_handler_that_was_there_before_gets_other_faults_and_the_alternate_stack() {
    let output = process(&[MAPPED], || {
        // SAFETY: zeros are a value of the type, which is plain data.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        let handler: extern "C" fn(libc::c_int) = earlier;
        action.sa_sigaction = handler as usize;
        action.sa_flags = libc::SA_ONSTACK;
        // SAFETY: the handler does only what one may.
        unsafe { libc::sigaction(libc::SIGILL, &action, ptr::null_mut()) };
        let portal = portal();
        let record = Record::new();
        assert!(enqcmd(portal, &descriptor(NO_OPERATION, record)));
        assert_eq!(record.wait(), 1);
        // SAFETY: the handler ends the process.
        unsafe { asm!("ud2") };
    });
    assert_eq!(output.status.code(), Some(42), "{output:?}");
}

#[test]
fn without_the_face_no_handler_is_there() {
    let handler = |signal| {
        // SAFETY: zeros are a value of the type, which is plain data.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        // SAFETY: it only writes to where there is room.
        unsafe { libc::sigaction(signal, ptr::null(), &mut action) };
        action.sa_sigaction
    };
    simulate(&[("FACE", "write")], || {
        let before = [libc::SIGILL, libc::SIGSEGV].map(handler);
        child::walk();
        assert_eq!([libc::SIGILL, libc::SIGSEGV].map(handler), before);
    });
}
