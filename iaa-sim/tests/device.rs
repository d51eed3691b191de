//! A device by its Rust face, with a clock that the test sets.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use iaa_sim::config::Config;
use iaa_sim::descriptor::Descriptor;
use iaa_sim::engine::Engine;
use iaa_sim::memory::{Memory, PageFault};
use iaa_sim::{Device, Step, Submission};
use iaa_timing::Speed;
use proptest::collection::vec;
use proptest::prelude::*;

const COMPRESS: u8 = 0x43;

/// Where the memory of a test is; nothing else exists.
const BASE: u64 = 0x10_0000;
const BYTES: usize = 0x10_0000;

struct Ram {
    bytes: Mutex<Vec<u8>>,
    /// Whether none of it is there yet.
    missing: AtomicBool,
}

impl Ram {
    fn new() -> Self {
        Self { bytes: Mutex::new(vec![0; BYTES]), missing: AtomicBool::new(false) }
    }

    fn range(&self, address: u64, bytes: usize) -> Result<std::ops::Range<usize>, PageFault> {
        if self.missing.load(Ordering::Acquire) {
            return Err(PageFault { address });
        }
        let begin = address.checked_sub(BASE).ok_or(PageFault { address })? as usize;
        let end = begin.checked_add(bytes).ok_or(PageFault { address })?;
        if end <= BYTES {
            Ok(begin..end)
        } else {
            Err(PageFault { address: address.max(BASE + BYTES as u64) })
        }
    }

    fn record(&self, index: u64) -> [u8; 64] {
        let mut record = [0; 64];
        self.read(BASE + 64 * index, &mut record).unwrap();
        record
    }

    /// The descriptors of which there are records, with their statuses.
    fn done(&self, indices: std::ops::Range<u64>) -> Vec<(u64, u8)> {
        let of = |index| (index, self.record(index)[0]);
        indices.map(of).filter(|(_, status)| *status != 0).collect()
    }
}

impl Memory for Ram {
    fn read(&self, address: u64, into: &mut [u8]) -> Result<(), PageFault> {
        into.copy_from_slice(&self.bytes.lock().unwrap()[self.range(address, into.len())?]);
        Ok(())
    }

    fn write(&self, address: u64, from: &[u8]) -> Result<(), PageFault> {
        self.bytes.lock().unwrap()[self.range(address, from.len())?].copy_from_slice(from);
        Ok(())
    }
}

/// Memory that several threads have.
#[derive(Clone)]
struct Shared(std::sync::Arc<Ram>);
impl Memory for Shared {
    fn read(&self, address: u64, into: &mut [u8]) -> Result<(), PageFault> {
        self.0.read(address, into)
    }
    fn write(&self, address: u64, from: &[u8]) -> Result<(), PageFault> {
        self.0.write(address, from)
    }
}

/// A device with its memory and what it needs to be stepped.
struct Scene {
    device: Device,
    ram: Ram,
    engine: Engine,
    /// Up to when it was played.
    now: u64,
}

impl Scene {
    fn new(toml: &str) -> Self {
        let config = Config::from_toml(toml).unwrap();
        Self { device: Device::new(&config, 0), ram: Ram::new(), engine: Engine::default(), now: 0 }
    }

    fn submit(&self, queue: usize, descriptor: &Descriptor, now: u64) -> Submission {
        self.device.submit(queue, descriptor, now)
    }

    /// Does all that is due at that time. Returns when there is something again.
    fn until_idle(&mut self, now: u64) -> Option<u64> {
        loop {
            if let Step::Idle(until) = self.device.step(now, &mut self.engine, &self.ram) {
                return until;
            }
        }
    }

    /// Lets time pass from one thing that is due to the next. Returns the order in which the records of
    /// `count` descriptors came, and when.
    fn play(&mut self, count: u64) -> Vec<(u64, u64)> {
        let mut seen = Vec::new();
        self.play_until(u64::MAX, count, &mut seen);
        seen
    }

