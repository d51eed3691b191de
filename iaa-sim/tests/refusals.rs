//! What an engine refuses, and memory that is not there.

mod support;

use iaa_sim::completion::Completion;
use iaa_sim::engine::Engine;
use iaa_sim::memory::{Memory, OwnMemory, PageFault};
use proptest::prelude::*;
use support::*;

const READ_FAULT: u8 = 0x03;
const WRITE_FAULT: u8 = 0x83;

fn compress() -> Job {
    Job::new(Job::COMPRESS)
        .source(SOURCE, 4096)
        .destination(DESTINATION, 8192)
        .aecs(AECS, COMPRESS_AECS)
        .flags(READ_AECS)
        .operation_flags(6)
}

fn decompress() -> Job {
    Job::new(Job::DECOMPRESS)
        .source(SOURCE, 2)
        .destination(DESTINATION, 4096)
        .aecs(AECS, DECOMPRESS_AECS)
        .operation_flags(0x1f)
}

/// Memory in which both of the above succeed.
fn memory() -> Pages {
    let memory = Pages::default();
    let aecs = Code::fixed().compress_aecs(&Bits::default());
    memory.put(SOURCE, &[3, 0]).map(SOURCE, 4096).map(DESTINATION, 8192);
    memory.put(AECS, &aecs).map(AECS, 2 * DECOMPRESS_AECS);
    memory
}

/// The status of a descriptor and the flags that it has wrong. One that is refused touches nothing.
fn verdict(job: &Job) -> (u8, u64) {
    let memory = memory();
    let completion = job.run(&mut Engine::with_largest_transfer(2 << 20), &memory);
    if completion.status != 1 {
        assert_eq!(*memory.writes.borrow(), []);
        let nothing = Completion {
            status: completion.status,
            invalid_flags: completion.invalid_flags,
            ..Completion::default()
        };
        assert_eq!(completion, nothing);
        let unmapped = job.run(&mut Engine::with_largest_transfer(2 << 20), &Pages::default());
        assert_eq!(unmapped, nothing, "it is refused before memory is looked at");
    }
    (completion.status, completion.invalid_flags)
}

#[test]
fn what_is_right_succeeds() {
    assert_eq!(verdict(&compress()), (1, 0));
    assert_eq!(verdict(&decompress()), (1, 0));
    assert_eq!(verdict(&Job::new(0)), (1, 0));
}

#[test]
fn opcodes_that_do_not_exist_or_are_of_other_operations_are_unsupported() {
    for opcode in (1..=255).filter(|opcode| ![0x42, 0x43].contains(opcode)) {
        assert_eq!(verdict(&Job::new(opcode)), (0x10, 0), "{opcode:x}");
    }
}

#[test]
fn flags_that_are_reserved_are_named() {
    for bit in [0, 5, 6, 7, 9, 10, 11, 12, 14, 15, 17, 20, 23] {
        assert_eq!(verdict(&compress().flags(1 << bit)).0, 0x11, "{bit}");
        assert_eq!(verdict(&decompress().flags(1 << bit)).0, 0x11, "{bit}");
        assert_eq!(verdict(&decompress().flags(1 << bit)).1, 1 << bit);
        assert_eq!(verdict(&Job::new(0).flags(1 << bit)), (0x11, 1 << bit));
    }
    for allowed in [1, 4, 8, 13, 21] {
        assert_eq!(verdict(&compress().flags(1 << allowed)), (1, 0));
        assert_eq!(verdict(&decompress().flags(1 << allowed)), (1, 0));
    }
    assert_eq!(verdict(&Job::new(0).flags(READ_AECS)), (0x11, 1 << 16));
    // To write on overflow is for decompression.
    assert_eq!(verdict(&decompress().flags(2 << 18)), (1, 0));
    assert_eq!(verdict(&compress().flags(2 << 18)), (0x11, 2 << 18));
    assert_eq!(verdict(&decompress().flags(3 << 18)), (0x11, 3 << 18));
    // A completion cannot be requested without an address.
    let mut job = compress();
    job.0[4] = 8;
    assert_eq!(verdict(&job), (0x11, 8));
}

#[test]
fn operation_flags_that_are_reserved_or_not_supported_are_named() {
    for bit in [5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15] {
        assert_eq!(verdict(&compress().operation_flags(1 << bit)), (0x30, 1 << bit));
    }
    for bit in [5, 10, 11, 12, 13, 14, 15] {
        assert_eq!(verdict(&decompress().operation_flags(1 << bit)), (0x30, 1 << bit));
    }
    let mut disabled = decompress();
    disabled.0[38] &= !1;
    assert_eq!(verdict(&disabled), (0x30, 1));
    assert_eq!(verdict(&decompress().u32(56, 0x40)), (0x31, 0x40));
}

