//! The face `write`: libaccel-config's functions, and queues that are pipes.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]
#![allow(dead_code, reason = "each test uses a part of what they share")]
#![cfg(feature = "libaccel-config")]

mod child;

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::fd::AsRawFd;

use child::{
    DECOMPRESS, NO_OPERATION, Record, descriptor, load, map, open, open_queue, process, simulate,
    wait_for, walk,
};

const STALLED: [(&str, &str); 3] =
    [("ENGINES", "1"), ("JITTER", "0"), ("DECOMPRESS_THROUGHPUT", "1K")];

/// Writes a descriptor, as libqpl does. Returns whether it was accepted.
fn write(mut queue: &File, descriptor: &[u8; 64]) -> bool {
    match queue.write(descriptor) {
        Ok(bytes) => {
            assert_eq!(bytes, 64);
            true
        }
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}");
            false
        }
    }
}

/// A queue that has done its first no-operation.
fn begun() -> File {
    let queue = open_queue();
    no_operation(&queue);
    queue
}

fn no_operation(queue: &File) {
    let record = Record::new();
    assert!(write(queue, &descriptor(NO_OPERATION, record)));
    assert_eq!(record.wait(), 1);
}

fn is_drained(queue: &File) -> bool {
    let mut bytes: libc::c_int = -1;
    // SAFETY: it writes a number to where there is one.
    unsafe { libc::ioctl(queue.as_raw_fd(), libc::FIONREAD, &mut bytes) };
    bytes == 0
}

#[test]
fn a_walk_finds_the_devices_as_configured() {
    let settings = [
        ("DEVICES", "3"),
        ("NUMA_NODES", "1,none"),
        ("QUEUES", "2"),
        ("QUEUE_PRIORITIES", "9,4"),
        ("BLOCK_ON_FAULT", "1"),
    ];
    simulate(&settings, || {
        let devices = walk();
        let names: Vec<_> =
            devices.iter().map(|device| (&*device.name, device.numa_node)).collect();
        assert_eq!(names, [("iax1", 1), ("iax2", -1), ("iax3", -1)]);
        for device in &devices {
            let queues: Vec<_> = device
                .queues
                .iter()
                .map(|queue| (queue.id, queue.priority, queue.block_on_fault))
                .collect();
            assert_eq!(queues, [(0, 9, 1), (1, 4, 1)]);
        }
        let mut paths: Vec<_> = devices
            .iter()
            .flat_map(|device| device.queues.iter().map(|queue| &*queue.path))
            .collect();
        paths.sort_unstable();
        paths.dedup();
        assert_eq!(paths.len(), 6, "each queue has a file of its own");
        assert_eq!(walk(), devices, "a second walk sees the same");
    });
}

#[test]
fn without_devices_the_walk_finds_none_and_nothing_is_said() {
    let said = simulate(&[("DEVICES", "0")], || assert_eq!(walk(), []));
    assert!(!said.contains("iaa-sim:"), "{said}");
}

#[test]
fn a_bad_configuration_is_a_line_and_no_devices() {
    let file = std::env::temp_dir().join(format!("iaa-sim-bad-{}.toml", std::process::id()));
    fs::write(&file, "queue_depths = [0]\nspeed = 1\n").unwrap();
    for (setting, value) in
        [("DEPTH", "4"), ("QUEUE_DEPTHS", "0"), ("QUEUES", "0"), ("CONFIG", file.to_str().unwrap())]
    {
        let said = simulate(&[(setting, value)], || assert_eq!(walk(), []));
        let lines: Vec<_> = said.lines().filter(|line| line.starts_with("iaa-sim")).collect();
        assert_eq!(lines.len(), 1, "{said}");
        assert!(lines[0].contains("no devices") && lines[0].contains(value), "{said}");
    }
    fs::remove_file(file).unwrap();
}

#[test]
fn a_descriptor_that_is_written_completes() {
    simulate(&[("ERROR", "1"), ("ERROR_STATUS", "0x0a:17")], || {
        let queue = open_queue();
        assert_eq!(map(&queue), None, "the file must not map");
        no_operation(&queue);
        for _ in 0..1000 {
            let record = Record::new();
            assert!(write(&queue, &descriptor(DECOMPRESS, record)));
            assert_eq!((record.wait(), record.error()), (0x0a, 17));
        }
    });
}

#[test]
fn a_queue_takes_its_depth_or_the_next_power_of_2_and_no_more() {
    for depth in ["1", "8", "5", "256"] {
        let settings = [&STALLED[..], &[("QUEUE_DEPTHS", depth)]].concat();
        simulate(&settings, || {
            let queue = begun();
            let places: usize = std::env::var("IAA_SIM_QUEUE_DEPTHS").unwrap().parse().unwrap();
            let places = places.next_power_of_two();
            // The engine takes one, and has it for longer than the test.
            assert!(write(&queue, &descriptor(DECOMPRESS, Record::new())));
            wait_for("empty queue", || is_drained(&queue));
            let more = || write(&queue, &descriptor(DECOMPRESS, Record::new()));
            assert_eq!((0..1000).take_while(|_| more()).count(), places);
            assert!(!more());
        });
    }
}

#[test]
fn queues_of_one_device_have_their_own_files_and_records() {
    simulate(&[("DEVICES", "2"), ("QUEUES", "3")], || {
        for queue in walk().iter().flat_map(|device| &device.queues) {
            no_operation(&open(&queue.path));
        }
    });
}