    /// The same, up to a time, and with what was seen before.
    fn play_until(&mut self, end: u64, count: u64, seen: &mut Vec<(u64, u64)>) {
        loop {
            let next = self.until_idle(self.now);
            for (index, _) in self.ram.done(0..count) {
                if seen.iter().all(|(before, _)| *before != index) {
                    seen.push((index, self.now));
                }
            }
            match next {
                Some(time) if time <= end => self.now = time,
                _ => break,
            }
        }
        self.now = if end == u64::MAX { self.now } else { end };
    }
}

/// A descriptor of 4096 bytes that are not there, with the record of that index.
fn descriptor(opcode: u8, index: u64) -> Descriptor {
    let mut bytes = [0; 64];
    // The record's address is valid, and it is wanted.
    bytes[4] = 0x0c;
    bytes[7] = opcode;
    for (at, value) in
        [(8, BASE + 64 * index), (16, 0x9000_0000), (24, 0x9100_0000), (40, 0x9200_0000)]
    {
        bytes[at..at + 8].copy_from_slice(&u64::to_le_bytes(value));
    }
    for (at, value) in [(32, 4096), (48, 4096), (52, 1568)] {
        bytes[at..at + 4].copy_from_slice(&u32::to_le_bytes(value));
    }
    Descriptor(bytes)
}

const TIMED: &str = "jitter = 0\ncompress_latency = 1000\ncompress_throughput = \"1G\"\n";

#[test]
fn a_queue_holds_its_depth_until_an_engine_takes_and_no_more() {
    for depth in [1, 3, 128] {
        let mut scene = Scene::new(&format!("{TIMED}engines = 1\nqueue_depths = {depth}"));
        let accepted = (0..1000)
            .take_while(|&index| {
                scene.submit(0, &descriptor(COMPRESS, index), 0) == Submission::Accepted
            })
            .count();
        assert_eq!(accepted, depth);
        // The engine takes one, and is busy with it.
        assert_eq!(scene.until_idle(0), Some(4096));
        assert_eq!(scene.submit(0, &descriptor(COMPRESS, 999), 1), Submission::Accepted);
        assert_eq!(scene.submit(0, &descriptor(COMPRESS, 999), 1), Submission::Full);
        assert_eq!(scene.device.counters().refused_full.get(), 2);
    }
}

#[test]
fn engines_work_side_by_side_and_one_descriptor_after_the_other() {
    let mut scene = Scene::new(&format!("{TIMED}engines = 2"));
    for index in 0..4 {
        scene.submit(0, &descriptor(COMPRESS, index), 0);
    }
    assert_eq!(scene.play(4), [(0, 5096), (1, 5096), (2, 9192), (3, 9192)]);
}

proptest! {
    /// Planning has no bytes and asks the model alone.
    #[test]
    fn a_device_accepts_and_ends_what_the_model_of_its_time_says(
        engines in 1..5_usize,
        depth in 1..6_usize,
        waits in vec(0..6000_u64, 1..200),
    ) {
        let mut scene = Scene::new(&format!("{TIMED}engines = {engines}\nqueue_depths = {depth}"));
        let page = Speed { latency: 1000, throughput: 1_000_000_000 }.time_of(4096, 1.0);
        let mut model = iaa_timing::Device::new(engines, depth);
        let (mut now, mut expected, mut ended) = (0, Vec::new(), Vec::new());
        for (index, wait) in (0..).zip(waits) {
            scene.play_until(now + wait, index, &mut ended);
            now += wait;
            let done = model.submit(now, page);
            let submission = scene.submit(0, &descriptor(COMPRESS, index), now);
            assert_eq!(submission == Submission::Accepted, done.is_some(), "{index} at {now}");
            expected.extend(done.map(|done| (index, done)));
        }
        scene.play_until(u64::MAX, 200, &mut ended);
        ended.sort_unstable();
        assert_eq!(ended, expected);
    }
}

