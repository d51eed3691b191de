//! The real libqpl on the simulation, where `scripts/qpl-library` gives it.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]
#![allow(dead_code, reason = "each test uses a part of what they share")]
#![cfg(all(feature = "libaccel-config", target_arch = "x86_64"))]

mod child;

use std::alloc::{Layout, alloc_zeroed};
use std::io::Write;

use child::{load, simulate};
use qpl_sys::{Flags, Job, Library, Operation, Path, Status};

/// Both faces, or none where libqpl is not here.
fn faces() -> impl Iterator<Item = &'static str> {
    let here = match (Library::open(), Library::named()) {
        (Err(error), None) => {
            // Not by eprintln, which is captured: it is to be seen.
            _ = writeln!(std::io::stderr(), "skipped: {error}");
            false
        }
        _ => true,
    };
    ["write", "mapped"].into_iter().filter(move |_| here)
}

/// Settings for a face, with the counters as the last lines that are said.
fn with<'a>(face: &'a str, settings: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    [&[("FACE", face), ("COUNTERS_AT_EXIT", "1")], settings].concat()
}

/// A job of libqpl's for hardware, on buffers of its own.
struct TestJob {
    library: Library,
    job: *mut Job,
    input: Vec<u8>,
    output: Vec<u8>,
}

impl TestJob {
    /// libqpl with the simulation behind it, and what it says to a job for hardware.
    fn init() -> (Self, Status) {
        // By its name, libqpl finds what is loaded already.
        load();
        let library = Library::open().unwrap();
        let layout = Layout::from_size_align(library.job_size(Path::Hardware).unwrap(), Job::ALIGN);
        // SAFETY: the size is not 0. The memory is never given back.
        let job: *mut Job = unsafe { alloc_zeroed(layout.unwrap()) }.cast();
        // SAFETY: the memory is zeros, and as large as libqpl wants it.
        let status = unsafe { library.init_job(Path::Hardware, job) };
        (Self { library, job, input: vec![0x5a; 4096], output: vec![0; 4096] }, status)
    }

    fn new() -> Self {
        let (job, status) = Self::init();
        assert_eq!(status, Status::OK);
        job
    }

    fn submit(&mut self, operation: Operation, numa_id: i32) -> Status {
        // SAFETY: the job is not in flight.
        let job = unsafe { &mut *self.job };
        job.op = operation as u32;
        job.level = Job::LEVEL_1;
        job.flags = Flags::FIRST | Flags::LAST | Flags::OMIT_VERIFY;
        job.numa_id = numa_id;
        (job.next_in_ptr, job.available_in) = (self.input.as_mut_ptr(), self.input.len() as u32);
        (job.next_out_ptr, job.available_out) =
            (self.output.as_mut_ptr(), self.output.len() as u32);
        // SAFETY: job and buffers live on.
        unsafe { self.library.submit_job(self.job) }
    }

    fn wait(&self) -> Status {
        // SAFETY: it was submitted.
        unsafe { self.library.wait_job(self.job) }
    }

    /// What comes out of a job for `input`, tried until the queues have room.
    fn through(&mut self, operation: Operation, input: Vec<u8>) -> Vec<u8> {
        self.input = input;
        let began = std::time::Instant::now();
        loop {
            let submitted = self.submit(operation, Job::NUMA_ANY);
            let status = if submitted == Status::OK { self.wait() } else { submitted };
            if status != Status::QUEUES_ARE_BUSY {
                assert_eq!(status, Status::OK, "{operation:?}");
                // SAFETY: the job is not in flight.
                return self.output[..unsafe { (*self.job).total_out } as usize].to_vec();
            }
            assert!(began.elapsed().as_secs() < 60, "the queues are still busy");
        }
    }

    fn decompress(&mut self) -> Status {
        assert_eq!(self.submit(Operation::Decompress, Job::NUMA_ANY), Status::OK);
        self.wait()
    }
}

fn assert_counted(said: &str, counts: &[&str]) {
    for count in counts {
        assert!(said.contains(&format!("\niaa-sim: {count}\n")), "no {count} in\n{said}");
    }
}

#[test]
fn a_job_gets_the_data_error_that_its_descriptor_met() {
    for face in faces() {
        let settings = with(face, &[("ERROR", "1"), ("ERROR_STATUS", "0x0a:17")]);
        let said = simulate(&settings, || {
            let mut job = TestJob::new();
            for _ in 0..1000 {
                assert_eq!(job.decompress(), Status::BAD_DIST);
            }
        });
        assert_counted(&said, &["accepted = 1000", "faults_error = 1000", "completed = 1000"]);
    }
}

#[test]
fn after_a_page_fault_libqpl_submits_once_more() {
    for face in faces() {
        // The second one has another error, which so is the job's.
        let settings =
            with(face, &[("PAGE_FAULT", "1"), ("ERROR", "1"), ("ERROR_STATUS", "0x0a:14")]);
        let said = simulate(&settings, || {
            assert_eq!(TestJob::new().decompress(), Status::INVALID_STORED_LEN);
        });
        assert_counted(&said, &["accepted = 2", "faults_page = 1", "faults_error = 1"]);
    }
}

