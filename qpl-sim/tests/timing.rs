//! Queues, engines and time.
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
    simulate(&[("LATENCY", "20ms"), ("JITTER", "0")], |library| {
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
fn a_full_queue_is_busy_at_the_job_behind_its_depth() {
    let settings = [("LATENCY", "200ms"), ("DEVICES", "2"), ("QUEUE_DEPTH", "3")];
    simulate(&settings, |library| {
        let jobs = jobs(library, 7);
        let answers: Vec<_> = jobs.iter().map(TestJob::submit).collect();
        assert_eq!(answers[..6], [Status::OK; 6]);
        assert_eq!(answers[6], Status::QUEUES_ARE_BUSY);
        assert_eq!(jobs[6].check(), Status::JOB_NOT_SUBMITTED);
        // Slots are free when jobs are done, though nobody has looked.
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(jobs[6].submit(), Status::OK);
        for job in jobs {
            assert_eq!(job.wait(), Status::OK);
            job.finish();
        }
    });
}

#[test]
fn jobs_end_out_of_order() {
    simulate(&[("LATENCY", "50ms"), ("JITTER", "0.5")], |library| {
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

/// Devices give so many bytes a second, in one of a few runs: a machine that is busy with something
/// else may let the backlog run dry. They never give more.
fn give(library: &Library, rate: f64) {
    let mut jobs = jobs(library, BACKLOG);
    let expected = 1e9 / rate;
    let is_exact = |_| {
        let took = time_of_a_byte(&mut jobs, 1500);
        eprintln!("{took} ns a byte, of {expected}");
        assert!(took > 0.995 * expected);
        took < expected / 0.98
    };
    assert!((0..10).any(is_exact));
    jobs.into_iter().for_each(TestJob::finish);
}

#[test]
fn one_engine_gives_its_throughput() {
    let settings = [("ENGINES", "1"), ("THROUGHPUT", "15M"), ("QUEUE_DEPTH", "200")];
    simulate(&settings, |library| give(library, 15e6));
}

#[test]
fn two_engines_give_twice_as_much() {
    let settings = [("ENGINES", "2"), ("THROUGHPUT", "15M"), ("QUEUE_DEPTH", "200")];
    simulate(&settings, |library| give(library, 30e6));
}

#[test]
fn two_devices_give_twice_as_much() {
    let settings =
        [("DEVICES", "2"), ("ENGINES", "1"), ("THROUGHPUT", "15M"), ("QUEUE_DEPTH", "100")];
    simulate(&settings, |library| give(library, 30e6));
}

#[test]
fn a_page_of_one_byte_is_done_inside_its_submission() {
    simulate(&[("QUEUE_DEPTH", "1")], |library| {
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
        }
        jobs.into_iter().for_each(TestJob::finish);
    });
}
