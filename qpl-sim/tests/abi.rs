//! Every function, as a caller of libqpl knows it.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]
#![allow(dead_code, reason = "each test uses a part of what they share")]

mod support;

use std::ptr;

use qpl_sys::{Flags, Job, Library, Path, Status, Version};
use support::{TestJob, noise, simulate, text};

#[test]
fn it_is_opened_as_libqpl_with_its_sizes() {
    simulate(&[], |library| {
        assert_eq!(library.version(), Version::new(1, 9, 0));
        assert_eq!(library.job_size(Path::Hardware), Ok(188_736));
        assert_eq!(library.job_size(Path::Software), Ok(740_864));
    });
}

#[test]
fn it_is_opened_as_the_version_that_is_asked_for() {
    simulate(&[("QPL_SIM_VERSION", "1.5.0")], |library| {
        assert_eq!(library.version(), Version::new(1, 5, 0));
    });
}

#[test]
fn a_job_for_another_numa_node_is_refused() {
    simulate(&[("NUMA_NODES", "1")], |library| {
        let mut job = TestJob::new(library, Path::Hardware);
        job.compress(&text(1, 4096));
        job.head().numa_id = 0;
        assert_eq!(job.submit(), Status::INIT_WORK_QUEUES_NOT_AVAILABLE);
        for numa_id in [1, Job::NUMA_ANY] {
            job.compress(&text(1, 4096));
            job.head().numa_id = numa_id;
            assert_eq!((job.submit(), job.wait()), (Status::OK, Status::OK), "{numa_id}");
        }
        job.finish();
    });
}

#[test]
fn pages_come_back_on_both_paths() {
    simulate(&[], |library| {
        for path in [Path::Hardware, Path::Software] {
            for page in [text(1, 4096), vec![0; 4096], text(2, 65536), vec![9; 16384], text(3, 8)] {
                let mut job = TestJob::new(library, path);
                job.compress(&page);
                job.again(page.len() + 64);
                assert_eq!(job.execute(), Status::OK);
                assert_eq!(job.head().total_in as usize, page.len());
                let stream = job.written().to_vec();
                let crc = job.head().crc;
                job.decompress(&stream, page.len());
                assert_eq!(job.submit(), Status::OK);
                assert_eq!(job.wait(), Status::OK);
                assert!(job.written() == page);
                assert_eq!((job.head().total_in as usize, job.head().crc), (stream.len(), crc));
                job.finish();
            }
        }
    });
}

#[test]
fn pointers_and_lengths_move_on_as_libqpl_moves_them() {
    simulate(&[], |library| {
        let mut job = TestJob::new(library, Path::Hardware);
        job.compress(&text(1, 4096));
        assert_eq!(job.submit(), Status::OK);
        assert_eq!((job.head().total_in, job.head().total_out), (0, 0), "not before a check");
        assert_eq!(job.wait(), Status::OK);
        let written = job.head().total_out as usize;
        let ends = (job.input.as_ptr_range().end, job.output[written..].as_ptr());
        let head = job.head();
        assert_eq!((head.next_in_ptr.cast_const(), head.next_out_ptr.cast_const()), ends);
        assert_eq!((head.available_in, head.available_out + head.total_out), (0, 4095));
        let totals = (head.total_in, head.total_out);
        assert_eq!((job.check(), job.wait()), (Status::OK, Status::OK));
        assert_eq!((job.head().total_in, job.head().total_out), totals, "told once");
        job.finish();
    });
}

#[test]
fn a_page_that_does_not_fit_needs_more_output() {
    simulate(&[], |library| {
        for path in [Path::Hardware, Path::Software] {
            let mut job = TestJob::new(library, path);
            job.compress(&noise(4096));
            assert_eq!(job.execute(), Status::MORE_OUTPUT_NEEDED);
            assert_eq!((job.head().total_in, job.head().total_out), (0, 0));
            job.compress(&text(1, 4096));
            assert_eq!(job.execute(), Status::OK, "the job can be used again");
            job.finish();
        }
    });
}

#[test]
fn a_broken_stream_ends_with_the_status_of_an_engine() {
    simulate(&[], |library| {
        let mut job = TestJob::new(library, Path::Hardware);
        job.decompress(&[0b111, 0, 0, 0], 4096);
        assert_eq!(job.execute(), Status::INVALID_BLOCK_TYPE);
        job.decompress(&[0b011], 4096);
        assert_eq!(job.execute(), Status::BAD_EOF);
        job.finish();
    });
}

