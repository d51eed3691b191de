//! What the hardware path does with the real libqpl, when its devices work and when they fail.

use std::time::Duration;

use multifd_conformance::ends::{PAGE_BYTES, Receiver, Sender, noise};
use multifd_core::MethodStats;
use multifd_qpl::{Options, Path, Qpl};

use crate::support::log::Log;
use crate::support::packet::{PAGES, packet};
use crate::support::real::{real, wait_for_counters};
use crate::support::{IMPATIENT, count};

/// The hardware path for a machine that is busy: no job is given up.
static PATIENT: Qpl = Qpl::new(Options::new(Path::Hardware).with_timeout(Duration::from_secs(60)));

const PACKETS: usize = 10;

/// The pages of all packets.
const ALL: u64 = (PACKETS * PAGES) as u64;

/// Sends packets and takes them back. Asserts that all pages are right and counted once and that the
/// devices stay in use, and returns what both sides have counted.
fn round_trips() -> [MethodStats; 2] {
    let log = Log::default();
    let stats = log.while_doing(|| {
        let (mut sender, mut receiver) = (Sender::new(&PATIENT, None), Receiver::new(&PATIENT));
        for _ in 0..PACKETS {
            let payload = sender.send(&packet());
            assert!(receiver.receive(&payload, PAGES).unwrap() == packet());
        }
        [sender.finish(), receiver.finish()]
    });
    assert_eq!(log.times("without IAA"), 0, "the channel has given the devices up");
    for stats in &stats {
        let pages = stats.iter().filter(|(name, _)| name.contains("pages"));
        assert_eq!(pages.map(|(_, count)| count).sum::<u64>(), ALL, "{stats:?}");
    }
    stats
}

real! {
    every_page_that_gets_shorter_is_the_devices() {
        for stats in round_trips() {
            assert_eq!(count(&stats, "hardware pages"), ALL, "{stats:?}");
            assert_eq!(count(&stats, "hardware errors"), 0);
        }
        wait_for_counters("pages of the devices", |counted| counted.get("succeeded") == 2 * ALL);
    }

    a_page_that_does_not_get_shorter_goes_raw_and_is_no_error() {
        let mut sender = Sender::new(&PATIENT, None);
        for _ in 0..3 {
            sender.send(&noise(PAGES * PAGE_BYTES));
        }
        let stats = sender.finish();
        assert_eq!(count(&stats, "raw pages"), 3 * PAGES as u64, "{stats:?}");
        assert_eq!(count(&stats, "hardware errors"), 0, "{stats:?}");
    }

    an_output_that_the_device_finds_too_small_is_a_raw_page_and_no_error(
        ERROR = "1", ERROR_ON = "compress", ERROR_STATUS = "0x0a:25"
    ) {
        let [sent, _] = round_trips();
        assert_eq!(count(&sent, "raw pages"), ALL, "{sent:?}");
        assert_eq!(count(&sent, "hardware errors"), 0, "{sent:?}");
    }

    // libqpl submits a job again after its first page fault; after a second one, in whatever later
    // stream, it fails until it is set up anew.
    jobs_that_meet_page_faults_again_and_again_stay_in_use(PAGE_FAULT = "1") {
        for stats in round_trips() {
            let (hardware, fault) = (count(&stats, "hardware pages"), count(&stats, "software pages (fault)"));
            assert!(hardware >= ALL / 3 && fault > 0, "{stats:?}");
            assert_eq!(count(&stats, "hardware errors"), fault, "{stats:?}");
        }
    }

    pages_that_fault_twice_go_to_the_cpu_and_the_others_stay(PAGE_FAULT = "0.3", PAGE_FAULT_AGAIN = "1") {
        for stats in round_trips() {
            let (hardware, fault) = (count(&stats, "hardware pages"), count(&stats, "software pages (fault)"));
            assert!(hardware > ALL / 2 && fault > ALL / 10, "{stats:?}");
        }
    }

    // The second submission is made from inside a check, which so can answer that the queues are busy.
    a_job_whose_second_submission_finds_the_queues_full_goes_to_the_cpu(
        PAGE_FAULT = "1", QUEUE_FULL = "0.3", QUEUE_FULL_TIME = "50us"
    ) {
        for stats in round_trips() {
            assert!(count(&stats, "software pages (fault)") > 0, "{stats:?}");
            assert!(count(&stats, "hardware pages") > 0, "{stats:?}");
        }
    }

    pages_that_find_the_queues_full_go_to_the_cpu_and_later_ones_to_the_devices(
        ENGINES = "1", QUEUE_DEPTHS = "4", COMPRESS_THROUGHPUT = "20M", DECOMPRESS_THROUGHPUT = "20M"
    ) {
        for stats in round_trips() {
            assert!(count(&stats, "software pages (busy)") > 0, "{stats:?}");
            assert!(count(&stats, "hardware pages") >= 4 * PACKETS as u64, "{stats:?}");
        }
    }

    a_queue_that_is_disabled_leaves_its_pages_to_the_cpu(QUEUE_DISABLED_AT = "300") {
        let [sent, received] = round_trips();
        let hardware = count(&sent, "hardware pages") + count(&received, "hardware pages");
        assert!((300..300 + 256).contains(&hardware), "{hardware}: {sent:?}, {received:?}");
    }

    a_job_that_never_ends_is_given_up_after_the_timeout(NO_COMPLETION = "1") {
        let log = Log::default();
        log.while_doing(|| {
            let codec = Qpl::new(IMPATIENT);
            let (mut sender, mut receiver) = (Sender::new(&codec, None), Receiver::new(&codec));
            let payload = sender.send(&packet());
            assert!(receiver.receive(&payload, PAGES).unwrap() == packet());
            for stats in [sender.finish(), receiver.finish()] {
                assert_eq!(count(&stats, "software pages (fault)"), PAGES as u64, "{stats:?}");
            }
        });
        assert_eq!(log.times("a job does not end within 200ms"), 2, "once a side");
        assert_eq!(log.times("is left to it"), 2);
    }
}
