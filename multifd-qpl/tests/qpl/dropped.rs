//! Calls that are dropped half-way, while devices are at work, and channels that are.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use multifd_conformance::ends::PAGE_BYTES;
use multifd_core::channel::Part;
use multifd_core::{MethodStats, Payload, SendMethod};
use multifd_qpl::{Path, Qpl};
use pollster::block_on;

use crate::support::log::Log;
use crate::support::packet::{PAGES, Packet, packet, receiver, sender};
use crate::support::simulated::simulated;
use crate::support::streams::text;
use crate::support::{IMPATIENT, count, on};

/// Polls `future` so many times, and drops it.
fn polled<T>(future: impl Future<Output = T>, polls: usize, waker: &Waker) -> Poll<T> {
    let mut future = pin!(future);
    let mut poll = || future.as_mut().poll(&mut Context::from_waker(waker));
    (1..polls).map(|_| poll()).find(Poll::is_ready).unwrap_or_else(poll)
}

/// Calls again and again, dropping each call after so many polls, until one is done. Returns how
/// many were dropped.
fn dropping<T>(polls: usize, mut call: impl AsyncFnMut() -> T) -> (T, usize) {
    let mut dropped = 0;
    loop {
        match polled(call(), polls, Waker::noop()) {
            Poll::Ready(done) => return (done, dropped),
            Poll::Pending => dropped += 1,
        }
    }
}

/// Another packet than [`packet`], with fewer pages.
fn other() -> Vec<u8> {
    text(50 * PAGE_BYTES).into_iter().map(|byte| byte ^ 1).collect()
}

/// What one call makes of `pages`.
fn payload_of(codec: &Qpl, pages: &[u8]) -> Vec<u8> {
    block_on(Packet::of(pages).send(&mut *sender(codec))).unwrap()
}

/// How many polls a call gets before it is dropped. On a busy machine, all jobs may have ended after
/// a few.
const POLLS: [usize; 5] = [1, 2, 3, 5, 20];

/// Sends and receives packets with calls that are dropped after each of [`POLLS`]. Asserts that some
/// were, that the pages come back, and that each is counted once. Returns what both sides have
/// counted.
fn round_trips(codec: &Qpl) -> impl Iterator<Item = MethodStats> {
    let mut dropped = 0;
    let mut all = Vec::new();
    for polls in POLLS {
        all.extend(round_trip(codec, polls, &mut dropped));
    }
    assert!(dropped > 0, "the devices are slow");
    all.into_iter().inspect(|stats| assert_eq!(pages(stats), ALL_PAGES, "{stats:?}"))
}

fn round_trip(codec: &Qpl, polls: usize, dropped: &mut usize) -> [MethodStats; 2] {
    let (mut sender, mut receiver) = (sender(codec), receiver(codec));
    let counters = [sender.counters(), receiver.counters()];
    for pages in [packet(), other(), packet()] {
        let (from, to) = (Packet::of(&pages), Packet::of(&vec![0xee; pages.len()]));
        let (payload, sends) = dropping(polls, async || from.send(&mut *sender).await);
        let payload = payload.unwrap();
        let (received, recvs) = dropping(polls, async || receiver.recv(&payload, to.guest()).await);
        received.unwrap();
        assert!(to.in_guest() == pages, "dropped after {polls} polls");
        *dropped += sends + recvs;
    }
    block_on(sender.send_cleanup()).unwrap();
    block_on(receiver.recv_cleanup()).unwrap();
    counters.map(|counters| counters.snapshot())
}

/// Pages in all that a round trip has to do.
const ALL_PAGES: u64 = 2 * PAGES as u64 + 50;

/// The pages that are counted.
fn pages(stats: &MethodStats) -> u64 {
    stats.iter().filter(|(name, _)| name.contains("pages")).map(|(_, count)| count).sum()
}

/// Begins to send a packet, with jobs on the devices, and gives it up.
fn begin_and_give_up(method: &mut dyn SendMethod, waker: &Waker) -> Packet {
    let packet = Packet::of(&packet());
    let polled = polled(packet.send(method), 1, waker);
    assert!(polled.is_pending(), "the devices are slow");
    packet
}

/// The addresses of a payload's parts, but for the lengths at its start.
fn addresses(packet: &Packet, payload: &Payload) -> Vec<usize> {
    let parts = payload.parts(&packet.normal()).skip(1);
    let address = |part| match part {
        Part::Bytes(bytes) => bytes.as_ptr().addr(),
        Part::Guest(_) => panic!("pages in the guest are not sent"),
    };
    parts.map(address).collect()
}