#[test]
fn a_job_that_was_not_submitted_is_not_waited_for() {
    simulate(&[], |library| {
        let job = TestJob::new(library, Path::Hardware);
        assert_eq!([job.check(), job.wait()], [Status::JOB_NOT_SUBMITTED; 2]);
        job.finish();
        let job = TestJob::new(library, Path::Software);
        assert_eq!([job.check(), job.wait()], [Status::OK; 2], "as libqpl answers");
        job.finish();
    });
}

#[test]
fn what_cannot_be_is_refused_as_by_libqpl() {
    type Change = fn(&mut Job);
    let cases: [(Change, Status); 13] = [
        (|job| job.next_in_ptr = ptr::null_mut(), Status::NULL_PTR),
        (|job| job.next_out_ptr = ptr::null_mut(), Status::NULL_PTR),
        (|job| job.available_in = 0, Status::SIZE),
        (|job| job.available_out = 0, Status::SIZE),
        (|job| job.next_out_ptr = job.next_in_ptr.wrapping_add(100), Status::BUFFER_OVERLAP),
        (|job| job.op = 77, Status::OPERATION),
        (|job| job.level = 0, Status::UNSUPPORTED_COMPRESSION_LEVEL),
        (|job| job.level = 2, Status::UNSUPPORTED_COMPRESSION_LEVEL),
        (|job| job.level = 3, Status::UNSUPPORTED_COMPRESSION_LEVEL),
        (|job| job.flags = Flags::FIRST, Status::NOT_SUPPORTED_MODE),
        (|job| job.flags |= 4, Status::NOT_SUPPORTED_MODE),
        (|job| job.mini_block_size = 1, Status::NOT_SUPPORTED_MODE),
        (|job| job.dictionary = ptr::dangling_mut(), Status::NOT_SUPPORTED_MODE),
    ];
    simulate(&[], move |library| {
        let mut job = TestJob::new(library, Path::Hardware);
        for (at, (change, status)) in cases.iter().enumerate() {
            job.compress(&text(1, 4096));
            change(job.head());
            assert_eq!((job.submit(), job.execute()), (*status, *status), "case {at}");
            assert_eq!(job.check(), Status::JOB_NOT_SUBMITTED);
            job.init(Path::Hardware);
        }
        job.finish();
        let mut job = TestJob::new(library, Path::Software);
        job.compress(&text(1, 4096));
        job.head().level = 3;
        assert_eq!(job.execute(), Status::OK, "software has level 3");
        job.finish();
    });
}

#[test]
fn null_is_refused() {
    simulate(&[], |library| {
        type Function = unsafe fn(&Library, *mut Job) -> Status;
        let functions: [Function; 5] = [
            Library::execute_job,
            Library::submit_job,
            Library::check_job,
            Library::wait_job,
            Library::fini_job,
        ];
        // SAFETY: libqpl answers to null, and so must this.
        let answers = functions.map(|function| unsafe { function(library, ptr::null_mut()) });
        assert_eq!(answers, [Status::NULL_PTR; 5]);
        // SAFETY: as above.
        let answer = unsafe { library.init_job(Path::Hardware, ptr::null_mut()) };
        assert_eq!(answer, Status::NULL_PTR);
    });
}

#[test]
fn without_a_device_hardware_is_refused_and_software_works() {
    simulate(&[("DEVICES", "0")], |library| {
        let job = TestJob::memory(library, Path::Software);
        assert_eq!(job.init(Path::Hardware), Status::INIT_WORK_QUEUES_NOT_AVAILABLE);
        let mut job = TestJob::new(library, Path::Software);
        job.compress(&text(1, 4096));
        assert_eq!(job.execute(), Status::OK);
        job.finish();
    });
}

#[test]
fn a_bad_setting_aborts_with_its_name_and_reason() {
    let output =
        support::process(&[("COMPRESS_LATENCY", "soon"), ("QPL_SIM_BUSY", "1")], |library| {
            assert!(library.job_size(Path::Hardware).is_ok());
        });
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&output.status), Some(6), "{said}");
    assert!(said.contains("IAA_SIM_COMPRESS_LATENCY=soon: not a time"), "{said}");
    assert!(
        said.contains("QPL_SIM_BUSY=1: it is the device's now: set IAA_SIM_QUEUE_FULL"),
        "{said}"
    );
}

#[test]
fn the_library_is_found_beside_the_test() {
    let file = qpl_sim::library_file().unwrap();
    assert!(file.ends_with("deps/libqpl_sim.so") && file.is_file(), "{}", file.display());
}