#[test]
fn what_a_thread_comes_too_late_does_not_add_up() {
    let mut scene = Scene::new(&format!("{TIMED}engines = 1"));
    for index in 0..3 {
        scene.submit(0, &descriptor(COMPRESS, index), 0);
    }
    scene.until_idle(0);
    // Much too late for the second, which so has long been done; the third is due at 3 times 4096.
    assert_eq!(scene.until_idle(11_000), Some(12_288));
    assert_eq!(scene.ram.done(0..3).len(), 2);
    assert_eq!(scene.until_idle(12_288), Some(13_288));
    assert_eq!(scene.until_idle(13_288), None);
    assert_eq!(scene.ram.done(0..3).len(), 3);
}

#[test]
fn an_engine_takes_from_the_highest_priority_and_in_turn_from_the_same() {
    let queues = "queues = 3\nqueue_priorities = [5, 9, 5]";
    let mut scene = Scene::new(&format!("{TIMED}engines = 1\n{queues}"));
    for index in 0..6 {
        // Queues 0, 2, 1 by turns.
        let queue = [0, 2, 1][index as usize % 3];
        assert_eq!(scene.submit(queue, &descriptor(COMPRESS, index), 0), Submission::Accepted);
    }
    let order: Vec<_> = scene.play(6).into_iter().map(|(index, _)| index).collect();
    assert_eq!(order, [2, 5, 0, 1, 3, 4]);
}

#[test]
fn completions_come_out_of_order_where_one_takes_longer() {
    let mut scene = Scene::new(&format!("{TIMED}engines = 4\nslow = 0.5\nslow_factor = 3"));
    for index in 0..4 {
        scene.submit(0, &descriptor(COMPRESS, index), 0);
    }
    let slow = scene.play(4);
    assert!(slow.iter().all(|&(_, at)| at == 5096 || at == 3 * 5096), "{slow:?}");
    assert!(!slow.is_sorted(), "{slow:?}: of this seed, one of the first is slow");
    assert!((1..4).contains(&scene.device.counters().faults_slow.get()));
}

#[test]
fn a_backlog_is_served_at_the_configured_throughput_whatever_the_jitter() {
    let timed = TIMED.replace("jitter = 0", "jitter = 0.5");
    let mut scene = Scene::new(&format!("{timed}engines = 2"));
    let (mut now, mut submitted) = (0, 0);
    while submitted < 4000 {
        while submitted < 4000
            && scene.submit(0, &descriptor(COMPRESS, submitted % 1000), now) == Submission::Accepted
        {
            submitted += 1;
        }
        now = scene.until_idle(now).unwrap();
    }
    while let Some(next) = scene.until_idle(now) {
        now = next;
    }
    let exact = 4000.0 * 4096.0 / 2.0;
    assert!((now as f64 / exact - 1.0).abs() < 0.002, "{now} ns in place of {exact}");
    assert_eq!(scene.device.counters().completed.get(), 4000);
}

#[test]
fn no_operations_complete_whatever_else_goes_wrong() {
    let all = ["queue_full", "page_fault", "error", "no_completion", "wrong_output_size", "slow"];
    let toml: String = all.iter().map(|key| format!("{key} = 1\n")).collect();
    let mut scene = Scene::new(&format!("{toml}reset_at = 0\nqueue_disabled_at = 0"));
    for index in 0..10 {
        assert_eq!(scene.submit(0, &descriptor(0, index), 0), Submission::Accepted);
    }
    scene.until_idle(0);
    assert_eq!(scene.ram.done(0..10), (0..10).map(|index| (index, 1)).collect::<Vec<_>>());
    let counters = scene.device.counters();
    assert_eq!((counters.no_operations.get(), counters.accepted.get()), (10, 0));
}

#[test]
fn a_full_queue_by_a_fault_refuses_the_submissions_that_the_seed_says() {
    let refused = |seed: u64| {
        let scene = Scene::new(&format!("seed = {seed}\nqueue_full = 0.5"));
        let submit = |index| scene.submit(0, &descriptor(COMPRESS, index), 0);
        (0..100).map(|index| submit(index) == Submission::Full).collect::<Vec<_>>()
    };
    let first = refused(1);
    assert_eq!(first, refused(1));
    assert_ne!(first, refused(2));
    let count = first.iter().filter(|refused| **refused).count();
    assert!((30..70).contains(&count), "{count} of 100 at 0.5");
}

