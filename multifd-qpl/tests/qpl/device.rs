//! What the hardware path does with the devices, and when they fail.

use std::future::Future;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Wake, Waker};
use std::time::{Duration, Instant};

use multifd_conformance::ends::{PAGE_BYTES, Receiver, Sender, noise};
use multifd_core::ram::{GuestPages, NormalPages, RamBlock};
use multifd_core::vm_memory::MmapRegion;
use multifd_core::wire::BlockName;
use multifd_core::{Error, MethodDescriptor, MethodStats, PageSize, Payload, SendMethod};
use multifd_qpl::{Options, Path};
use pollster::block_on;

use crate::support::simulated::simulated;
use crate::support::streams::{deflate, text};
use crate::support::{IMPATIENT, chunks};

const PAGES: usize = 128;

/// A packet of pages that get shorter, each another one.
fn packet() -> Vec<u8> {
    let text = text(PAGES * PAGE_BYTES + PAGES * 100);
    (0..PAGES).flat_map(|page| text[page * PAGE_BYTES + page..][..PAGE_BYTES].to_vec()).collect()
}

/// Sends `packets` packets and takes them back, with the devices as they are. Asserts that all
/// pages are right, and returns what both sides have counted.
fn round_trip(codec: &MethodDescriptor, packets: usize) -> [MethodStats; 2] {
    let (mut sender, mut receiver) = (Sender::new(codec, None), Receiver::new(codec));
    for _ in 0..packets {
        let payload = sender.send(&packet());
        assert!(receiver.receive(&payload, PAGES).unwrap() == packet());
    }
    [sender.finish(), receiver.finish()]
}

/// The portable path's payload of a packet.
fn portable_payload() -> Vec<u8> {
    Sender::new(&Path::Portable.descriptor(), None).send(&packet())
}

