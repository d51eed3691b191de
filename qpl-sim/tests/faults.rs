//! What a job comes to whose device fails. How often devices do, and which faults there are, is tested with them.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]
#![allow(dead_code, reason = "each test uses a part of what they share")]

mod support;

use std::time::{Duration, Instant};

use qpl_sys::{Library, Path, Status};
use support::{TestJob, noise, simulate, text};

const JOBS: usize = 400;

fn compression(library: &Library, seed: usize) -> TestJob {
    let mut job = TestJob::new(library, Path::Hardware);
    job.compress(&text(seed, 4096));
    job
}

fn decompression(library: &Library) -> TestJob {
    let mut job = TestJob::new(library, Path::Software);
    job.compress(&text(1, 4096));
    assert_eq!(job.execute(), Status::OK);
    let stream = job.written().to_vec();
    job.finish();
    let mut job = TestJob::new(library, Path::Hardware);
    job.decompress(&stream, 4096);
    job
}

/// Checks until the job has ended.
fn checked(job: &TestJob) -> Status {
    let began = Instant::now();
    loop {
        match job.check() {
            Status::BEING_PROCESSED => {
                assert!(began.elapsed() < Duration::from_secs(60), "the job does not end");
                std::thread::yield_now();
            }
            status => return status,
        }
    }
}

#[test]
fn memory_that_is_missing_once_is_touched_and_the_job_goes_on() {
    for place in ["source", "destination", "aecs"] {
        simulate(&[("PAGE_FAULT", "1"), ("PAGE_FAULT_ON", place)], |library| {
            for mut job in [compression(library, 1), decompression(library)] {
                assert_eq!(job.submit(), Status::OK);
                assert_eq!(checked(&job), Status::OK);
                let total = job.head().total_out;
                assert!(total == 4096 || (1..4000).contains(&total), "{total}");
                job.finish();
            }
        });
    }
}

#[test]
fn a_second_page_fault_is_the_jobs_status() {
    for (place, status) in [("source", "303"), ("destination", "431")] {
        let settings = [
            ("PAGE_FAULT", "1"),
            ("PAGE_FAULT_AGAIN", "1"),
            ("PAGE_FAULT_ON", place),
            // To tell the child which.
            ("SEED", status),
        ];
        simulate(&settings, |library| {
            let status = std::env::var("IAA_SIM_SEED").unwrap().parse().unwrap();
            for mut job in [compression(library, 1), decompression(library)] {
                assert_eq!(job.submit(), Status::OK);
                assert_eq!(checked(&job), Status(status));
                assert_eq!((job.head().total_in, job.head().total_out), (0, 0));
                assert_eq!((job.fini(), job.init(Path::Hardware)), (Status::OK, Status::OK));
                job.finish();
            }
        });
    }
}

/// As libqpl has it, until the job is initialised anew.
#[test]
fn the_second_page_fault_may_be_that_of_another_page() {
    simulate(&[("PAGE_FAULT", "1")], |library| {
        let mut job = compression(library, 1);
        assert_eq!(job.execute(), Status::OK);
        job.compress(&text(2, 4096));
        assert!([Status::PAGE_FAULT, Status::WRITE_PAGE_FAULT].contains(&job.execute()));
        assert_eq!((job.fini(), job.init(Path::Hardware)), (Status::OK, Status::OK));
        job.compress(&text(3, 4096));
        assert_eq!(job.execute(), Status::OK);
        job.finish();
    });
}

#[test]
fn a_check_after_a_page_fault_is_busy_where_the_queues_are_full_and_so_is_the_next() {
    // The descriptor that is submitted again is the first that is refused.
    simulate(&[("PAGE_FAULT", "1"), ("QUEUE_DISABLED_AT", "1")], |library| {
        let mut job = compression(library, 1);
        assert_eq!(job.submit(), Status::OK);
        for _ in 0..3 {
            assert_eq!(checked(&job), Status::QUEUES_ARE_BUSY);
            assert_eq!((job.head().total_in, job.head().total_out), (0, 0));
        }
        assert_eq!(job.wait(), Status::QUEUES_ARE_BUSY);
        assert_eq!(job.submit(), Status::QUEUES_ARE_BUSY, "it is not in flight");
        assert_eq!((job.fini(), job.init(Path::Hardware)), (Status::OK, Status::OK));
        job.finish();
    });
}

#[test]
fn a_check_after_a_page_fault_goes_on_once_the_queue_has_room() {
    let settings = [("PAGE_FAULT", "1"), ("QUEUE_FULL", "0.7"), ("SEED", "3")];
    simulate(&settings, |library| {
        let mut met_busy = 0;
        for seed in 0..50 {
            let mut job = compression(library, seed);
            while job.submit() == Status::QUEUES_ARE_BUSY {}
            let status = loop {
                match checked(&job) {
                    Status::QUEUES_ARE_BUSY => met_busy += 1,
                    status => break status,
                }
            };
            assert_eq!(status, Status::OK);
            assert!((1..4000).contains(&job.head().total_out));
            job.finish();
        }
        assert!(met_busy > 10, "{met_busy}");
    });
}