simulated! {
    calls_that_are_dropped_at_their_awaits_go_on_and_each_page_is_done_once(COMPRESS_LATENCY = "20ms", DECOMPRESS_LATENCY = "20ms") {
        for stats in round_trips(&on(Path::Hardware)) {
            assert_eq!(count(&stats, "hardware pages"), ALL_PAGES, "{stats:?}");
        }
    }

    calls_that_are_dropped_go_on_while_devices_fail(
        COMPRESS_LATENCY = "20ms", DECOMPRESS_LATENCY = "20ms", PAGE_FAULT = "0.2",
        PAGE_FAULT_AGAIN = "1", ERROR = "0.1", WRONG_OUTPUT_SIZE = "0.1", QUEUE_FULL = "0.7"
    ) {
        for stats in round_trips(&on(Path::Hardware)) {
            let busy = count(&stats, "software pages (busy)");
            assert!(count(&stats, "hardware pages") > 0 && busy > 0, "{stats:?}");
        }
    }

    calls_that_are_dropped_go_on_and_give_hanging_devices_up(COMPRESS_LATENCY = "1ms", DECOMPRESS_LATENCY = "1ms", NO_COMPLETION = "0.1") {
        for stats in round_trips(&Qpl::new(IMPATIENT)) {
            assert!(count(&stats, "software pages (fault)") > 0, "{stats:?}");
        }
    }

    a_packet_after_one_that_was_dropped_at_any_await_is_what_it_is_on_a_new_channel(
        COMPRESS_LATENCY = "1ms", DECOMPRESS_LATENCY = "1ms"
    ) {
        let codec = on(Path::Hardware);
        // One with fewer pages than the first, and one with as many.
        let others = [other(), packet().into_iter().rev().collect()];
        let others = others.map(|pages| (payload_of(&codec, &pages), Packet::of(&pages)));
        let (first, payload) = (Packet::of(&packet()), payload_of(&codec, &packet()));
        let (mut sender, mut receiver) = (sender(&codec), receiver(&codec));
        let mut dropped = [0; 2];
        for (polls, (other_payload, other)) in (1..40).zip(others.iter().cycle()) {
            let sent = polled(first.send(&mut *sender), polls, Waker::noop());
            dropped[0] += usize::from(sent.is_pending());
            assert!(block_on(other.send(&mut *sender)).unwrap() == *other_payload, "{polls}");
            let received = receiver.recv(&payload, first.guest());
            let received = polled(received, polls, Waker::noop());
            dropped[1] += usize::from(received.is_pending());
            block_on(receiver.recv(other_payload, other.guest())).unwrap();
            assert!(other.in_guest() == other.private.as_slice(), "{polls}");
        }
        assert!(dropped.iter().all(|&dropped| dropped > 0), "{dropped:?}");
    }

    the_time_between_a_dropped_call_and_the_next_is_not_the_devices(COMPRESS_LATENCY = "20ms", DECOMPRESS_LATENCY = "20ms") {
        let mut method = sender(&Qpl::new(IMPATIENT));
        let counters = method.counters();
        let first = begin_and_give_up(&mut *method, Waker::noop());
        thread::sleep(IMPATIENT.timeout + Duration::from_millis(50));
        for packet in [first, Packet::of(&other())] {
            block_on(packet.send(&mut *method)).unwrap();
        }
        let stats = counters.snapshot();
        assert_eq!(count(&stats, "hardware pages"), PAGES as u64 + 50, "{stats:?}");
    }

    a_packet_that_was_dropped_comes_back_into_other_pages(COMPRESS_LATENCY = "1ms", DECOMPRESS_LATENCY = "1ms") {
        // The same payload again is gone on with, and all of it is written to where it is to go.
        let codec = on(Path::Hardware);
        let (payload, mut receiver) = (payload_of(&codec, &packet()), receiver(&codec));
        let [to, other] = [0xee, 0xdd].map(|byte| Packet::of(&vec![byte; packet().len()]));
        for polls in 1..40 {
            _ = polled(receiver.recv(&payload, to.guest()), polls, Waker::noop());
        }
        block_on(receiver.recv(&payload, other.guest())).unwrap();
        assert!(other.in_guest() == packet());
    }

    what_a_device_reads_is_held_until_it_has_let_go(COMPRESS_LATENCY = "200ms", DECOMPRESS_LATENCY = "200ms") {
        let mut goes_on = sender(&on(Path::Hardware));
        let mut packet = begin_and_give_up(&mut *goes_on, Waker::noop());
        assert!(packet.private.get_mut().is_none(), "a device reads it");
        block_on(goes_on.send_cleanup()).unwrap();
        assert!(packet.private.get_mut().is_some(), "no device reads it");
        let mut dropped = sender(&on(Path::Hardware));
        let mut packet = begin_and_give_up(&mut *dropped, Waker::noop());
        drop(dropped);
        assert!(packet.private.get_mut().is_none(), "a device may still read it");
    }

    what_a_device_that_hangs_reads_is_held_for_ever(NO_COMPLETION = "1") {
        let (mut method, mut packet) = (sender(&Qpl::new(IMPATIENT)), Packet::of(&packet()));
        block_on(packet.send(&mut *method)).unwrap();
        assert!(packet.private.get_mut().is_none(), "a device may still read it");
        block_on(method.send_cleanup()).unwrap();
        assert!(packet.private.get_mut().is_none(), "a device may still read it");
    }

    what_was_given_up_half_way_and_failed_is_set_up_anew(COMPRESS_LATENCY = "200ms", DECOMPRESS_LATENCY = "200ms", PAGE_FAULT = "0.5", PAGE_FAULT_AGAIN = "1") {
        let mut method = sender(&on(Path::Hardware));
        let counters = method.counters();
        begin_and_give_up(&mut *method, Waker::noop());
        // The simulation ends the process where a job that failed is used as it is.
        block_on(Packet::of(&packet()).send(&mut *method)).unwrap();
        let stats = counters.snapshot();
        let [errors, faults] = ["hardware errors", "software pages (fault)"];
        assert!(count(&stats, errors) > count(&stats, faults), "{stats:?}");
    }

    a_panic_half_way_frees_nothing_that_a_device_works_on(COMPRESS_LATENCY = "200ms", DECOMPRESS_LATENCY = "200ms") {
        struct Panics;
        impl Wake for Panics {
            fn wake(self: Arc<Self>) {
                panic!("as intended");
            }
        }
        // The simulation ends the process where a job is finished that a device works on.
        let mut method = sender(&on(Path::Hardware));
        let waker = Waker::from(Arc::new(Panics));
        let sent = catch_unwind(AssertUnwindSafe(move || {
            begin_and_give_up(&mut *method, &waker);
        }));
        assert!(sent.is_err());
    }

    a_channel_that_is_dropped_leaves_jobs_that_take_long_to_their_devices(COMPRESS_LATENCY = "60s", DECOMPRESS_LATENCY = "60s") {
        let log = Log::default();
        let mut method = sender(&on(Path::Hardware));
        begin_and_give_up(&mut *method, Waker::noop());
        let started = Instant::now();
        log.while_doing(|| drop(method));
        assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
        assert_eq!(log.times("an IAA has not ended 128 jobs"), 1);
    }

    a_channel_that_is_dropped_waits_for_jobs_that_are_nearly_done(COMPRESS_LATENCY = "8ms", DECOMPRESS_LATENCY = "8ms") {
        // A busy machine may let the grace pass by, though not every time.
        let waited = (0..50).any(|_| {
            let log = Log::default();
            let mut method = sender(&on(Path::Hardware));
            begin_and_give_up(&mut *method, Waker::noop());
            log.while_doing(|| drop(method));
            log.times("an IAA has not ended") == 0
        });
        assert!(waited);
    }

    a_chunk_is_sent_from_where_the_device_wrote_it_and_the_memory_is_used_again() {
        let (mut method, packet) = (sender(&on(Path::Hardware)), Packet::of(&packet()));
        let mut send = |payload: &mut Payload| {
            block_on(method.send_prepare(&packet.normal(), payload)).unwrap();
            addresses(&packet, payload)
        };
        let (mut first, mut second) = (Payload::new(), Payload::new());
        let sent = send(&mut first);
        assert_eq!(sent.len(), PAGES);
        assert!(sent.iter().all(|address| address % PAGE_BYTES == 0), "memory of a slot's own");
        let before = packet.bytes(&first);
        let others = send(&mut second);
        assert!(others.iter().all(|address| !sent.contains(address)), "the first are held");
        assert!(packet.bytes(&first) == before && packet.bytes(&second) == before);
        second.clear();
        assert_eq!(send(&mut second), others, "nobody else holds them");
    }
}
