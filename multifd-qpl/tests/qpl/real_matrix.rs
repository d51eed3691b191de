//! Whatever the devices do, every test holds with the real libqpl, which finds them by
//! `multifd-iaa-sim`: all groups of the suite, each path with each other, each page size, with every
//! fault never, at 1, at 30 and at 100 % of the descriptors.
//!
//! All of it, with nothing left out, runs without faults. With faults, six cases are left out that send
//! thousands of packets ([`SLOW`]): each takes up to four seconds of a core, and there are 32 runs with
//! faults. The matrix is that of the face `write`. With
//! `mapped`, which is other code in libqpl but the same device, run those faults whose way through
//! libqpl's submission differs: full and disabled queues, a reset, and page faults, which submit again.

use crate::support::real::{Face, Ran, is_here, run};

/// What runs with faults: all but what asserts that there are none.
const TESTS: [&str; 4] = ["conformance::hardware::", "bad_input::", "pairs::each_path", "window::"];

/// What runs where jobs never end: each channel waits for the first of its jobs, so tests that set up
/// few.
const FEW_CHANNELS: [&str; 4] = [
    "conformance::hardware::round_trip::",
    "conformance::hardware::golden::",
    "conformance::hardware::channels::two_channels_that_interleave",
    "pairs::each_path",
];

/// Cases that send thousands of packets.
pub const SLOW: [&str; 10] = [
    "--skip",
    "::memory::",
    "--skip",
    "a_flipped_bit_gives_an_error_or_a_whole_packet",
    "--skip",
    "a_page_that_is_rewritten_while_it_is_sent_never_breaks_the_stream",
    "--skip",
    "thousands_of_packets_on_one_stream_come_back",
    "--skip",
    "two_channels_may_write_one_page_at_once",
];

/// A fault, what else is set for it, and the counter of the devices that says it has happened.
struct Fault {
    name: &'static str,
    with: &'static [(&'static str, &'static str)],
    counter: &'static str,
    tests: &'static [&'static str],
}

impl Fault {
    const fn new(name: &'static str, counter: &'static str) -> Self {
        Self { name, with: &[], counter, tests: &TESTS }
    }

    const fn with(self, with: &'static [(&'static str, &'static str)]) -> Self {
        Self { with, ..self }
    }

    /// The tests hold with the fault at each rate of the matrix.
    #[track_caller]
    fn holds(self) {
        if !is_here() {
            return;
        }
        for rate in ["0.01", "0.3", "1"] {
            self.holds_at(Face::Write, rate);
        }
    }

    /// As [`holds`](Self::holds), and with the face `mapped` at one rate.
    #[track_caller]
    fn holds_on_both_faces(self) {
        if is_here() {
            self.holds_at(Face::Mapped, "0.3");
        }
        self.holds();
    }

    #[track_caller]
    fn holds_at(&self, face: Face, rate: &str) {
        let settings = [&[(self.name, rate)], self.with].concat();
        let Ran { passed, counters } = run(face, &settings, &[self.tests, &SLOW].concat());
        assert!(passed >= 12, "only {passed} tests ran with {face:?}, {settings:?}");
        let happened = counters.get(self.counter);
        assert!(happened > 0, "{settings:?} did not happen with {face:?}: {counters:?}");
        // Where a fault is rare, the devices do what the tests have for them.
        if rate == "0.01" {
            assert!(counters.get("succeeded") > 1000, "{settings:?}: {counters:?}");
        }
    }
}

#[test]
fn the_whole_suite_holds_on_devices_that_do_not_fail() {
    if is_here() {
        let Ran { passed, counters } = run(Face::Write, &[], &TESTS);
        assert!(passed > 60, "only {passed} tests ran");
        assert!(counters.get("succeeded") > 10_000, "{counters:?}");
    }
}

