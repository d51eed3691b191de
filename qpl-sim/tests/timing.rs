//! The devices' time, as the caller of a job sees it.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]
#![allow(dead_code, reason = "each test uses a part of what they share")]

mod support;

use std::time::{Duration, Instant};

use qpl_sys::{Library, Path, Status};
use support::{TestJob, simulate, text};

fn jobs(library: &Library, count: usize) -> Vec<TestJob> {
    let job = |seed| {
        let mut job = TestJob::new(library, Path::Hardware);
        job.compress(&text(seed, 4096));
        job
    };
    (0..count).map(job).collect()
}

#[test]
fn a_job_is_in_flight_for_its_latency_and_no_less() {
    simulate(&[("COMPRESS_LATENCY", "20ms"), ("JITTER", "0")], |library| {
        let job = &jobs(library, 1)[0];
        let began = Instant::now();
        assert_eq!(job.submit(), Status::OK);
        assert_eq!(job.check(), Status::BEING_PROCESSED);
        assert_eq!(job.wait(), Status::OK);
        let took = began.elapsed();
        assert!(took >= Duration::from_millis(20), "{took:?}");
        job.fini();
    });
}

#[test]
fn full_queues_are_busy_until_an_engine_takes_a_job() {
    let settings = [
        ("DEVICES", "2"),
        ("ENGINES", "1"),
        ("QUEUES", "2"),
        ("QUEUE_DEPTHS", "3"),
        // 410 ms for a page.
        ("COMPRESS_THROUGHPUT", "10K"),
        ("JITTER", "0"),
    ];
    simulate(&settings, |library| {
        let jobs = jobs(library, 40);
        let taken = jobs.iter().take_while(|job| job.submit() == Status::OK).count();
        // Two queues with three places each, and what the engines have begun with.
        assert!((12..40).contains(&taken), "{taken}");
        assert_eq!(jobs[taken].check(), Status::JOB_NOT_SUBMITTED);
        assert_eq!([jobs[0].wait(), jobs[1].wait()], [Status::OK; 2]);
        let began = Instant::now();
        while jobs[taken].submit() == Status::QUEUES_ARE_BUSY {
            assert!(began.elapsed() < Duration::from_secs(60), "the queues stay full");
            std::thread::yield_now();
        }
    });
}

#[test]
fn jobs_end_out_of_order() {
    simulate(&[("COMPRESS_LATENCY", "50ms"), ("JITTER", "0.5")], |library| {
        let jobs = jobs(library, 8);
        assert!(jobs.iter().all(|job| job.submit() == Status::OK));
        let mut ended = Vec::new();
        while ended.len() < jobs.len() {
            for (number, job) in jobs.iter().enumerate() {
                if !ended.contains(&number) && job.check() == Status::OK {
                    ended.push(number);
                }
            }
        }
        assert!(!ended.is_sorted(), "{ended:?}");
        jobs.into_iter().for_each(TestJob::finish);
    });
}

const BACKLOG: usize = 200;

/// Nanoseconds a byte of devices that have a backlog.
fn time_of_a_byte(jobs: &mut [TestJob], count: usize) -> f64 {
    let began = Instant::now();
    for number in 0..count {
        let job = &mut jobs[number % BACKLOG];
        if number >= BACKLOG {
            assert_eq!(job.wait(), Status::OK);
        }
        job.again(4095);
        assert_eq!(job.submit(), Status::OK);
    }
    jobs.iter().for_each(|job| assert_eq!(job.wait(), Status::OK));
    began.elapsed().as_nanos() as f64 / (count * 4096) as f64
}

/// In one of a few runs: a machine that is busy with something else may let the backlog run dry.
#[test]
fn two_devices_with_an_engine_each_give_twice_an_engines_throughput_and_never_more() {
    let settings = [
        ("DEVICES", "2"),
        ("ENGINES", "1"),
        ("COMPRESS_THROUGHPUT", "15M"),
        ("QUEUE_DEPTHS", "200"),
    ];
    simulate(&settings, |library| {
        let mut jobs = jobs(library, BACKLOG);
        let expected = 1e9 / 30e6;
        let is_exact = |_| {
            let took = time_of_a_byte(&mut jobs, 1500);
            eprintln!("{took} ns a byte, of {expected}");
            assert!(took > 0.995 * expected);
            took < expected / 0.98
        };
        assert!((0..10).any(is_exact));
        jobs.into_iter().for_each(TestJob::finish);
    });
}

#[test]
fn at_once_a_page_of_one_byte_is_done_inside_its_submission() {
    let settings = [("QPL_SIM_AT_ONCE", "1"), ("NO_COMPLETION", "1"), ("QUEUE_FULL", "1")];
    simulate(&settings, |library| {
        let mut jobs = jobs(library, 3);
        for job in &mut jobs {
            job.compress(&[7; 4096]);
            assert_eq!(job.submit(), Status::OK);
        }
        for job in &mut jobs {
            assert_eq!(job.check(), Status::OK);
            let stream = job.written().to_vec();
            job.decompress(&stream, 4096);
            assert_eq!(job.submit(), Status::OK);
            assert_eq!(job.check(), Status::OK);
            assert!(job.written() == [7; 4096]);
            job.compress(&text(1, 4096));
            assert_eq!(job.submit(), Status::QUEUES_ARE_BUSY, "others are the devices'");
        }
        jobs.into_iter().for_each(TestJob::finish);
    });
}
