//! Faults: at their rates, the same each time, and with what each does to a job.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]
#![allow(dead_code, reason = "each test uses a part of what they share")]

mod support;

use qpl_sys::{Library, Path, Status};
use support::{TestJob, simulate, text};

const JOBS: usize = 400;

/// What becomes of [`JOBS`] pages that are compressed and decompressed, one job each.
fn outcomes(library: &Library) -> Vec<(Status, bool)> {
    let mut ends = Vec::new();
    let page = text(5, 4096);
    let mut software = TestJob::new(library, Path::Software);
    software.compress(&page);
    assert_eq!(software.execute(), Status::OK);
    let stream = software.written().to_vec();
    software.finish();
    for number in 0..JOBS {
        let mut job = TestJob::new(library, Path::Hardware);
        if number % 2 == 0 {
            job.compress(&page);
        } else {
            job.decompress(&stream, 4096);
        }
        let status = job.execute();
        let total = job.head().total_out as usize;
        let right = if number % 2 == 0 { stream.len() } else { 4096 };
        ends.push((status, total == right));
        job.finish();
    }
    ends
}

/// The numbers of those jobs that met a fault.
fn faulted(library: &Library) -> Vec<usize> {
    let ends = outcomes(library).into_iter().enumerate();
    ends.filter(|&(_, end)| end != (Status::OK, true)).map(|(number, _)| number).collect()
}

fn ends_as<F: Fn(&Library)>(setting: &str, rate: &str, body: F) -> String {
    simulate(&[(setting, rate), ("SEED", "42")], body)
}

macro_rules! fault {
    ($name:ident, $setting:literal, $always:expr) => {
        mod $name {
            use super::*;

            #[test]
            fn never_happens_at_rate_0() {
                ends_as($setting, "0", |library| assert_eq!(faulted(library), []));
            }

            #[test]
            fn always_happens_at_rate_1() {
                ends_as($setting, "1", |library| {
                    let always: fn(usize, Status, bool) -> bool = $always;
                    for (number, (status, is_right)) in outcomes(library).into_iter().enumerate() {
                        assert!(always(number, status, is_right), "{number}: {status} {is_right}");
                    }
                });
            }

            #[test]
            fn happens_to_the_same_three_in_ten_each_time() {
                let run =
                    || ends_as($setting, "0.3", |library| println!("met: {:?}", faulted(library)));
                let met = |printed: String| {
                    let line = printed
                        .lines()
                        .find_map(|line| Some(line.split_once("met: [")?.1.to_owned()));
                    line.unwrap()
                };
                let first = met(run());
                assert_eq!(first, met(run()));
                let count = first.split(", ").count();
                let jobs = if $setting.ends_with("COMPRESS_ERROR") { JOBS / 2 } else { JOBS };
                assert!((jobs / 5..jobs * 2 / 5).contains(&count), "{count} of {jobs}");
            }
        }
    };
}

fault!(busy, "BUSY", |_, status, _| status == Status::QUEUES_ARE_BUSY);
fault!(page_fault, "PAGE_FAULT", |_, status, _| {
    [Status::PAGE_FAULT, Status::WRITE_PAGE_FAULT].contains(&status)
});
fault!(compress_error, "COMPRESS_ERROR", |number, status, _| {
    if number % 2 == 0 { (200..300).contains(&status.0) } else { status == Status::OK }
});
fault!(decompress_error, "DECOMPRESS_ERROR", |number, status, _| {
    if number % 2 == 1 { (200..300).contains(&status.0) } else { status == Status::OK }
});
fault!(wrong_total_out, "WRONG_TOTAL_OUT", |_, status, is_right| status == Status::OK && !is_right);

#[test]
fn a_wrong_total_of_compression_is_never_in_the_range_of_true_ones() {
    ends_as("WRONG_TOTAL_OUT", "1", |library| {
        for seed in 0..100 {
            let mut job = TestJob::new(library, Path::Hardware);
            job.compress(&text(seed, 4096));
            assert_eq!(job.execute(), Status::OK);
            let total = job.head().total_out;
            assert!(total == 0 || total > 4095, "{total}");
            job.finish();
        }
    });
}

