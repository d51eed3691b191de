//! What a job costs that is done inside its submission: the least that a caller's own cost per page
//! is measured against.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]
#![allow(dead_code, reason = "each test uses a part of what they share")]

mod support;

use std::time::Instant;

use qpl_sys::{Path, Status};
use support::{TestJob, simulate};

/// Nanoseconds of submission and check, the least of several runs.
fn nanoseconds(job: &mut TestJob, room: usize) -> f64 {
    const PAGES: u32 = 20_000;
    let run = |_| {
        let began = Instant::now();
        for _ in 0..PAGES {
            job.again(room);
            assert_eq!(job.submit(), Status::OK);
            assert_eq!(job.check(), Status::OK);
        }
        began.elapsed().as_nanos() as f64 / f64::from(PAGES)
    };
    (0..20).map(run).fold(f64::INFINITY, f64::min)
}

#[test]
#[ignore = "a measurement: run it alone, with --release --ignored --nocapture"]
fn a_page_of_one_byte_costs_next_to_nothing() {
    let printed = simulate(&[("QPL_SIM_AT_ONCE", "1")], |library| {
        let mut job = TestJob::new(library, Path::Hardware);
        job.compress(&[7; 4096]);
        println!("compress: {:.0} ns a page", nanoseconds(&mut job, 4095));
        let stream = job.written().to_vec();
        job.decompress(&stream, 4096);
        println!("decompress: {:.0} ns a page", nanoseconds(&mut job, 4096));
        job.finish();
    });
    print!("{printed}");
    let (a, b) = (vec![7_u8; 4096], vec![7_u8; 4096]);
    let scan = |_| {
        let began = Instant::now();
        for _ in 0..20_000 {
            assert!(std::hint::black_box(&a[1..]) == std::hint::black_box(&b[..4095]));
        }
        began.elapsed().as_nanos() as f64 / 20_000.0
    };
    println!("a scan: {:.0} ns", (0..20).map(scan).fold(f64::INFINITY, f64::min));
}