#[test]
fn a_second_page_fault_is_the_jobs_status() {
    for face in faces() {
        for (place, status) in [("source", 303), ("destination", 431)] {
            let faults = [("PAGE_FAULT", "1"), ("PAGE_FAULT_AGAIN", "1"), ("PAGE_FAULT_ON", place)];
            let settings = [&faults[..], &[("SEED", if status == 303 { "303" } else { "431" })]];
            let said = simulate(&with(face, &settings.concat()), || {
                let status: u32 = std::env::var("IAA_SIM_SEED").unwrap().parse().unwrap();
                assert_eq!(TestJob::new().decompress(), Status(status));
            });
            assert_counted(&said, &["accepted = 2", "faults_page = 2"]);
        }
    }
}

#[test]
fn with_full_queues_libqpl_begins_and_each_job_is_busy() {
    for _ in faces().filter(|face| *face == "mapped") {
        let said = simulate(&with("mapped", &[("QUEUE_FULL", "1"), ("DEVICES", "2")]), || {
            let mut job = TestJob::new();
            for _ in 0..100 {
                assert_eq!(
                    job.submit(Operation::Decompress, Job::NUMA_ANY),
                    Status::QUEUES_ARE_BUSY
                );
            }
        });
        assert!(said.contains("accepted = 0"), "{said}");
    }
}

#[test]
fn a_queue_is_busy_from_its_depth_on() {
    const STALLED: [(&str, &str); 4] =
        [("ENGINES", "1"), ("QUEUE_DEPTHS", "4"), ("JITTER", "0"), ("DECOMPRESS_THROUGHPUT", "1K")];
    for face in faces() {
        let said = simulate(&with(face, &STALLED), || {
            // The engine has one for 4 seconds.
            let submit = || TestJob::new().submit(Operation::Decompress, Job::NUMA_ANY);
            let accepted = (0..1000).take_while(|_| submit() == Status::OK).count();
            assert!((4..1000).contains(&accepted), "{accepted}");
        });
        // A write that was refused is the kernel's business.
        let refused = if face == "mapped" { "refused_full = 1" } else { "refused_full = 0" };
        assert_counted(&said, &[refused]);
    }
}

#[test]
fn a_disabled_queue_is_busy_for_ever() {
    for face in faces() {
        simulate(&with(face, &[("QUEUE_DISABLED_AT", "1"), ("ERROR", "1")]), || {
            let mut job = TestJob::new();
            assert_ne!(job.decompress(), Status::OK);
            // With the face `write`, the one that closes it is done.
            if std::env::var("IAA_SIM_FACE").unwrap() == "write" {
                assert_ne!(job.decompress(), Status::OK);
            }
            for _ in 0..100 {
                assert_eq!(
                    job.submit(Operation::Decompress, Job::NUMA_ANY),
                    Status::QUEUES_ARE_BUSY
                );
            }
        });
    }
}

#[test]
fn without_devices_and_with_a_bad_configuration_libqpl_says_so() {
    for face in faces() {
        for setting in [("DEVICES", "0"), ("QUEUES", "0"), ("SPEED", "1")] {
            simulate(&with(face, &[setting]), || {
                assert_eq!(TestJob::init().1, Status::INIT_WORK_QUEUES_NOT_AVAILABLE);
            });
        }
    }
}

#[test]
fn a_job_for_another_numa_node_finds_no_device() {
    for face in faces() {
        let settings = [("DEVICES", "2"), ("NUMA_NODES", "4,5"), ("ERROR", "1")];
        let said = simulate(&with(face, &settings), || {
            let mut job = TestJob::new();
            for node in [4, 5] {
                assert_eq!(job.submit(Operation::Decompress, node), Status::OK);
                assert!(job.wait() != Status::OK);
            }
            assert_eq!(
                job.submit(Operation::Decompress, 6),
                Status::INIT_WORK_QUEUES_NOT_AVAILABLE
            );
        });
        assert_eq!(said.matches("iaa-sim: accepted = 1\n").count(), 2, "{said}");
    }
}

/// A page that shrinks, another one for each number.
fn page(number: usize) -> Vec<u8> {
    let words = b"the quick brown fox jumps over the lazy dog and back again";
    (0..4096).map(|at| words[(at * (1 + at / 300) + number) % words.len()]).collect()
}

#[test]
fn pages_come_back_whole_from_several_threads_with_full_queues_and_page_faults() {
    const THREADS: usize = 4;
    const PAGES: usize = 100;
    for face in faces() {
        let settings = [
            ("DEVICES", "2"),
            ("QUEUE_DEPTHS", "2"),
            ("COMPRESS_LATENCY", "20us"),
            ("QUEUE_FULL", "0.05"),
            ("PAGE_FAULT", "0.2"),
        ];
        let said = simulate(&with(face, &settings), || {
            std::thread::scope(|scope| {
                for thread in 0..THREADS {
                    scope.spawn(move || {
                        for number in 0..PAGES {
                            // libqpl submits once more after the first page fault of a job alone.
                            let [mut job, mut other] = [TestJob::new(), TestJob::new()];
                            let page = page(thread * PAGES + number);
                            let stream = job.through(Operation::Compress, page.clone());
                            assert!(stream.len() < 4096);
                            assert_eq!(other.through(Operation::Decompress, stream), page);
                        }
                    });
                }
            });
        });
        assert!(!said.contains("iaa-sim: faults_page = 0\n"), "{said}");
    }
}