#[test]
fn a_page_fault_has_its_address_and_happens_once() {
    let mut scene = Scene::new("page_fault = 1\npage_fault_on = \"destination\"");
    scene.submit(0, &descriptor(COMPRESS, 0), 0);
    scene.until_idle(0);
    let record = scene.ram.record(0);
    assert_eq!(record[..3], [0x83, 0, 1]);
    let address = u64::from_le_bytes(record[8..16].try_into().unwrap());
    assert!((0x9100_0000..0x9100_1000).contains(&address), "{address:x}");
    assert_eq!(scene.device.counters().faults_page.get(), 1);
    scene.submit(0, &descriptor(COMPRESS, 0), 0);
    scene.until_idle(0);
    let counters = scene.device.counters();
    assert_eq!((counters.faults_page.get(), counters.completed.get()), (1, 2));
}

#[test]
fn with_block_on_fault_an_injected_page_fault_takes_time_and_is_no_status() {
    let mut scene = Scene::new(&format!(
        "{TIMED}block_on_fault = true\nblock_limit = 0\npage_fault = 1\nblock_time = \"7us\""
    ));
    let mut blocking = descriptor(COMPRESS, 0);
    blocking.0[4] |= 2;
    scene.submit(0, &blocking, 0);
    assert_eq!(scene.play(1), [(0, 12_096)]);
    assert_eq!(scene.device.counters().faults_page.get(), 1);
    assert_eq!(scene.device.counters().blocked.get(), 1);
}

#[test]
fn a_record_is_waited_for_with_block_on_fault_alone_and_up_to_the_limit() {
    for (block, blocked) in [(true, 5), (false, 0)] {
        let mut scene =
            Scene::new(&format!("block_on_fault = {block}\nblock_time = 10\nblock_limit = 50"));
        let mut nowhere = descriptor(0, 0);
        nowhere.0[4] |= 2;
        nowhere.0[8..16].copy_from_slice(&0x40_u64.to_le_bytes());
        scene.submit(0, &nowhere, 0);
        scene.play(0);
        let counters = scene.device.counters();
        assert_eq!((counters.blocked.get(), counters.records_lost.get()), (blocked, 1), "{block}");
    }
}

#[test]
fn an_engine_that_waits_for_memory_goes_on_when_it_is_there() {
    let mut scene = Scene::new("block_on_fault = true\nblock_time = 10");
    let mut blocking = descriptor(0, 0);
    blocking.0[4] |= 2;
    scene.ram.missing.store(true, Ordering::Release);
    scene.submit(0, &blocking, 0);
    assert_eq!(scene.until_idle(0), Some(10));
    assert_eq!(scene.until_idle(10), Some(20));
    scene.ram.missing.store(false, Ordering::Release);
    assert_eq!(scene.until_idle(20), None);
    assert_eq!(scene.ram.done(0..1), [(0, 1)]);
    let counters = scene.device.counters();
    assert_eq!((counters.blocked.get(), counters.records_lost.get()), (2, 0));
}

#[test]
fn errors_are_those_that_were_chosen() {
    let mut scene = Scene::new("error = 1\nerror_status = \"0x0a:17\"");
    scene.submit(0, &descriptor(COMPRESS, 0), 0);
    scene.until_idle(0);
    assert_eq!(scene.ram.record(0)[..2], [0x0a, 17]);
    assert_eq!(scene.device.counters().faults_error.get(), 1);
}

#[test]
fn without_a_completion_the_engine_is_free_all_the_same() {
    let mut scene = Scene::new(&format!("{TIMED}engines = 1\nno_completion = 1"));
    for index in 0..3 {
        scene.submit(0, &descriptor(COMPRESS, index), 0);
    }
    assert_eq!(scene.play(3), []);
    assert_eq!(scene.device.counters().faults_no_completion.get(), 3);
}

