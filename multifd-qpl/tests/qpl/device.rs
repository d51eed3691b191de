//! What the hardware path does with the devices, and when they fail.

use std::time::{Duration, Instant};

use multifd_conformance::ends::{PAGE_BYTES, Receiver, Sender, noise};
use multifd_core::{MethodStats, MultiFdMethods, PageSize};
use multifd_qpl::{Options, Path, Qpl};
use pollster::block_on;

use crate::support::packet::{PAGES, Packet, packet, sender};
use crate::support::simulated::simulated;
use crate::support::streams::{deflate, text};
use crate::support::{IMPATIENT, chunks, count, log::Log, on, receive_chunk};

/// Sends `packets` packets and takes them back, with the devices as they are. Asserts that all
/// pages are right, and returns what both sides have counted.
fn round_trip(codec: &Qpl, packets: usize) -> [MethodStats; 2] {
    let (mut sender, mut receiver) = (Sender::new(codec, None), Receiver::new(codec));
    for _ in 0..packets {
        let payload = sender.send(&packet());
        assert!(receiver.receive(&payload, PAGES).unwrap() == packet());
    }
    [sender.finish(), receiver.finish()]
}

/// The portable path's payload of a packet.
fn portable_payload() -> Vec<u8> {
    Sender::new(&on(Path::Portable), None).send(&packet())
}