#[test]
fn reserved_fields_must_be_0() {
    for at in 16..64 {
        let mut job = Job::new(0);
        job.0[at] = 1;
        assert_eq!(verdict(&job), (0x12, 0), "{at}");
    }
    for at in 56..64 {
        let mut job = compress();
        job.0[at] = 1;
        assert_eq!(verdict(&job), (0x12, 0), "{at}");
    }
    for mut job in [compress(), decompress(), Job::new(0)] {
        job.0[36] = 1;
        assert_eq!(verdict(&job), (0x12, 0), "an interrupt's handle without an interrupt");
        job.0[36] = 0;
        job.0[3] = 0x7f;
        assert_eq!(verdict(&job), (0x12, 0));
        job.0[..4].copy_from_slice(&[0xff, 0xff, 0x0f, 0x80]);
        assert_eq!(verdict(&job), (1, 0), "PASID and privilege");
    }
    let mut job = compress().flags(1 << 4);
    job.0[36] = 1;
    assert_eq!(verdict(&job), (1, 0));
}

#[test]
fn sizes_and_alignment_are_checked() {
    for job in [compress(), decompress()] {
        assert_eq!(verdict(&job.clone().source(SOURCE, 0).destination(DESTINATION, 0)), (0x13, 0));
        assert_eq!(verdict(&job.clone().source(SOURCE, (2 << 20) + 1)), (0x13, 0));
        assert_eq!(verdict(&job.clone().destination(DESTINATION, (2 << 20) + 1)), (0x13, 0));
        let job = job.flags(READ_AECS);
        assert_eq!(verdict(&job.clone().aecs(AECS + 16, COMPRESS_AECS)), (0x1c, 0));
        assert_eq!(verdict(&job.clone().aecs(AECS, COMPRESS_AECS + 1)), (0x1c, 0));
        assert_eq!(verdict(&job.clone().aecs(AECS, 0)), (0x13, 0));
        assert_eq!(verdict(&job.clone().aecs(AECS, 0x20)), (0x13, 0));
        assert_eq!(verdict(&job.clone().u64(8, 0x40_0000_0020)), (0x1b, 0));
    }
    assert_eq!(verdict(&compress().aecs(AECS, DECOMPRESS_AECS)), (0x13, 0));
    assert_eq!(verdict(&decompress().flags(READ_AECS).aecs(AECS, COMPRESS_AECS)), (0x13, 0));
    assert_eq!(verdict(&decompress().aecs(1, 1)), (1, 0), "it is not used");
    let small = Job::new(0).run(&mut Engine::with_largest_transfer(0), &Pages::default());
    assert_eq!(small.status, 1);
    let small = decompress().run(&mut Engine::with_largest_transfer(4095), &memory());
    assert_eq!(small.status, 0x13);
}

#[test]
fn what_is_written_overlaps_nothing() {
    let written = compress().flags(WRITE_AECS);
    let second = AECS + COMPRESS_AECS as u64;
    assert_eq!(verdict(&written), (1, 0));
    assert_eq!(verdict(&written.clone().destination(SOURCE + 4095, 1)), (0x16, 0));
    assert_eq!(verdict(&written.clone().destination(SOURCE - 1, 2)), (0x16, 0));
    assert_eq!(verdict(&written.clone().destination(AECS + 100, 1)), (0x16, 0));
    assert_eq!(verdict(&written.clone().destination(second + 100, 1)), (0x16, 0));
    assert_eq!(verdict(&written.clone().source(second - 1, 2)), (0x16, 0));
    assert_eq!(verdict(&written.clone().source(second - 1, 1)), (1, 0), "both are read");
    assert_eq!(verdict(&written.flags(TOGGLE).source(AECS, 1)), (0x16, 0));
    // Output that is suppressed goes nowhere.
    assert_eq!(verdict(&decompress().destination(SOURCE, 1)), (0x16, 0));
    assert_eq!(verdict(&decompress().destination(SOURCE, 1).operation_flags(0x200)), (1, 0));
    // The end of the address space.
    assert_eq!(verdict(&decompress().destination(u64::MAX, 4096).source(u64::MAX, 2)).0, 0x16);
}

fn fault(completion: Completion) -> (u8, u64) {
    assert_eq!(completion.fault_info & 1, 1, "the address counts");
    (completion.status, completion.fault_address)
}