#[test]
fn the_suite_holds_on_mapped_devices_that_do_not_fail() {
    if is_here() {
        let Ran { passed, counters } = run(Face::Mapped, &[], &[&TESTS[..], &SLOW].concat());
        assert!(passed > 48, "only {passed} tests ran");
        assert!(counters.get("succeeded") > 10_000, "{counters:?}");
    }
}

#[test]
fn all_hold_with_full_queues() {
    Fault::new("QUEUE_FULL", "faults_queue_full").holds_on_both_faces();
}

#[test]
fn all_hold_with_a_page_fault_that_the_second_submission_mends() {
    Fault::new("PAGE_FAULT", "faults_page").holds_on_both_faces();
}

#[test]
fn all_hold_with_page_faults_that_the_second_submission_meets_again() {
    Fault::new("PAGE_FAULT_AGAIN", "faults_page").with(&[("PAGE_FAULT", "0.5")]).holds();
}

#[test]
fn all_hold_with_errors_while_compressing() {
    Fault::new("ERROR", "faults_error").with(&[("ERROR_ON", "compress")]).holds();
}

#[test]
fn all_hold_with_errors_while_decompressing() {
    Fault::new("ERROR", "faults_error").with(&[("ERROR_ON", "decompress")]).holds();
}

#[test]
fn all_hold_with_wrong_sizes_of_output() {
    Fault::new("WRONG_OUTPUT_SIZE", "faults_wrong_output_size").holds();
}

#[test]
fn all_hold_with_jobs_that_never_end() {
    Fault { tests: &FEW_CHANNELS, ..Fault::new("NO_COMPLETION", "faults_no_completion") }.holds();
}

#[test]
fn all_hold_with_slow_engines() {
    let with = &[("COMPRESS_LATENCY", "10us"), ("DECOMPRESS_LATENCY", "10us")];
    Fault::new("SLOW", "faults_slow").with(with).holds();
}

/// The tests hold where a fault happens once and for good, at the descriptor of that number.
#[track_caller]
fn hold_with_a_loss(fault: &str) {
    if !is_here() {
        return;
    }
    let args = [&TESTS[..], &SLOW].concat();
    for (face, at) in
        [(Face::Write, 0), (Face::Write, 1000), (Face::Mapped, 1), (Face::Mapped, 1000)]
    {
        let Ran { passed, counters } = run(face, &[(fault, &at.to_string())], &args);
        assert!(passed > 48, "only {passed} tests ran with {face:?}, {fault} at {at}");
        let accepted = counters.get("accepted");
        // With `write`, those that are in the pipe when the queue is closed are taken, too.
        assert!((at..=at + 256).contains(&accepted), "{fault} at {at}: {counters:?}");
    }
}

#[test]
fn all_hold_with_a_device_that_is_reset() {
    hold_with_a_loss("RESET_AT");
}

#[test]
fn all_hold_with_a_queue_that_is_disabled() {
    hold_with_a_loss("QUEUE_DISABLED_AT");
}

#[test]
fn all_hold_with_many_faults_at_once_and_slow_devices() {
    let settings = [
        ("DEVICES", "2"),
        ("QUEUES", "2"),
        ("QUEUE_DEPTHS", "16"),
        ("COMPRESS_LATENCY", "5us"),
        ("COMPRESS_THROUGHPUT", "800M"),
        ("QUEUE_FULL", "0.01"),
        ("PAGE_FAULT", "0.05"),
        ("PAGE_FAULT_AGAIN", "0.2"),
        ("ERROR", "0.05"),
        ("WRONG_OUTPUT_SIZE", "0.05"),
        ("SLOW", "0.05"),
    ];
    if is_here() {
        let Ran { passed, counters } = run(Face::Write, &settings, &[&TESTS[..], &SLOW].concat());
        assert!(passed > 48, "only {passed} tests ran");
        for fault in ["queue_full", "page", "error", "wrong_output_size", "slow"] {
            assert!(counters.get(&format!("faults_{fault}")) > 0, "{fault}: {counters:?}");
        }
    }
}