simulated! {
    every_page_that_gets_shorter_is_the_devices() {
        let [sent, received] = round_trip(&on(Path::Hardware), 10);
        for stats in [sent, received] {
            assert_eq!(count(&stats, "hardware pages"), 10 * PAGES as u64, "{stats:?}");
            assert_eq!(count(&stats, "hardware errors"), 0);
        }
    }

    what_is_counted_is_read_while_the_channel_runs() {
        let mut method = sender(&on(Path::Hardware));
        let counters = method.counters();
        for packets in 1..=2 {
            block_on(Packet::of(&packet()).send(&mut *method)).unwrap();
            assert_eq!(count(&counters.snapshot(), "hardware pages"), packets * PAGES as u64);
        }
    }

    auto_is_the_hardware_where_there_is_one() {
        let [sent, _] = round_trip(&Qpl::default(), 1);
        assert_eq!(count(&sent, "hardware pages"), PAGES as u64);
    }

    a_page_that_does_not_get_shorter_goes_raw() {
        let mut sender = Sender::new(&on(Path::Hardware), None);
        sender.send(&noise(PAGES * PAGE_BYTES));
        let stats = sender.finish();
        assert_eq!((count(&stats, "raw pages"), count(&stats, "hardware errors")), (PAGES as u64, 0));
    }

    pages_that_find_the_queues_full_go_to_the_cpu_and_later_ones_to_the_devices(
        ENGINES = "1", QUEUE_DEPTHS = "4", COMPRESS_THROUGHPUT = "80M", DECOMPRESS_THROUGHPUT = "80M"
    ) {
        for stats in round_trip(&on(Path::Hardware), 4) {
            let (hardware, busy) = (count(&stats, "hardware pages"), count(&stats, "software pages (busy)"));
            assert_eq!(hardware + busy, 4 * PAGES as u64, "{stats:?}");
            assert!(busy > 0 && hardware > 4 * 4, "more than what filled the queue: {stats:?}");
            assert!(count(&stats, "hardware retries") >= 3 * busy, "{stats:?}");
        }
    }

    without_retries_a_full_queue_is_asked_once(QUEUE_FULL = "1") {
        let once = Qpl::new(Options::new(Path::Hardware).with_submit_retries(0));
        for stats in round_trip(&once, 1) {
            assert_eq!(count(&stats, "hardware retries"), 0);
            assert_eq!(count(&stats, "software pages (busy)"), PAGES as u64);
        }
    }

    pages_that_meet_a_fault_go_to_the_cpu_and_the_others_stay(
        PAGE_FAULT = "0.3", PAGE_FAULT_AGAIN = "1"
    ) {
        for stats in round_trip(&on(Path::Hardware), 10) {
            let (hardware, fault) = (count(&stats, "hardware pages"), count(&stats, "software pages (fault)"));
            assert_eq!(hardware + fault, 10 * PAGES as u64, "{stats:?}");
            assert!((250..550).contains(&fault), "{stats:?}");
            assert_eq!(count(&stats, "hardware errors"), fault);
        }
    }

    a_page_that_the_device_cannot_compress_goes_raw(
        ERROR = "1", ERROR_ON = "compress", ERROR_STATUS = "0x0a:19,0x0a:29,0x0a:30"
    ) {
        let [sent, _] = round_trip(&on(Path::Hardware), 1);
        // But for those that it took too long for, which the CPU does.
        assert_eq!(count(&sent, "raw pages") + count(&sent, "software pages (fault)"), PAGES as u64, "{sent:?}");
        assert!(count(&sent, "raw pages") > PAGES as u64 / 2, "{sent:?}");
        assert_eq!(count(&sent, "hardware errors"), PAGES as u64);
    }

    a_chunk_that_the_device_wrongly_refuses_is_inflated_by_the_cpu(
        ERROR = "1", ERROR_ON = "decompress"
    ) {
        let [sent, received] = round_trip(&on(Path::Hardware), 1);
        assert_eq!(count(&sent, "hardware pages"), PAGES as u64);
        assert_eq!(count(&received, "software pages (fault)"), PAGES as u64);
    }

    a_device_that_lies_about_its_output_is_not_believed(WRONG_OUTPUT_SIZE = "1") {
        for stats in round_trip(&on(Path::Hardware), 1) {
            assert_eq!(count(&stats, "software pages (fault)"), PAGES as u64, "{stats:?}");
            assert_eq!(count(&stats, "hardware errors"), PAGES as u64, "{stats:?}");
        }
    }

    a_library_that_refuses_all_jobs_is_left_alone_and_named_once(QPL_SIM_REFUSE_AFTER = "300") {
        let log = Log::default();
        let stats = log.while_doing(|| {
            let mut sender = Sender::new(&on(Path::Hardware), None);
            for _ in 0..5 {
                let payload = sender.send(&packet());
                let mut receiver = Receiver::new(&on(Path::Portable));
                assert!(receiver.receive(&payload, PAGES).unwrap() == packet());
            }
            sender.finish()
        });
        let (hardware, fault) = (count(&stats, "hardware pages"), count(&stats, "software pages (fault)"));
        assert!(hardware <= 300 && hardware + fault == 5 * PAGES as u64, "{stats:?}");
        assert_eq!(log.times("the channel goes on without IAA"), 1);
    }

    a_device_that_is_reset_is_left_alone_and_named_once(RESET_AT = "300") {
        let log = Log::default();
        let stats = log.while_doing(|| {
            let mut sender = Sender::new(&Qpl::new(IMPATIENT), None);
            for _ in 0..5 {
                let payload = sender.send(&packet());
                let mut receiver = Receiver::new(&on(Path::Portable));
                assert!(receiver.receive(&payload, PAGES).unwrap() == packet());
            }
            sender.finish()
        });
        let fallen_back = count(&stats, "software pages (fault)") + count(&stats, "software pages (busy)");
        let hardware = count(&stats, "hardware pages");
        assert!(hardware <= 300 && hardware + fallen_back == 5 * PAGES as u64, "{stats:?}");
        assert!(log.times("the channel goes on without IAA") <= 1);
    }

    pages_that_meet_a_fault_which_libqpl_gets_past_stay(PAGE_FAULT = "0.01") {
        let [sent, received] = round_trip(&on(Path::Hardware), 4);
        for stats in [sent, received] {
            // A job gets past one alone.
            let errors = count(&stats, "hardware errors");
            assert_eq!(count(&stats, "software pages (fault)"), errors, "{stats:?}");
            assert_eq!(count(&stats, "hardware pages") + errors, 4 * PAGES as u64, "{stats:?}");
            assert!(errors < 3, "{stats:?}");
        }
    }

    a_job_that_never_ends_is_given_up_after_the_timeout_and_its_page_goes_to_the_cpu(NO_COMPLETION = "1") {
        let log = Log::default();
        let started = Instant::now();
        log.while_doing(|| {
            for stats in round_trip(&Qpl::new(IMPATIENT), 3) {
                assert_eq!(count(&stats, "hardware pages"), 0, "{stats:?}");
                assert_eq!(count(&stats, "software pages (fault)"), 3 * PAGES as u64, "{stats:?}");
            }
        });
        let time = started.elapsed();
        assert!(time >= 2 * IMPATIENT.timeout && time < 20 * IMPATIENT.timeout, "{time:?}");
        assert_eq!(log.times("a job does not end within 200ms"), 2, "once a side");
        assert_eq!(log.times("is left to it"), 2);
    }

    a_bad_chunk_among_others_is_an_error_that_leaves_nothing_in_flight(
        ENGINES = "1", DECOMPRESS_LATENCY = "1ms"
    ) {
        let short = deflate(&text(PAGE_BYTES - 1), flate2::FlushCompress::Finish);
        let mut all = chunks(&on(Path::Portable), PageSize::Kib4, &packet());
        all[1] = short;
        let lengths = all.iter().flat_map(|chunk| (chunk.len() as u32).to_be_bytes());
        let payload: Vec<u8> = lengths.chain(all.iter().flatten().copied()).collect();
        let mut receiver = Receiver::new(&on(Path::Hardware));
        let error = receiver.receive(&payload, PAGES).unwrap_err();
        assert_eq!(error.place().page, Some(1));
        assert!(error.to_string().contains("inflates to 4095 bytes"), "{error}");
        // As it is: 126 jobs are still on the device.
        assert!(receiver.receive(&portable_payload(), PAGES).unwrap() == packet());
    }

    of_two_bad_chunks_the_first_is_named_though_the_queue_was_full_for_the_second(
        ENGINES = "1", QUEUE_DEPTHS = "1", DECOMPRESS_THROUGHPUT = "1M"
    ) {
        let mut all = chunks(&on(Path::Portable), PageSize::Kib4, &packet());
        let short = deflate(&text(PAGE_BYTES - 1), flate2::FlushCompress::Finish);
        // The engine has the first page for 4 ms, and the queue has room for one.
        for bad in [0, 5, PAGES - 1] {
            all[bad] = short.clone();
        }
        let lengths = all.iter().flat_map(|chunk| (chunk.len() as u32).to_be_bytes());
        let payload: Vec<u8> = lengths.chain(all.iter().flatten().copied()).collect();
        let mut receiver = Receiver::new(&on(Path::Hardware));
        let error = receiver.receive(&payload, PAGES).unwrap_err();
        assert_eq!(error.place().page, Some(0), "{error}");
    }

    bytes_behind_a_stream_go_unnoticed_and_the_page_is_right() {
        // What libqpl says of a stream on a device is that all of it was used up.
        let mut chunk = deflate(&text(PAGE_BYTES), flate2::FlushCompress::Finish);
        chunk.extend([0xff; 9]);
        let mut receiver = Receiver::new(&on(Path::Hardware));
        assert!(receive_chunk(&mut receiver, &chunk).unwrap() == text(PAGE_BYTES));
    }

    jobs_that_end_slowly_are_waited_for_without_the_cpu_taking_them(
        COMPRESS_LATENCY = "3ms", DECOMPRESS_LATENCY = "3ms"
    ) {
        let started = Instant::now();
        let [sent, _] = round_trip(&Qpl::new(IMPATIENT), 1);
        assert_eq!(count(&sent, "hardware pages"), PAGES as u64);
        assert!(started.elapsed() >= Duration::from_millis(6));
    }

    auto_counts_pages_as_the_cpus_where_a_channels_first_job_cannot_be_set_up(QPL_SIM_INIT = "0.5") {
        // Two jobs are set up before there is a channel: one to probe, and the channel's first. The path is
        // the CPU's where the probe fails, and where the channel's does.
        let log = Log::default();
        let ours = |stats: &MethodStats| ["software pages", "portable pages"].iter().any(|name| stats.get(name) == Some(PAGES as u64));
        log.while_doing(|| {
            let without = (0..20).flat_map(|_| round_trip(&Qpl::default(), 1)).filter(ours).count();
            assert!((20..40).contains(&without), "{without} of 40 sides");
        });
        assert!(log.times("a channel goes without IAA") > 0);
    }

    packets_of_one_page_need_one_job(QPL_SIM_INIT = "0.05") {
        // Of 300 jobs, some could not be set up.
        let mut sender = Sender::new(&on(Path::Hardware), None);
        for page in packet().chunks(PAGE_BYTES).cycle().take(300) {
            sender.send(page);
        }
        let stats = sender.finish();
        assert_eq!((count(&stats, "hardware pages"), count(&stats, "hardware errors")), (300, 0));
    }

    pages_whose_job_cannot_be_set_up_go_to_the_cpu_and_so_do_those_that_follow(QPL_SIM_INIT = "0.05") {
        // All of a packet's jobs but the first are set up with their first page: one of 128 fails.
        let codec = &on(Path::Hardware);
        let log = Log::default();
        let stats = log.while_doing(|| {
            let mut sender = Sender::new(codec, None);
            for _ in 0..3 {
                let payload = sender.send(&packet());
                let mut receiver = Receiver::new(&on(Path::Portable));
                assert!(receiver.receive(&payload, PAGES).unwrap() == packet());
            }
            sender.finish()
        });
        let (hardware, fault) = (count(&stats, "hardware pages"), count(&stats, "software pages (fault)"));
        assert_eq!(hardware + fault, 3 * PAGES as u64, "{stats:?}");
        assert!((1..PAGES as u64).contains(&hardware), "only those before the first that failed: {stats:?}");
        assert_eq!(count(&stats, "hardware errors"), 1, "{stats:?}");
        assert_eq!(log.times("the channel goes on without IAA"), 1);
    }

    without_a_device_the_path_says_what_is_missing_and_auto_does_without(DEVICES = "0") {
        let codec: &dyn MultiFdMethods = &on(Path::Hardware);
        let error = codec.require().unwrap_err().to_string();
        assert!(error.contains("no IAA work queue is enabled"), "{error}");
        let [sent, _] = round_trip(&Qpl::default(), 1);
        assert_eq!(count(&sent, "software pages"), PAGES as u64);
    }
}
