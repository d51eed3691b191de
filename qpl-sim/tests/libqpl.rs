//! The same calls on the real libqpl, where `scripts/qpl-library` gives it, and on this one, with the same
//! devices: statuses and counts are the same, call by call. What differs is in the README.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]
#![allow(dead_code, reason = "each test uses a part of what they share")]
#![allow(clippy::print_stdout, reason = "what a process prints is compared")]
#![allow(clippy::redundant_closure, reason = "a process is known by the closure of its test")]
#![cfg(target_arch = "x86_64")]

mod support;

use std::io::Write;
use std::sync::Once;
use std::time::{Duration, Instant};

use qpl_sys::{Flags, Job, Library, Path, Status};
use support::{TestJob, Which, noise, simulate_with, text};

/// What begins the lines that are compared.
const SAID: &str = "said: ";

/// Runs `body` with each library, and compares what it says.
fn same<F: Fn(&Library) + Copy>(settings: &[(&str, &str)], body: F) {
    // There, the devices refuse submissions as they do here.
    let settings = [&[("FACE", "mapped")], settings].concat();
    let said = |which| {
        let printed = simulate_with(which, &settings, body);
        // The harness begins the first line.
        let lines = printed.lines().filter_map(|line| Some(line.split_once(SAID)?.1.to_owned()));
        lines.collect::<Vec<_>>()
    };
    let simulated = said(Which::Simulated);
    assert!(!simulated.is_empty());
    if let (Err(error), None) = (Library::open(), Library::named()) {
        // Not by eprintln, which is captured: it is to be seen.
        static SKIPPED: Once = Once::new();
        SKIPPED.call_once(|| _ = writeln!(std::io::stderr(), "compared with nothing: {error}"));
        return;
    }
    let real = said(Which::Real);
    for (number, (ours, theirs)) in simulated.iter().zip(&real).enumerate() {
        assert_eq!(ours, theirs, "line {number}, with {settings:?}: here, and in libqpl");
    }
    assert_eq!(simulated.len(), real.len());
}

/// Says a status and all that a call may have changed.
fn say(what: &str, job: &mut TestJob, status: Status) {
    let (input, output) = (job.input.as_ptr().addr(), job.output.as_ptr().addr());
    let head = job.head();
    let moved = [
        head.next_in_ptr.addr().wrapping_sub(input),
        head.next_out_ptr.addr().wrapping_sub(output),
    ];
    let Job { total_in, total_out, available_in, available_out, crc, xor_checksum, .. } = *head;
    let bits = head.last_bit_offset;
    let fields = [total_in, total_out, available_in, available_out, crc, xor_checksum, bits];
    println!("{SAID}{what}: {} {fields:?} {moved:?}", status.0);
}

/// Submits a job and checks it to its end.
fn run(what: &str, job: &mut TestJob) -> Status {
    let status = job.submit();
    if status != Status::OK {
        say(&format!("{what}, submitted"), job, status);
        return status;
    }
    let began = Instant::now();
    let status = loop {
        match job.check() {
            Status::BEING_PROCESSED => {
                assert!(began.elapsed() < Duration::from_secs(60), "the job does not end");
                std::thread::yield_now();
            }
            status => break status,
        }
    };
    say(what, job, status);
    status
}

fn verifying(job: &mut TestJob) {
    job.head().flags &= !Flags::OMIT_VERIFY;
}

/// A stream of this page, which no fault has to do with.
fn stream(page: &[u8]) -> Vec<u8> {
    use libdeflater::{CompressionLvl, Compressor};
    let mut stream = vec![0; 2 * page.len() + 100];
    let level = CompressionLvl::new(6).unwrap();
    let written = Compressor::new(level).deflate_compress(page, &mut stream).unwrap();
    stream.truncate(written);
    stream
}