#[test]
fn a_full_queue_by_a_fault_opens_again() {
    simulate(&[("QUEUE_FULL", "1"), ("QUEUE_FULL_TIME", "20ms")], || {
        let queue = begun();
        for _ in 0..3 {
            // Each closes the queue behind it.
            wait_for("full queue", || !write(&queue, &descriptor(DECOMPRESS, Record::new())));
            wait_for("room", || write(&queue, &descriptor(DECOMPRESS, Record::new())));
            let record = Record::new();
            wait_for("more room", || write(&queue, &descriptor(NO_OPERATION, record)));
            assert_eq!(record.wait(), 1);
        }
    });
}

#[test]
fn a_disabled_queue_is_full_for_ever() {
    simulate(&[("QUEUE_DISABLED_AT", "3"), ("ERROR", "1")], || {
        let queue = begun();
        for _ in 0..4 {
            let record = Record::new();
            assert!(write(&queue, &descriptor(DECOMPRESS, record)));
            assert!(record.wait() > 1);
        }
        for _ in 0..10_000 {
            assert!(!write(&queue, &descriptor(NO_OPERATION, Record::new())));
        }
    });
}

#[test]
fn after_a_reset_nothing_completes_and_the_queue_is_full_for_ever() {
    let file = std::env::temp_dir().join(format!("iaa-sim-reset-{}", std::process::id()));
    simulate(&[("RESET_AT", "0"), ("COUNTERS", file.to_str().unwrap())], || {
        let queue = begun();
        let record = Record::new();
        assert!(write(&queue, &descriptor(DECOMPRESS, record)));
        let file = std::env::var("IAA_SIM_COUNTERS").unwrap();
        wait_for("reset", || fs::read_to_string(&file).unwrap().contains("\nresets = 1\n"));
        for _ in 0..10_000 {
            assert!(!write(&queue, &descriptor(NO_OPERATION, Record::new())));
        }
        assert_eq!(record.status(), 0);
    });
    fs::remove_file(file).unwrap();
}

#[test]
fn to_a_forked_child_the_queue_is_full() {
    simulate(&[], || {
        let queue = begun();
        let descriptor = descriptor(NO_OPERATION, Record::new());
        // SAFETY: the child calls nothing but `write` and `_exit`.
        let child = unsafe { libc::fork() };
        if child == 0 {
            // SAFETY: it reads from an array that is there.
            let written = unsafe { libc::write(queue.as_raw_fd(), descriptor.as_ptr().cast(), 64) };
            // SAFETY: it ends the child.
            unsafe { libc::_exit(if written == -1 { 7 } else { 8 }) };
        }
        let mut status = 0;
        // SAFETY: it writes a number to where there is one.
        assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
        assert_eq!(libc::WEXITSTATUS(status), 7);
        no_operation(&queue);
    });
}

#[test]
fn a_forked_child_leaves_alone_what_has_come_in_a_closed_queues_place() {
    let said = simulate(&[("COUNTERS_AT_EXIT", "1")], || {
        let queue = begun();
        let fd = queue.as_raw_fd();
        drop(queue);
        let file = File::open("/dev/null").unwrap();
        assert_eq!(file.as_raw_fd(), fd, "the lowest number that is free");
        // SAFETY: the child calls nothing but `read`, and ends in the way that it is to be tried in.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let mut byte = 0_u8;
            // SAFETY: there is room for a byte.
            let end = unsafe { libc::read(fd, (&raw mut byte).cast(), 1) };
            // SAFETY: it ends the child, with the functions that are to be called then.
            unsafe { libc::exit(if end == 0 { 7 } else { 8 }) };
        }
        let mut status = 0;
        // SAFETY: it writes a number to where there is one.
        assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
        assert_eq!(libc::WEXITSTATUS(status), 7);
    });
    assert_eq!(said.matches("iaa-sim: [iax1]").count(), 1, "a child counts nothing: {said}");
}

#[test]
fn what_is_not_a_descriptor_is_counted_and_not_done() {
    let said = simulate(&[("COUNTERS_AT_EXIT", "1")], || {
        let queue = begun();
        assert_eq!((&queue).write(&[0; 10]).unwrap(), 10);
        no_operation(&queue);
    });
    assert!(said.contains("\niaa-sim: malformed_writes = 1\n"), "{said}");
    assert!(said.contains("\niaa-sim: no_operations = 2\n"), "{said}");
}

#[test]
fn counters_can_be_read_while_the_process_runs_and_when_it_has_ended() {
    let file = std::env::temp_dir().join(format!("iaa-sim-counters-{}", std::process::id()));
    simulate(&[("COUNTERS", file.to_str().unwrap())], || {
        let queue = begun();
        let file = std::env::var("IAA_SIM_COUNTERS").unwrap();
        let has = |line: &str| fs::read_to_string(&file).unwrap().lines().any(|own| own == line);
        wait_for("count", || has("no_operations = 1"));
        no_operation(&queue);
    });
    let text = fs::read_to_string(&file).unwrap();
    fs::remove_file(file).unwrap();
    assert!(text.starts_with("[iax1]\n") && text.contains("\nno_operations = 2\n"), "{text}");
}

#[test]
fn the_library_can_be_told_from_libaccel_config() {
    simulate(&[], || {
        type Version = unsafe extern "C" fn() -> *const libc::c_char;
        // SAFETY: the function has that type.
        let version = unsafe { load().get::<Version>(b"iaa_sim_version\0") }.unwrap();
        // SAFETY: it takes nothing.
        let version = unsafe { version() };
        // SAFETY: it is a text that ends in a NUL and stays.
        let version = unsafe { std::ffi::CStr::from_ptr(version) };
        assert_eq!(version.to_str(), Ok(env!("CARGO_PKG_VERSION")));
    });
}

#[test]
fn a_process_exits_with_descriptors_in_flight() {
    let output = process(&STALLED, || {
        let queue = begun();
        assert!(write(&queue, &descriptor(DECOMPRESS, Record::new())));
    });
    assert!(output.status.success(), "{output:?}");
}