#[test]
fn both_page_faults_happen_and_the_job_works_again_once_it_is_initialised() {
    ends_as("PAGE_FAULT", "0.5", |library| {
        let mut met = Vec::new();
        let mut job = TestJob::new(library, Path::Hardware);
        for _ in 0..100 {
            job.compress(&text(1, 4096));
            let status = job.execute();
            if status != Status::OK {
                met.push(status);
                assert_eq!((job.fini(), job.init(Path::Hardware)), (Status::OK, Status::OK));
            }
        }
        job.finish();
        assert!(met.contains(&Status::PAGE_FAULT) && met.contains(&Status::WRITE_PAGE_FAULT));
    });
}

#[test]
fn initialisation_fails_at_its_rate_and_for_hardware_alone() {
    ends_as("INIT", "0.3", |library| {
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
fn a_job_that_hangs_is_processed_for_ever() {
    simulate(&[("HANG", "1"), ("LATENCY", "1us")], |library| {
        let mut job = TestJob::new(library, Path::Hardware);
        job.compress(&text(1, 4096));
        assert_eq!(job.submit(), Status::OK);
        for _ in 0..50 {
            std::thread::sleep(std::time::Duration::from_millis(1));
            assert_eq!(job.check(), Status::BEING_PROCESSED);
        }
        let address = job.job.addr();
        let library = library.clone();
        let waiting = std::thread::spawn(move || {
            let job = std::ptr::with_exposed_provenance_mut(address);
            // SAFETY: the job is in flight, and nothing else uses it any more.
            unsafe { library.wait_job(job) }
        });
        std::thread::sleep(std::time::Duration::from_millis(100));
        assert!(!waiting.is_finished());
        // Never finished: a process may end with a job in flight.
        std::mem::forget(job);
    });
}

#[test]
fn some_jobs_hang_and_the_others_end() {
    let settings = [("HANG", "0.3"), ("ENGINES", "1"), ("QUEUE_DEPTH", "500")];
    simulate(&settings, |library| {
        let submitted = |seed| {
            let mut job = TestJob::new(library, Path::Hardware);
            job.compress(&text(seed, 4096));
            assert_eq!(job.submit(), Status::OK);
            job
        };
        let jobs: Vec<_> = (0..JOBS).map(submitted).collect();
        // One engine takes them in order: when one of these has ended, so have the others.
        let last: Vec<_> = (0..50).map(submitted).collect();
        while last.iter().all(|job| job.check() == Status::BEING_PROCESSED) {
            std::thread::yield_now();
        }
        let hung = jobs.iter().filter(|job| job.check() == Status::BEING_PROCESSED).count();
        assert!((JOBS / 5..JOBS * 2 / 5).contains(&hung), "{hung} of {JOBS}");
        std::thread::sleep(std::time::Duration::from_millis(500));
        for job in jobs.into_iter().chain(last) {
            match job.check() {
                Status::BEING_PROCESSED => std::mem::forget(job),
                _ => job.finish(),
            }
        }
    });
}

#[test]
fn a_lost_device_takes_its_jobs_with_it_and_no_more() {
    let settings = [("DEVICE_LOST_AFTER", "3"), ("LATENCY", "300ms"), ("QUEUE_DEPTH", "4")];
    simulate(&settings, |library| {
        let jobs: Vec<_> = (0..5)
            .map(|seed| {
                let mut job = TestJob::new(library, Path::Hardware);
                job.compress(&text(seed, 4096));
                job
            })
            .collect();
        let answers: Vec<_> = jobs.iter().map(TestJob::submit).collect();
        assert_eq!(answers[..3], [Status::OK; 3]);
        for &status in &answers[3..] {
            assert!(status == Status::NOT_SUPPORTED_BY_WQ || status.0 == 503, "{status}");
        }
        assert_eq!(jobs[0].wait(), Status::LIBRARY_INTERNAL);
        assert_eq!(jobs[1].wait(), Status::LIBRARY_INTERNAL);
        assert_eq!(jobs[2].wait(), Status::LIBRARY_INTERNAL);
        let job = TestJob::memory(library, Path::Software);
        assert_eq!(job.init(Path::Hardware), Status::INIT_WORK_QUEUES_NOT_AVAILABLE);
        jobs.into_iter().for_each(TestJob::finish);
        assert_eq!(job.init(Path::Software), Status::OK);
    });
}