fn pages() -> [(&'static str, Vec<u8>); 7] {
    [
        ("text", text(1, 4096)),
        ("zeros", vec![0; 4096]),
        ("noise", noise(4096)),
        ("a byte", vec![200]),
        ("64 KiB of text", text(2, 65_536)),
        ("64 KiB of noise", noise(65_536)),
        ("64 KiB of zeros", vec![0; 65_536]),
    ]
}

#[test]
fn pages_are_compressed_in_the_same_way_into_any_room() {
    same(&[], |library| {
        for (name, page) in pages() {
            let mut job = TestJob::new(library, Path::Hardware);
            for room in [1, 2, 20, page.len(), page.len() + 5, page.len() + 10, 2 * page.len() + 64]
            {
                for verifies in [false, true] {
                    let what = format!("{name} into {room}, verified {verifies}");
                    job.compress(&page);
                    job.again(room);
                    if verifies {
                        verifying(&mut job);
                    }
                    if run(&what, &mut job) == Status::OK {
                        let stream = job.written().to_vec();
                        println!("{SAID}{:?}", crc_of(&stream));
                    }
                }
            }
            job.finish();
        }
    });
}

fn crc_of(bytes: &[u8]) -> u32 {
    let mut crc = libdeflater::Crc::new();
    crc.update(bytes);
    crc.sum()
}

#[test]
fn streams_are_decompressed_in_the_same_way_into_any_room() {
    same(&[], |library| {
        for (name, page) in pages() {
            let mut job = TestJob::new(library, Path::Hardware);
            for more in [&[][..], &[0xff; 3], &[0; 100]] {
                let stream = [&stream(&page)[..], more].concat();
                for room in [0, 1, 2, page.len() - 1, page.len(), page.len() + 1, 2 * page.len()] {
                    let what = format!("{name} and {} bytes into {room}", more.len());
                    job.decompress(&stream, room);
                    if run(&what, &mut job) == Status::OK {
                        assert!(job.written() == page);
                    }
                }
            }
            job.finish();
        }
    });
}

#[test]
fn broken_streams_are_refused_in_the_same_way() {
    same(&[], |library| {
        let mut job = TestJob::new(library, Path::Hardware);
        let whole = stream(&text(3, 4096));
        for at in 0..whole.len() {
            job.decompress(&whole[..at], 4096);
            run(&format!("{at} bytes of it"), &mut job);
        }
        for bit in 0..600 {
            let mut broken = whole.clone();
            broken[bit / 8] ^= 1 << (bit % 8);
            job.decompress(&broken, 4096);
            run(&format!("bit {bit} of it"), &mut job);
        }
        for bytes in [&[0b111, 0, 0, 0][..], &[0b011], &[1, 5, 0, 5, 0], &[0; 9], &[3, 0], &[2]] {
            job.decompress(bytes, 4096);
            run(&format!("{bytes:?}"), &mut job);
        }
        job.finish();
    });
}

#[test]
fn execute_comes_to_the_same() {
    same(&[], |library| {
        let mut job = TestJob::new(library, Path::Hardware);
        for (name, page) in pages() {
            for room in [2, page.len(), page.len() + 10, 2 * page.len() + 64] {
                for verifies in [false, true] {
                    job.compress(&page);
                    job.again(room);
                    if verifies {
                        verifying(&mut job);
                    }
                    let status = job.execute();
                    say(&format!("{name} into {room}"), &mut job, status);
                }
            }
            for room in [2, page.len(), page.len() + 1] {
                job.decompress(&[stream(&page), vec![0xff]].concat(), room);
                let status = job.execute();
                say(&format!("{name} back into {room}"), &mut job, status);
            }
            job.decompress(&[0b111, 0, 0, 0], 4096);
            let status = job.execute();
            say("a bad block", &mut job, status);
        }
        job.finish();
    });
}

#[test]
fn what_cannot_be_is_refused_with_the_same_status() {
    type Change = fn(&mut Job);
    const CHANGES: [Change; 12] = [
        |_| (),
        |job| job.next_in_ptr = std::ptr::null_mut(),
        |job| job.next_out_ptr = std::ptr::null_mut(),
        |job| job.available_in = 0,
        |job| job.available_out = 0,
        |job| (job.available_in, job.available_out) = (0, 0),
        |job| job.next_out_ptr = job.next_in_ptr.wrapping_add(100),
        |job| (job.next_out_ptr, job.available_out) = (job.next_in_ptr, 0),
        |job| job.op = 77,
        |job| job.level = 0,
        |job| job.level = 2,
        |job| job.level = 3,
    ];
    same(&[], |library| {
        for (at, change) in CHANGES.iter().enumerate() {
            for decompresses in [false, true] {
                let mut job = TestJob::new(library, Path::Hardware);
                match decompresses {
                    false => job.compress(&text(1, 4096)),
                    true => job.decompress(&stream(&text(1, 4096)), 4096),
                }
                change(job.head());
                let mut statuses = vec![job.submit()];
                if statuses == [Status::OK] {
                    statuses.push(job.wait());
                } else {
                    statuses.push(job.check());
                    if job.head().op != 77 {
                        statuses.push(job.execute());
                    }
                }
                let statuses: Vec<_> = statuses.iter().map(|status| status.0).collect();
                println!("{SAID}change {at}, decompresses {decompresses}: {statuses:?}");
                job.finish();
            }
        }
    });
}

#[test]
fn before_a_job_is_submitted_the_answers_are_the_same() {
    same(&[], |library| {
        for path in [Path::Hardware, Path::Software] {
            let mut job = TestJob::new(library, path);
            let statuses = [job.check().0, job.wait().0];
            println!("{SAID}{statuses:?} {:?}", job.head().numa_id);
            job.finish();
        }
    });
}

/// A few jobs of each operation, each of them used again, and initialised anew.
fn jobs(library: &Library) {
    let page = text(1, 4096);
    for turn in 0..4 {
        let mut job = TestJob::new(library, Path::Hardware);
        for again in 0..4 {
            let what = format!("{turn}, {again}");
            match (turn + again) % 2 {
                0 => job.compress(&page),
                _ => job.decompress(&stream(&page), 4096),
            }
            let status = run(&what, &mut job);
            if [Status::PAGE_FAULT, Status::WRITE_PAGE_FAULT].contains(&status) {
                // This library insists on it.
                break;
            }
        }
        assert_eq!(job.fini(), Status::OK);
        // A device takes a descriptor with the same addresses for the one that had a page fault.
        std::mem::forget(job);
    }
}

#[test]
fn page_faults_come_to_the_same() {
    for again in ["0", "1"] {
        for place in ["source", "destination", "aecs", "source,destination,aecs"] {
            for rate in ["0.5", "1"] {
                let settings =
                    [("PAGE_FAULT", rate), ("PAGE_FAULT_AGAIN", again), ("PAGE_FAULT_ON", place)];
                same(&settings, |library| jobs(library));
            }
        }
    }
}

#[test]
fn a_page_fault_and_a_full_queue_are_busy_at_each_check() {
    same(&[("PAGE_FAULT", "1"), ("QUEUE_DISABLED_AT", "1")], |library| {
        let mut job = TestJob::new(library, Path::Hardware);
        job.compress(&text(1, 4096));
        let status = run("first", &mut job);
        assert_eq!(status, Status::QUEUES_ARE_BUSY);
        for _ in 0..3 {
            let status = job.check();
            say("checked again", &mut job, status);
        }
        let status = job.wait();
        say("waited for", &mut job, status);
        let status = job.submit();
        say("again", &mut job, status);
        job.finish();
    });
}

#[test]
fn a_verification_that_finds_full_queues_comes_to_the_same() {
    same(&[("QUEUE_DISABLED_AT", "1")], |library| {
        let mut job = TestJob::new(library, Path::Hardware);
        job.compress(&text(1, 4096));
        verifying(&mut job);
        run("first", &mut job);
        for _ in 0..3 {
            let status = job.check();
            say("checked again", &mut job, status);
        }
        job.finish();
    });
}

#[test]
fn errors_come_to_the_same() {
    for status in [
        "0x0a:1", "0x0a:2", "0x0a:12", "0x0a:13", "0x0a:14", "0x0a:15", "0x0a:16", "0x0a:17",
        "0x0a:18", "0x0a:19", "0x0a:25", "0x0a:29", "0x0a:30", "0x0b", "0x10", "0x11", "0x12",
        "0x13", "0x16", "0x1b", "0x1c", "0x30", "0x0b:25",
    ] {
        same(&[("ERROR", "0.5"), ("ERROR_STATUS", status)], |library| jobs(library));
    }
}

#[test]
fn wrong_sizes_come_to_the_same() {
    for seed in ["1", "2", "3"] {
        same(&[("WRONG_OUTPUT_SIZE", "1"), ("SEED", seed)], |library| jobs(library));
    }
}

#[test]
fn refusals_come_to_the_same_on_several_devices_and_queues() {
    for settings in [
        &[("QUEUE_FULL", "0.5"), ("DEVICES", "3")][..],
        &[("QUEUE_FULL", "0.7"), ("DEVICES", "2"), ("QUEUES", "3")],
        &[("QUEUE_FULL", "1"), ("QUEUES", "2")],
        &[("QUEUE_DISABLED_AT", "3"), ("QUEUES", "2")],
        &[("RESET_AT", "0")],
        &[("DEVICES", "2"), ("QUEUES", "2"), ("QUEUE_FULL", "0.3"), ("PAGE_FAULT", "0.3")],
    ] {
        same(settings, |library| {
            // One that is refused after a page fault never ends, and none is expected to.
            for seed in 0..20 {
                let mut job = TestJob::new(library, Path::Hardware);
                job.compress(&text(seed, 4096));
                run(&seed.to_string(), &mut job);
                job.finish();
            }
        });
    }
}

#[test]
fn numa_nodes_and_missing_devices_come_to_the_same() {
    for settings in [
        &[("DEVICES", "0")][..],
        &[("NUMA_NODES", "0")],
        &[("NUMA_NODES", "1000")],
        &[("NUMA_NODES", "none,1000"), ("DEVICES", "2")],
    ] {
        same(settings, |library| {
            let job = TestJob::memory(library, Path::Software);
            let status = job.init(Path::Hardware);
            println!("{SAID}{}", status.0);
            if status != Status::OK {
                return;
            }
            // The socket is each machine's own.
            for numa_id in [-2, -3, 0, 1, 1000] {
                let mut job = TestJob::new(library, Path::Hardware);
                job.compress(&text(1, 4096));
                job.head().numa_id = numa_id;
                run(&format!("node {numa_id}"), &mut job);
                job.finish();
            }
        });
    }
}

/// What software makes of a page is each library's own, what it says beside that is not.
#[test]
fn software_comes_to_the_same_statuses_and_pages() {
    same(&[], |library| {
        let mut job = TestJob::new(library, Path::Software);
        for (name, page) in pages() {
            for room in [page.len() - page.len() / 100, 2 * page.len() + 64] {
                job.compress(&page);
                job.again(room.max(1));
                let status = job.execute();
                println!("{SAID}{name} into {room}: {}", status.0);
                if status != Status::OK {
                    continue;
                }
                let head = job.head();
                println!("{SAID}{:?}", [head.total_in, head.available_in, head.crc]);
                let stream = job.written().to_vec();
                for room in [page.len(), page.len() + 1] {
                    job.decompress(&stream, room);
                    let status = job.execute();
                    let read = job.head().total_in as usize == stream.len();
                    let head = job.head();
                    let fields = [head.available_in, head.available_out, head.total_out, head.crc];
                    println!("{SAID}back: {} {read} {fields:?}", status.0);
                }
            }
        }
        job.finish();
    });
}
