//! Each mistake of a caller ends the process with words that name it.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]
#![allow(dead_code, reason = "each test uses a part of what they share")]

mod support;

use std::os::unix::process::ExitStatusExt;

use qpl_sys::{Job, Library, Path, Status};
use support::{TestJob, process, text};

/// A device on which a job is in flight for long.
const SLOW: &[(&str, &str)] = &[("COMPRESS_LATENCY", "500ms")];

/// Each job ends by a page fault.
const FAULTS: &[(&str, &str)] = &[("PAGE_FAULT", "1"), ("PAGE_FAULT_AGAIN", "1")];

fn aborts<F: Fn(&Library)>(settings: &[(&str, &str)], words: &[&str], body: F) {
    let output = process(settings, body);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.signal(), Some(6), "{}: {said}", output.status);
    let line = said.lines().find(|line| line.starts_with("qpl-sim: ")).unwrap_or_default();
    assert!(words.iter().all(|&word| line.contains(word)), "{said}");
}

fn in_flight(library: &Library) -> TestJob {
    let mut job = TestJob::new(library, Path::Hardware);
    job.compress(&text(1, 4096));
    assert_eq!(job.submit(), Status::OK);
    job
}

#[test]
fn a_job_that_is_finished_in_flight() {
    aborts(SLOW, &["qpl_fini_job: job 0x", "in flight"], |library| {
        in_flight(library).fini();
    });
}

#[test]
fn a_job_that_is_finished_when_its_caller_was_not_told_of_its_end() {
    aborts(&[], &["qpl_fini_job: job 0x", "neither qpl_check_job nor"], |library| {
        let job = in_flight(library);
        std::thread::sleep(std::time::Duration::from_millis(50));
        job.fini();
    });
}

#[test]
fn a_job_that_is_submitted_in_flight() {
    aborts(SLOW, &["qpl_submit_job: job 0x", "in flight"], |library| {
        in_flight(library).submit();
    });
}

#[test]
fn a_job_that_is_executed_in_flight() {
    aborts(SLOW, &["qpl_execute_job: job 0x", "in flight"], |library| {
        in_flight(library).execute();
    });
}

#[test]
fn a_job_that_is_initialised_in_flight() {
    aborts(SLOW, &["qpl_init_job: job 0x", "in flight"], |library| {
        in_flight(library).init(Path::Hardware);
    });
}

#[test]
fn a_job_that_is_moved() {
    aborts(
        SLOW,
        &["qpl_check_job: job 0x", "it was moved: qpl_init_job initialised it at 0x"],
        |library| {
            let (job, other) = (in_flight(library), TestJob::memory(library, Path::Software));
            // SAFETY: both are memory of a job.
            unsafe { other.job.copy_from_nonoverlapping(job.job, 1) };
            other.check();
        },
    );
}

#[test]
fn a_job_that_was_never_initialised() {
    aborts(&[], &["qpl_submit_job: job 0x", "never initialised"], |library| {
        let mut job = TestJob::memory(library, Path::Software);
        job.compress(&text(1, 4096));
        job.submit();
    });
}

#[test]
fn a_job_whose_initialisation_failed() {
    aborts(&[("QPL_SIM_INIT", "1")], &["qpl_fini_job: job 0x", "or that failed"], |library| {
        let job = TestJob::memory(library, Path::Software);
        assert!((501..=503).contains(&job.init(Path::Hardware).0));
        job.fini();
    });
}

#[test]
fn a_job_that_was_finished() {
    aborts(&[], &["qpl_check_job: job 0x", "it was finished"], |library| {
        let job = TestJob::new(library, Path::Hardware);
        job.fini();
        job.check();
    });
}

#[test]
fn a_job_that_is_not_aligned() {
    aborts(&[], &["qpl_init_job: job 0x", "not a multiple of 8"], |library| {
        let job = TestJob::memory(library, Path::Software);
        let misaligned = job.job.cast::<u8>().wrapping_add(4).cast::<Job>();
        // SAFETY: the memory is there; that it is not aligned is seen before it is used.
        unsafe { library.init_job(Path::Hardware, misaligned) };
    });
}

#[test]
fn a_field_that_is_changed_in_flight() {
    aborts(SLOW, &["qpl_check_job: job 0x", "fields of it were changed"], |library| {
        let mut job = in_flight(library);
        job.head().available_out -= 1;
        job.check();
    });
}

#[test]
fn an_input_that_is_changed_in_flight() {
    aborts(SLOW, &["qpl_wait_job: job 0x", "its input was changed"], |library| {
        let mut job = in_flight(library);
        job.input[2000] ^= 1;
        job.wait();
    });
}

#[test]
fn a_job_that_met_a_page_fault_and_is_submitted() {
    aborts(FAULTS, &["qpl_submit_job: job 0x", "page fault"], |library| {
        let job = in_flight(library);
        job.wait();
        job.submit();
    });
}

#[test]
fn a_job_that_met_a_page_fault_and_is_initialised_without_being_finished() {
    aborts(FAULTS, &["qpl_init_job: job 0x", "page fault"], |library| {
        let job = in_flight(library);
        job.wait();
        job.init(Path::Hardware);
    });
}

#[test]
fn an_input_is_not_looked_at_again_where_that_is_off() {
    let settings = [("COMPRESS_LATENCY", "50ms"), ("QPL_SIM_CHECK_INPUT", "0")];
    support::simulate(&settings, |library| {
        let mut job = in_flight(library);
        job.input[2000] ^= 1;
        assert!(matches!(job.wait(), Status::OK), "no more is certain");
        job.finish();
    });
}