#[test]
fn a_page_that_does_not_shrink_is_stored_where_there_is_room() {
    simulate(&[], |library| {
        for bytes in [1, 4096, 65_535, 65_536, 200_000] {
            let page = noise(bytes);
            let stored = bytes + 5 * bytes.div_ceil(65_535);
            let mut job = TestJob::new(library, Path::Hardware);
            for (room, status) in [(stored, Status::OK), (stored - 1, Status::MORE_OUTPUT_NEEDED)] {
                // A byte with its code is shorter than one that is stored.
                if bytes == 1 {
                    continue;
                }
                job.compress(&page);
                job.again(room);
                assert_eq!(job.execute(), status, "{bytes} bytes with room for {room}");
                let totals = (job.head().total_in as usize, job.head().total_out as usize);
                let right = if status == Status::OK { (bytes, stored) } else { (0, 0) };
                assert_eq!(totals, right, "{bytes} bytes with room for {room}");
                if status == Status::OK {
                    let stream = job.written().to_vec();
                    let crc = job.head().crc;
                    job.decompress(&stream, bytes);
                    assert_eq!(job.execute(), Status::OK);
                    assert!(job.written() == page);
                    assert_eq!(job.head().crc, crc);
                }
            }
            job.finish();
        }
    });
}

#[test]
fn an_output_that_a_device_says_is_too_small_is_stored_even_if_it_is_not() {
    simulate(&[("ERROR", "1"), ("ERROR_STATUS", "0x0a:25")], |library| {
        let mut job = compression(library, 1);
        assert_eq!(job.execute(), Status::MORE_OUTPUT_NEEDED);
        job.again(5000);
        assert_eq!((job.execute(), job.head().total_out), (Status::OK, 4101));
        job.finish();
    });
}

#[test]
fn on_hardware_a_stream_is_used_up_with_all_that_follows_it() {
    simulate(&[], |library| {
        for path in [Path::Hardware, Path::Software] {
            let mut job = TestJob::new(library, path);
            job.compress(&text(1, 4096));
            assert_eq!(job.execute(), Status::OK);
            let mut stream = job.written().to_vec();
            let bytes = stream.len();
            stream.extend([0xff; 100]);
            job.decompress(&stream, 4096);
            assert_eq!(job.execute(), Status::OK);
            let used = if path == Path::Hardware { bytes + 100 } else { bytes };
            assert_eq!((job.head().total_in as usize, job.head().total_out), (used, 4096));
            job.finish();
        }
    });
}

#[test]
fn a_page_that_is_larger_than_the_room_is_written_as_far_as_that() {
    simulate(&[], |library| {
        let mut job = decompression(library);
        let page = text(1, 4096);
        job.again(4000);
        assert_eq!(job.execute(), Status::MORE_OUTPUT_NEEDED);
        assert_eq!(job.head().total_out, 4000);
        assert!((1..=job.input.len() as u32).contains(&job.head().total_in));
        assert!(job.output == page[..4000]);
        job.again(0);
        assert_eq!(job.execute(), Status::DST_IS_SHORT);
        job.finish();
    });
}

#[test]
fn what_was_compressed_is_verified_by_a_descriptor_of_its_own() {
    // The first descriptor is the compression's, the second its verification's.
    simulate(
        &[("ERROR", "1"), ("ERROR_ON", "decompress"), ("ERROR_STATUS", "0x0a:17")],
        |library| {
            let mut job = compression(library, 1);
            assert_eq!(job.execute(), Status::OK);
            job.compress(&text(1, 4096));
            job.head().flags &= !qpl_sys::Flags::OMIT_VERIFY;
            assert_eq!((job.submit(), job.wait()), (Status::OK, Status::BAD_DIST));
            job.finish();
        },
    );
}

#[test]
fn what_verifies_is_what_would_be_without() {
    simulate(&[], |library| {
        let mut job = compression(library, 1);
        for page in [text(1, 4096), noise(4096)] {
            job.compress(&page);
            job.again(5000);
            job.head().flags &= !qpl_sys::Flags::OMIT_VERIFY;
            assert_eq!((job.submit(), job.wait()), (Status::OK, Status::OK));
        }
        job.finish();
    });
}