/// Messages that are logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn while_doing<R>(&self, work: impl FnOnce() -> R) -> R {
        let log = self.clone();
        let subscriber = tracing_subscriber::fmt().with_writer(move || log.clone()).finish();
        tracing::subscriber::with_default(subscriber, work)
    }

    fn times(&self, message: &str) -> usize {
        String::from_utf8_lossy(&self.0.lock().unwrap()).matches(message).count()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// `send_prepare` of a packet, for as long as `drive` polls it.
fn send_packet(
    method: &mut dyn SendMethod,
    drive: impl FnOnce(&mut (dyn Future<Output = Result<(), Error>> + Unpin)),
) {
    let block = RamBlock::new(
        BlockName::new("ram").unwrap(),
        MmapRegion::<()>::new(PAGES * PAGE_BYTES).unwrap(),
    );
    let offsets: Vec<_> = (0..PAGES as u64).map(|page| page * PAGE_BYTES as u64).collect();
    let guest = GuestPages::new(&block, PageSize::Kib4, &offsets).unwrap();
    let private = packet();
    let normal = NormalPages::new(guest, Some(&private));
    let mut payload = Payload::new();
    drive(&mut method.send_prepare(&normal, &mut payload));
}

/// Polls `send_prepare` of a packet once, with jobs on the devices, and gives it up.
fn begin_and_give_up(method: &mut dyn SendMethod, waker: &Waker) {
    send_packet(method, |sending| {
        let polled = pin!(sending).poll(&mut Context::from_waker(waker));
        assert!(polled.is_pending(), "the devices are slow");
    });
}

fn method(codec: &MethodDescriptor) -> Box<dyn SendMethod> {
    block_on(codec.methods.send_setup(&codec.config(0, PageSize::Kib4, None).unwrap())).unwrap()
}

simulated! {
    every_page_that_gets_shorter_is_the_devices() {
        let [sent, received] = round_trip(&Path::Hardware.descriptor(), 10);
        for stats in [sent, received] {
            assert_eq!(stats["hardware pages"], 10 * PAGES as u64, "{stats:?}");
            assert_eq!(stats["hardware errors"], 0);
        }
    }

    auto_is_the_hardware_where_there_is_one() {
        let [sent, _] = round_trip(&multifd_qpl::DESCRIPTOR, 1);
        assert_eq!(sent["hardware pages"], PAGES as u64);
    }

    a_page_that_does_not_get_shorter_goes_raw() {
        let mut sender = Sender::new(&Path::Hardware.descriptor(), None);
        sender.send(&noise(PAGES * PAGE_BYTES));
        let stats = sender.finish();
        assert_eq!((stats["raw pages"], stats["hardware errors"]), (PAGES as u64, 0));
    }

    pages_that_find_the_queues_full_go_to_the_cpu_and_later_ones_to_the_devices(
        ENGINES = "1", QUEUE_DEPTH = "4", LATENCY = "50us"
    ) {
        for stats in round_trip(&Path::Hardware.descriptor(), 4) {
            let (hardware, busy) = (stats["hardware pages"], stats["software pages (busy)"]);
            assert_eq!(hardware + busy, 4 * PAGES as u64, "{stats:?}");
            assert!(busy > 0 && hardware > 4 * 4, "more than what filled the queue: {stats:?}");
            assert!(stats["hardware retries"] >= 3 * busy, "{stats:?}");
        }
    }

    without_retries_a_full_queue_is_asked_once(BUSY = "1") {
        static ONCE: Options = {
            let mut options = Options::new(Path::Hardware);
            options.submit_retries = 0;
            options
        };
        for stats in round_trip(&ONCE.descriptor(), 1) {
            assert_eq!(stats["hardware retries"], 0);
            assert_eq!(stats["software pages (busy)"], PAGES as u64);
        }
    }

    pages_that_meet_a_fault_go_to_the_cpu_and_the_others_stay(PAGE_FAULT = "0.3") {
        for stats in round_trip(&Path::Hardware.descriptor(), 10) {
            let (hardware, fault) = (stats["hardware pages"], stats["software pages (fault)"]);
            assert_eq!(hardware + fault, 10 * PAGES as u64, "{stats:?}");
            assert!((250..550).contains(&fault), "{stats:?}");
            assert_eq!(stats["hardware errors"], fault);
        }
    }

    a_page_that_the_device_cannot_compress_goes_raw(COMPRESS_ERROR = "1") {
        let [sent, _] = round_trip(&Path::Hardware.descriptor(), 1);
        // But for those that it took too long for, which the CPU does.
        assert_eq!(sent["raw pages"] + sent["software pages (fault)"], PAGES as u64, "{sent:?}");
        assert!(sent["raw pages"] > PAGES as u64 / 2, "{sent:?}");
        assert_eq!(sent["hardware errors"], PAGES as u64);
    }

    a_chunk_that_the_device_wrongly_refuses_is_inflated_by_the_cpu(DECOMPRESS_ERROR = "1") {
        let [sent, received] = round_trip(&Path::Hardware.descriptor(), 1);
        assert_eq!(sent["hardware pages"], PAGES as u64);
        assert_eq!(received["software pages (fault)"], PAGES as u64);
    }

    a_device_that_lies_about_its_output_is_not_believed(WRONG_TOTAL_OUT = "1") {
        for stats in round_trip(&Path::Hardware.descriptor(), 1) {
            assert_eq!(stats["software pages (fault)"], PAGES as u64, "{stats:?}");
            assert_eq!(stats["hardware errors"], PAGES as u64, "{stats:?}");
        }
    }

    a_device_that_is_lost_is_left_alone_and_named_once(DEVICE_LOST_AFTER = "300") {
        let log = Log::default();
        let stats = log.while_doing(|| {
            let mut sender = Sender::new(&Path::Hardware.descriptor(), None);
            for _ in 0..5 {
                let payload = sender.send(&packet());
                let mut receiver = Receiver::new(&Path::Portable.descriptor());
                assert!(receiver.receive(&payload, PAGES).unwrap() == packet());
            }
            sender.finish()
        });
        let (hardware, fault) = (stats["hardware pages"], stats["software pages (fault)"]);
        assert!(hardware <= 300 && hardware + fault == 5 * PAGES as u64, "{stats:?}");
        assert_eq!(log.times("the channel goes on without IAA"), 1);
    }

    a_job_that_never_ends_is_given_up_after_the_timeout_and_its_page_goes_to_the_cpu(HANG = "1") {
        let log = Log::default();
        let started = Instant::now();
        log.while_doing(|| {
            for stats in round_trip(&IMPATIENT.descriptor(), 3) {
                assert_eq!(stats["hardware pages"], 0, "{stats:?}");
                assert_eq!(stats["software pages (fault)"], 3 * PAGES as u64, "{stats:?}");
            }
        });
        let time = started.elapsed();
        assert!(time >= 2 * IMPATIENT.timeout && time < 20 * IMPATIENT.timeout, "{time:?}");
        assert_eq!(log.times("a job does not end within 200ms"), 2, "once a side");
        assert_eq!(log.times("is left to it"), 2);
    }

    what_was_given_up_half_way_is_waited_for(LATENCY = "200ms") {
        // The simulation ends the process where what a device works on is freed or used again.
        let mut given_up = method(&Path::Hardware.descriptor());
        begin_and_give_up(&mut *given_up, Waker::noop());
        drop(given_up);
        let mut goes_on = method(&Path::Hardware.descriptor());
        begin_and_give_up(&mut *goes_on, Waker::noop());
        begin_and_give_up(&mut *goes_on, Waker::noop());
        block_on(goes_on.send_cleanup()).unwrap();
    }

    what_was_given_up_half_way_and_failed_is_set_up_anew(LATENCY = "200ms", PAGE_FAULT = "0.5") {
        let mut goes_on = method(&Path::Hardware.descriptor());
        begin_and_give_up(&mut *goes_on, Waker::noop());
        // The simulation ends the process where a job that failed is used as it is.
        send_packet(&mut *goes_on, |sending| block_on(sending).unwrap());
        let stats = block_on(goes_on.send_cleanup()).unwrap();
        assert!(stats["hardware errors"] > stats["software pages (fault)"], "{stats:?}");
    }

    a_panic_half_way_frees_nothing_that_a_device_works_on(LATENCY = "200ms") {
        struct Panics;
        impl Wake for Panics {
            fn wake(self: Arc<Self>) {
                panic!("as intended");
            }
        }
        let mut method = method(&Path::Hardware.descriptor());
        let waker = Waker::from(Arc::new(Panics));
        let sent = catch_unwind(AssertUnwindSafe(move || begin_and_give_up(&mut *method, &waker)));
        assert!(sent.is_err());
    }

    a_bad_chunk_among_others_is_an_error_that_leaves_nothing_in_flight(
        ENGINES = "1", LATENCY = "1ms"
    ) {
        let short = deflate(&text(PAGE_BYTES - 1), flate2::FlushCompress::Finish);
        let mut all = chunks(&Path::Portable.descriptor(), PageSize::Kib4, &packet());
        all[1] = short;
        let lengths = all.iter().flat_map(|chunk| (chunk.len() as u32).to_be_bytes());
        let payload: Vec<u8> = lengths.chain(all.iter().flatten().copied()).collect();
        let mut receiver = Receiver::new(&Path::Hardware.descriptor());
        let error = receiver.receive(&payload, PAGES).unwrap_err();
        assert_eq!(error.place().page, Some(1));
        assert!(error.to_string().contains("inflates to 4095 bytes"), "{error}");
        // As it is: 126 jobs are still on the device.
        assert!(receiver.receive(&portable_payload(), PAGES).unwrap() == packet());
    }

    jobs_that_end_slowly_are_waited_for_without_the_cpu_taking_them(LATENCY = "3ms") {
        let started = Instant::now();
        let [sent, _] = round_trip(&IMPATIENT.descriptor(), 1);
        assert_eq!(sent["hardware pages"], PAGES as u64);
        assert!(started.elapsed() >= Duration::from_millis(6));
    }

    without_a_device_the_path_says_what_is_missing_and_auto_does_without(DEVICES = "0") {
        let error = Path::Hardware.descriptor().require().unwrap_err().to_string();
        assert!(error.contains("no IAA work queue is enabled"), "{error}");
        let [sent, _] = round_trip(&multifd_qpl::DESCRIPTOR, 1);
        assert_eq!(sent["software pages"], PAGES as u64);
    }
}
