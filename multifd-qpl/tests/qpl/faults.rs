//! Whatever the devices do, every test holds: pages come back right, and what is wrong is refused.

use crate::support::simulated;

/// What runs with faults: all but what asserts that there are none.
const TESTS: [&str; 4] = ["conformance::hardware::", "bad_input::", "pairs::each_path", "window::"];

/// What runs where the hardware path may be missing: the automatic one never is.
const AUTO: [&str; 1] = ["conformance::auto::"];

const RATES: [&str; 3] = ["0.01", "0.3", "1"];

/// Cases that set up thousands of channels, or send as many packets, for what no fault has to do
/// with. They run without faults.
const SLOW: [&str; 8] = [
    "--skip",
    "::memory::",
    "--skip",
    "a_packet_cut_short_at_any_byte_is_refused",
    "--skip",
    "a_changed_word_of_payload_gives_an_error_or_a_whole_packet",
    "--skip",
    "incompressible_pages_after_compressible_ones_stay_within_the_bounds",
];

/// Runs `tests` with a fault that happens as often as each of `rates` says.
#[track_caller]
fn hold(tests: &[&str], fault: &str, rates: &[&str]) {
    for rate in rates {
        let passed = simulated::run(&[(fault, rate)], &[tests, &SLOW].concat());
        assert!(passed > 12, "only {passed} tests ran");
    }
}

/// Runs all tests with a fault that happens seldom, often and always. With none at all it is
/// [`the_whole_suite_holds_on_devices_that_do_not_fail`].
#[track_caller]
fn all_hold_with(fault: &str) {
    hold(&TESTS, fault, &RATES);
}

#[test]
fn the_whole_suite_holds_on_devices_that_do_not_fail() {
    assert!(simulated::run(&[], &TESTS) > 60, "all ran");
}

#[test]
fn all_hold_with_busy_queues() {
    all_hold_with("BUSY");
}

#[test]
fn all_hold_with_page_faults() {
    all_hold_with("PAGE_FAULT");
}

#[test]
fn all_hold_with_errors_while_compressing() {
    all_hold_with("COMPRESS_ERROR");
}

#[test]
fn all_hold_with_errors_while_decompressing() {
    all_hold_with("DECOMPRESS_ERROR");
}

#[test]
fn all_hold_with_wrong_counts_of_output() {
    all_hold_with("WRONG_TOTAL_OUT");
}

#[test]
fn all_hold_with_jobs_that_never_end() {
    // Each channel waits for the first of its jobs, so only tests that set up few.
    let tests = ["conformance::hardware::round_trip::", "conformance::hardware::channels::"];
    let tests = [&tests[..], &["conformance::hardware::golden::", "pairs::each_path"]].concat();
    hold(&tests, "HANG", &RATES);
}

#[test]
fn all_hold_with_devices_that_are_lost() {
    hold(&AUTO, "DEVICE_LOST_AFTER", &["0", "1", "100", "10000"]);
}

#[test]
fn all_hold_with_jobs_that_cannot_be_set_up() {
    hold(&AUTO, "INIT", &RATES);
}

#[test]
fn all_hold_with_several_faults_at_once_and_slow_devices() {
    let settings = [
        ("DEVICES", "4"),
        ("QUEUE_DEPTH", "16"),
        ("LATENCY", "20us"),
        ("THROUGHPUT", "400M"),
        ("BUSY", "0.05"),
        ("PAGE_FAULT", "0.05"),
        ("COMPRESS_ERROR", "0.05"),
        ("DECOMPRESS_ERROR", "0.05"),
        ("WRONG_TOTAL_OUT", "0.05"),
    ];
    simulated::run(&settings, &[&TESTS[..], &SLOW].concat());
}