#[test]
fn an_error_is_that_of_its_operation() {
    for (on, [compress, decompress]) in [("compress", [230, 0]), ("decompress", [0, 217])] {
        let status = if on == "compress" { "0x0a:30" } else { "0x0a:17" };
        let settings = [("ERROR", "1"), ("ERROR_ON", on), ("ERROR_STATUS", status)];
        let printed = simulate(&settings, |library| {
            let statuses =
                [compression(library, 1), decompression(library)].map(|job| job.execute().0);
            println!("statuses: {statuses:?}");
        });
        assert!(printed.contains(&format!("statuses: [{compress}, {decompress}]")), "{printed}");
    }
}

#[test]
fn a_refused_descriptor_has_a_status_from_300_on() {
    simulate(&[("ERROR", "1"), ("ERROR_STATUS", "0x13")], |library| {
        assert_eq!(compression(library, 1).execute(), Status::TRANSFER_SIZE_INVALID);
    });
}

#[test]
fn a_wrong_total_of_compression_is_never_in_the_range_of_true_ones() {
    simulate(&[("WRONG_OUTPUT_SIZE", "1")], |library| {
        for seed in 0..100 {
            let mut job = compression(library, seed);
            assert_eq!(job.execute(), Status::OK);
            let total = job.head().total_out;
            assert!(total == 0 || total > 4095, "{total}");
            job.finish();
        }
    });
}

#[test]
fn full_queues_are_busy() {
    simulate(&[("QUEUE_FULL", "1"), ("DEVICES", "2")], |library| {
        let job = compression(library, 1);
        for _ in 0..10 {
            assert_eq!(job.submit(), Status::QUEUES_ARE_BUSY);
        }
        job.finish();
    });
}

#[test]
fn initialisation_fails_at_its_rate_and_for_hardware_alone() {
    simulate(&[("QPL_SIM_INIT", "0.3")], |library| {
        let job = TestJob::memory(library, Path::Software);
        let fails = |_: &usize| {
            let status = job.init(Path::Hardware);
            assert!(status == Status::OK || (501..=503).contains(&status.0), "{status}");
            status != Status::OK
        };
        let failed = (0..JOBS).filter(fails).count();
        assert!((JOBS / 5..JOBS * 2 / 5).contains(&failed), "{failed} of {JOBS}");
        assert!((0..JOBS).all(|_| job.init(Path::Software) == Status::OK));
    });
}

#[test]
fn a_library_that_refuses_goes_on_with_what_it_has_taken() {
    simulate(&[("QPL_SIM_REFUSE_AFTER", "3"), ("COMPRESS_LATENCY", "20ms")], |library| {
        let jobs: Vec<_> = (0..5).map(|seed| compression(library, seed)).collect();
        let answers: Vec<_> = jobs.iter().map(|job| job.submit().0).collect();
        assert_eq!(answers, [0, 0, 0, 503, 8]);
        assert!(jobs[..3].iter().all(|job| job.wait() == Status::OK));
        let job = TestJob::memory(library, Path::Software);
        assert_eq!(job.init(Path::Hardware), Status::INIT_WORK_QUEUES_NOT_AVAILABLE);
        assert_eq!(job.init(Path::Software), Status::OK);
        jobs.into_iter().for_each(TestJob::finish);
    });
}

#[test]
fn a_job_without_a_completion_is_processed_for_ever() {
    simulate(&[("NO_COMPLETION", "1"), ("COMPRESS_LATENCY", "1us")], |library| {
        let job = compression(library, 1);
        assert_eq!(job.submit(), Status::OK);
        for _ in 0..50 {
            std::thread::sleep(Duration::from_millis(1));
            assert_eq!(job.check(), Status::BEING_PROCESSED);
        }
        let address = job.job.addr();
        let library = library.clone();
        let waiting = std::thread::spawn(move || {
            let job = std::ptr::with_exposed_provenance_mut(address);
            // SAFETY: the job is in flight, and nothing else uses it any more.
            unsafe { library.wait_job(job) }
        });
        std::thread::sleep(Duration::from_millis(100));
        assert!(!waiting.is_finished());
        // Never finished: a process may end with a job in flight.
        std::mem::forget(job);
    });
}

#[test]
fn a_device_that_is_reset_takes_its_jobs_with_it_and_is_busy_for_ever() {
    simulate(&[("RESET_AT", "3"), ("COMPRESS_LATENCY", "300ms")], |library| {
        let jobs: Vec<_> = (0..5).map(|seed| compression(library, seed)).collect();
        let answers: Vec<_> = jobs.iter().map(|job| job.submit().0).collect();
        assert_eq!(answers, [0, 0, 0, 5, 5]);
        std::thread::sleep(Duration::from_millis(500));
        assert!(jobs[..3].iter().all(|job| job.check() == Status::BEING_PROCESSED));
        assert_eq!(jobs[3].init(Path::Hardware), Status::OK);
        std::mem::forget(jobs);
    });
}