#[test]
fn a_page_that_is_not_there_is_a_fault_at_its_first_byte_that_is_used() {
    let data = sample(3, 4096);
    let job = Job::new(Job::COMPRESS)
        .source(SOURCE + 4000, 4096)
        .destination(DESTINATION + 4090, 9000)
        .aecs(AECS + 4096 - 32, COMPRESS_AECS)
        .flags(READ_AECS | WRITE_AECS)
        .operation_flags(6);
    let memory = || {
        let memory = Pages::default();
        memory.put(SOURCE + 4000, &data).map(DESTINATION, 2 * 8192);
        memory.put(AECS + 4096 - 32, &Code::fixed().compress_aecs(&Bits::default()));
        memory.map(AECS, 3 * 4096);
        memory
    };
    let run = |memory: &Pages| job.run(&mut Engine::default(), memory);
    assert_eq!(run(&memory()).status, 1);
    let at = |address| fault(run(memory().unmap(address)));
    assert_eq!(at(SOURCE), (READ_FAULT, SOURCE + 4000));
    assert_eq!(at(SOURCE + 4096), (READ_FAULT, SOURCE + 4096));
    assert_eq!(at(AECS), (READ_FAULT, AECS + 4096 - 32));
    assert_eq!(at(AECS + 4096), (READ_FAULT, AECS + 4096));
    assert_eq!(at(DESTINATION), (WRITE_FAULT, DESTINATION + 4090));
    assert_eq!(at(DESTINATION + 4096), (WRITE_FAULT, DESTINATION + 4096));
    assert_eq!(run(memory().unmap(DESTINATION + 8192)).status, 1, "the output ends before");
    let protected = |address| fault(run(memory().protect(address)));
    assert_eq!(protected(DESTINATION + 4096), (WRITE_FAULT, DESTINATION + 4096));
    // The AECS is written behind the one that is read.
    assert_eq!(protected(AECS + 4096), (WRITE_FAULT, AECS + 4096 - 32 + 1568));
}

#[test]
fn decompression_has_faults_too_and_can_be_done_again() {
    let mut bits = Bits::default();
    bits.number(3, 3);
    (0..5000).for_each(|_| {
        bits.word(0x30 + 7, 8);
    });
    let stream = bits.word(0, 7).bytes();
    let job = Job::new(Job::DECOMPRESS)
        .source(SOURCE + 100, stream.len())
        .destination(DESTINATION + 100, 5000)
        .aecs(AECS, DECOMPRESS_AECS)
        .flags(WRITE_AECS)
        .operation_flags(0x1f);
    let memory = Pages::default();
    memory.put(SOURCE + 100, &stream).map(DESTINATION, 8192).map(AECS, 2 * DECOMPRESS_AECS);
    let mut engine = Engine::default();
    let whole = job.run(&mut engine, &memory);
    assert_eq!((whole.status, whole.output_bytes), (1, 5000));
    let faults = [
        (SOURCE + 4096, READ_FAULT, SOURCE + 4096),
        (DESTINATION, WRITE_FAULT, DESTINATION + 100),
        (DESTINATION + 4096, WRITE_FAULT, DESTINATION + 4096),
        (AECS + 4096, WRITE_FAULT, AECS + DECOMPRESS_AECS as u64),
    ];
    for (unmapped, status, address) in faults {
        let broken = memory.clone();
        broken.unmap(unmapped);
        assert_eq!(fault(job.run(&mut engine, &broken)), (status, address));
        assert_eq!(job.run(&mut engine, &memory), whole, "an engine keeps nothing");
    }
    let read = job.flags(READ_AECS);
    assert_eq!(fault(read.run(&mut engine, memory.unmap(AECS))), (READ_FAULT, AECS));
}

#[test]
fn memory_of_this_process_may_have_holes() {
    let bytes = 3 * 4096;
    // SAFETY: a mapping of its own, which nothing else knows.
    let start = unsafe {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        libc::mmap(std::ptr::null_mut(), bytes, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0)
    };
    assert_ne!(start, libc::MAP_FAILED);
    let address = start as u64;
    let protect = |page: u64, protection| {
        // SAFETY: a page of the mapping, to which there are no references.
        let done = unsafe { libc::mprotect((address + 4096 * page) as *mut _, 4096, protection) };
        assert_eq!(done, 0);
    };
    OwnMemory.write(address + 4094, &[1, 1, 0, 0xff, 0xff, 7]).expect("the pages are there");
    // Past 1 byte, a stream of a stored block of 1 byte, over the edge of the page.
    let job = Job::new(Job::DECOMPRESS)
        .source(address + 4094, 6)
        .destination(address + 8192, 100)
        .operation_flags(0x1f);
    let run = || job.run(&mut Engine::default(), &OwnMemory);
    OwnMemory.write(address + 4094, &[1, 1, 0, 0xfe, 0xff, 7]).expect("the pages are there");
    assert_eq!((run().status, run().output_bytes), (1, 1));
    protect(2, libc::PROT_READ);
    assert_eq!(fault(run()), (WRITE_FAULT, address + 8192));
    protect(1, libc::PROT_NONE);
    assert_eq!(fault(run()), (READ_FAULT, address + 4096));
    // SAFETY: the mapping from above, to which there are no references.
    assert_eq!(unsafe { libc::munmap(start, bytes) }, 0);
}