#[test]
fn a_reset_loses_what_is_not_completed_and_all_that_comes_after() {
    let mut scene = Scene::new(&format!("{TIMED}engines = 1\nreset_at = 3"));
    for index in 0..3 {
        scene.submit(0, &descriptor(COMPRESS, index), 0);
    }
    assert_eq!(scene.until_idle(0), Some(4096));
    assert_eq!(scene.until_idle(5096), Some(8192));
    assert_eq!(scene.ram.done(0..3).len(), 1);
    assert_eq!(scene.submit(0, &descriptor(COMPRESS, 3), 5096), Submission::Disabled);
    assert_eq!(scene.submit(0, &descriptor(0, 4), 5096), Submission::Disabled);
    assert_eq!(scene.until_idle(1 << 40), None);
    assert_eq!(scene.ram.done(0..5).len(), 1);
    let counters = scene.device.counters();
    assert_eq!((counters.resets.get(), counters.lost_by_reset.get()), (1, 2));
}

#[test]
fn a_disabled_queue_does_what_it_has_and_takes_nothing_more() {
    let mut scene = Scene::new("queues = 2\nqueue_disabled_at = 2");
    for index in 0..2 {
        assert_eq!(scene.submit(0, &descriptor(COMPRESS, index), 0), Submission::Accepted);
    }
    for index in 2..5 {
        assert_eq!(scene.submit(0, &descriptor(COMPRESS, index), 0), Submission::Disabled);
    }
    // The other one is disabled by the next number that it gets, and so serves no-operations until then.
    assert_eq!(scene.submit(1, &descriptor(0, 5), 0), Submission::Accepted);
    scene.until_idle(0);
    let done: Vec<_> = scene.ram.done(0..10).into_iter().map(|(index, _)| index).collect();
    assert_eq!(done, [0, 1, 5]);
}

#[test]
fn a_record_that_is_not_wanted_is_not_written_of_a_success() {
    let mut scene = Scene::new("");
    for (index, flags, written) in [(0, 0x0c, true), (1, 0x04, false), (2, 0x08, false)] {
        let mut no_operation = descriptor(0, index);
        no_operation.0[4] = flags;
        scene.submit(0, &no_operation, 0);
        scene.until_idle(0);
        assert_eq!(!scene.ram.done(index..index + 1).is_empty(), written, "{flags:x}");
    }
}

#[test]
fn threads_serve_what_is_submitted_and_end_with_the_devices() {
    let ram = Shared(std::sync::Arc::new(Ram::new()));
    let config = Config::from_toml("devices = 2\ncompress_latency = \"1ms\"").unwrap();
    let devices = iaa_sim::Devices::start(&config, &ram).unwrap();
    for index in 0..200 {
        let device = index as usize % 2;
        while devices.submit(device, 0, &descriptor(COMPRESS, index)) == Submission::Full {
            std::thread::yield_now();
        }
    }
    let began = std::time::Instant::now();
    while ram.0.done(0..200).len() < 200 {
        assert!(began.elapsed().as_secs() < 60, "{:?}", ram.0.done(0..200).len());
        std::thread::yield_now();
    }
    assert_eq!(devices.submit(2, 0, &descriptor(COMPRESS, 0)), Submission::Disabled);
    drop(devices);
    assert_eq!(std::sync::Arc::strong_count(&ram.0), 1, "no thread has it any more");
}

#[test]
fn a_page_fault_happens_once_whatever_device_the_descriptor_comes_to_then() {
    let ram = Shared(std::sync::Arc::new(Ram::new()));
    let config = Config::from_toml("devices = 2\npage_fault = 1\nerror = 1").unwrap();
    let devices = iaa_sim::Devices::start(&config, &ram).unwrap();
    for device in [0, 1] {
        assert_eq!(devices.submit(device, 0, &descriptor(COMPRESS, 0)), Submission::Accepted);
        let began = std::time::Instant::now();
        while devices.devices()[device].counters().completed.get() == 0 {
            assert!(began.elapsed().as_secs() < 60, "no record");
            std::thread::yield_now();
        }
    }
    let faults = devices.devices().iter().map(|device| device.counters().faults_page.get());
    assert_eq!(faults.collect::<Vec<_>>(), [1, 0]);
}