/// Memory that is there everywhere, and knows where it was written.
#[derive(Default)]
struct Everywhere(std::cell::RefCell<Vec<(u64, usize)>>);

impl Memory for Everywhere {
    fn read(&self, address: u64, into: &mut [u8]) -> Result<(), PageFault> {
        for (nth, byte) in into.iter_mut().enumerate() {
            let at = address.wrapping_add(nth as u64);
            *byte = (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as u8;
        }
        Ok(())
    }

    fn write(&self, address: u64, from: &[u8]) -> Result<(), PageFault> {
        self.0.borrow_mut().push((address, from.len()));
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn any_64_bytes_have_a_status_and_write_where_they_may(
        mut bytes: [u8; 32],
        more: [u8; 32],
        opcode in prop_oneof![Just(0x42_u8), Just(0x43), Just(0), any::<u8>()],
        tame in 0..8_u8,
    ) {
        bytes[7] = opcode;
        let mut job = Job([0; 64]);
        job.0[..32].copy_from_slice(&bytes);
        job.0[32..].copy_from_slice(&more);
        // What is random everywhere is refused early: from step to step, more is as it should be.
        if tame > 0 {
            job = job.u32(32, u32::from(more[0]) << 4).u32(48, u32::from(more[1]) << 6);
            job.0[4..7].copy_from_slice(&[0xc, bytes[5] & 0x21, bytes[6] & 0x6d]);
            job.0[8] &= 0xc0;
        }
        if tame > 1 {
            job.0[..4].fill(0);
            job.0[36..38].fill(0);
            job.0[56..].fill(0);
        }
        if tame > 2 {
            job.0[39] = if opcode == 0x42 { more[7] & 2 } else { 0 };
            job.0[38] = if opcode == 0x42 { more[6] & 0xdf | 1 } else { more[6] & 0x1f };
        }
        if tame > 3 {
            let sizes = [COMPRESS_AECS, DECOMPRESS_AECS, 0x4e0];
            job.0[40] &= 0xe0;
            job = job.u32(52, sizes[usize::from(more[20]) % 3] as u32);
        }
        let memory = Everywhere::default();
        let mut engine = Engine::default();
        let completion = job.run(&mut engine, &memory);
        let known = [1, 0x0a, 0x0b, 0x10, 0x11, 0x12, 0x13, 0x16, 0x1b, 0x1c, 0x30, 0x31];
        prop_assert!(known.contains(&completion.status), "{:x}", completion.status);
        let u64_at = |at: usize| u64::from_le_bytes(job.0[at..at + 8].try_into().unwrap());
        let u32_at = |at: usize| u32::from_le_bytes(job.0[at..at + 4].try_into().unwrap());
        let destination = u64_at(24);
        let (aecs, aecs_bytes) = (u64_at(40), u32_at(52));
        let within = |(address, bytes): (u64, usize), start: u64, room: u64| {
            let from = u128::from(address.wrapping_sub(start));
            from + bytes as u128 <= u128::from(room)
        };
        for write in memory.0.take() {
            prop_assert!(
                within(write, destination, u32_at(48).into())
                    || within(write, aecs, 2 * u64::from(aecs_bytes)),
            );
            prop_assert!(completion.status < 0x10);
        }
        let nowhere = job.run(&mut engine, &Pages::default());
        prop_assert!(nowhere.status == completion.status || nowhere.status & 0x7f == 3 || completion.status == 0x0a);
    }
}

#[test]
fn a_source_that_is_mostly_not_there_is_a_page_fault_whatever_its_size() {
    let memory = memory();
    let job = compress().source(SOURCE, 2 << 30);
    let completion = job.run(&mut Engine::default(), &memory);
    assert_eq!((completion.status, completion.fault_info), (0x03, 1));
    assert!(completion.fault_address > SOURCE, "{:#x}", completion.fault_address);
}
