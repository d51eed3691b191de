//! Measures the hardware path of QPL on simulated devices: what it costs itself, and whether it
//! keeps the devices at work.
//!
//! Each measurement has a process of its own, since the simulation is set up by the environment:
//! this program again, with an argument. `cargo bench -p multifd-benches --bench hardware`.
//!
//! `libqpl` as the argument measures what a page costs over the real libqpl, beside libqpl's own part of it:
//!
//! ```sh
//! IAA_SIM_COMPRESS_LATENCY=5ms IAA_SIM_DECOMPRESS_LATENCY=5ms \
//!     scripts/iaa -- cargo bench -p multifd-benches --bench hardware -- libqpl
//! ```
#![allow(clippy::print_stdout, reason = "the table is what this program is for")]

use std::env;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use multifd_benches::bare::device::{Jobs, WrittenQueue};
use multifd_benches::{
    Destination, Guest, PACKET_PAGES, PAGE_BYTES, Packet, Payloads, Sender, cpu_time, mark_if_busy,
};
use multifd_core::MultiFdMethods;
use multifd_core::codec::{Chunk, Chunks};
use multifd_qpl::{Options, Path, Qpl};
use qpl_sys::Operation;

/// Passes over the packets; the result is their median.
const REPETITIONS: usize = 9;

/// An engine's bytes of pages a second, where it is to be slow.
const SLOW: f64 = 50e6;

fn main() {
    let argument = env::args().nth(1).unwrap_or_default();
    match argument.as_str() {
        "own-cost" => own_cost(),
        "slow-engines" => slow_engines(),
        "libqpl" => libqpl(),
        _ => {
            mark_if_busy();
            println!("{:<40} {:>10} {:>10}", "", "measured", "target");
            simulated("own-cost", &[("QPL_SIM_AT_ONCE", "1")]);
            for engines in ["1", "2"] {
                let settings = [
                    ("IAA_SIM_ENGINES", engines),
                    ("IAA_SIM_COMPRESS_THROUGHPUT", "50M"),
                    ("IAA_SIM_DECOMPRESS_THROUGHPUT", "50M"),
                    ("IAA_SIM_JITTER", "0"),
                ];
                simulated("slow-engines", &settings);
            }
        }
    }
}

/// Runs this program with a simulated IAA.
fn simulated(measurement: &str, settings: &[(&str, &str)]) {
    let program = env::args_os().next().expect("a program has a name");
    let library = qpl_sim::library_file().expect("the simulation was built");
    let mut child = Command::new(program);
    child.arg(measurement).env("QPL_LIBRARY", library);
    let status =
        child.envs(settings.iter().copied()).status().expect("this program can be run again");
    assert!(status.success(), "{measurement} failed");
}

/// What a page costs where the devices answer at once: pages of one repeated byte.
fn own_cost() {
    let codec = Qpl::new(Options::new(Path::Hardware));
    let page = |page: usize| [page as u8 | 1; PAGE_BYTES];
    let bytes = (0..64 * PACKET_PAGES).flat_map(page).collect();
    let guest = Guest::new("pages of one repeated byte".to_owned(), bytes);
    let packets = guest.packets();
    let mut sender = Sender::new(&codec);
    let send = per_page(&packets, |packets| _ = sender.send(packets));
    println!("{:<40} {send:>7.2} µs {:>7.2} µs", "send_prepare, a page", 1.3);
    let payloads = Payloads::of(&codec, &packets);
    let destination = Destination::new(&codec, &packets, &payloads);
    let mut receiver = destination.open();
    let mut turn = 0;
    let recv = per_page(&packets, |packets| {
        receiver.receive(turn..turn + packets.len());
        turn = (turn + packets.len()) % 64;
    });
    destination.check(&packets);
    println!("{:<40} {recv:>7.2} µs {:>7.2} µs", "recv, a page", 1.3);
}

/// Microseconds a page.
fn per_page(packets: &[Packet<'_>], mut work: impl FnMut(&[Packet<'_>])) -> f64 {
    let pages = (packets.len() * PACKET_PAGES) as f64;
    median(|| work(packets)) / pages * 1e6
}

/// How much of what the engines can do is done.
fn slow_engines() {
    let engines: f64 =
        env::var("IAA_SIM_ENGINES").ok().and_then(|it| it.parse().ok()).unwrap_or(8.0);
    let codec = Qpl::new(Options::new(Path::Hardware));
    let guest = Guest::load();
    let packets = guest.packets();
    let packets = &packets[..packets.len().min(32)];
    let bytes = (packets.len() * PACKET_PAGES * PAGE_BYTES) as f64;
    let share = |seconds: f64| bytes / seconds / (engines * SLOW);
    let mut sender = Sender::new(&codec);
    let send = share(median(|| _ = sender.send(packets)));
    println!(
        "{:<40} {send:>10.2} {:>10.2}",
        format!("send_prepare, {engines} engines at 50 MB/s"),
        0.9
    );
    recv_share(&codec, packets, engines, share);
}

fn recv_share(
    codec: &dyn MultiFdMethods,
    packets: &[Packet<'_>],
    engines: f64,
    share: impl Fn(f64) -> f64,
) {
    let payloads = Payloads::of(&Qpl::new(Options::new(Path::Portable)), packets);
    let destination = Destination::new(codec, packets, &payloads);
    let recv = share(median(|| destination.open().receive(0..packets.len())));
    destination.check(packets);
    println!("{:<40} {recv:>10.2} {:>10.2}", format!("recv, {engines} engines at 50 MB/s"), 0.9);
}

/// CPU time of a channel's thread over libqpl, a page: ours, and that of libqpl with the same jobs.
fn libqpl() {
    mark_if_busy();
    for name in ["IAA_SIM_COMPRESS_LATENCY", "IAA_SIM_DECOMPRESS_LATENCY"] {
        // Else jobs end while others are submitted, and the two parts are not told apart.
        assert!(env::var_os(name).is_some(), "{name} must be set: see the head of this program");
    }
    let guest = Guest::load();
    let packets = guest.packets();
    let packets = &packets[..packets.len().min(8)];
    let mut jobs = Jobs::open().unwrap_or_else(|why| panic!("{why}: scripts/iaa sets it up"));
    println!("{}, {} packets of {PACKET_PAGES} pages", guest.origin(), packets.len());
    println!("{:<40} {:>8} {:>8} {:>8}", "ns a page", "submit", "collect", "both");
    let codec = Qpl::new(Options::new(Path::Hardware));
    sent_over_libqpl(&codec, packets, &mut jobs);
    received_over_libqpl(&codec, packets, &mut jobs);
    if let Some(mut queue) = WrittenQueue::find() {
        let Parts([write, _]) = Parts::median(packets.len(), |_| {
            let submit = cpu_time(|| queue.submit());
            queue.check();
            Some([submit, Duration::ZERO])
        });
        println!("{:<40} {write:>8.0}", "a descriptor's write, without libqpl");
    }
}

fn sent_over_libqpl(codec: &Qpl, packets: &[Packet<'_>], jobs: &mut Jobs) {
    let (mut sender, mut copied) = (Sender::new(codec), 0);
    let ours = Parts::median(packets.len(), |at| {
        let parts = sender.send_around(&packets[at], pause);
        copied = copied.max(sender.copied(&packets[at]));
        parts
    });
    let bare = Parts::median(packets.len(), |at| {
        jobs.load(Operation::Compress, packets[at].private.chunks_exact(PAGE_BYTES));
        of_jobs(jobs)
    });
    ours.print_beside(&bare, "send_prepare");
    let copied = copied as f64 / PACKET_PAGES as f64;
    println!("  bytes copied, beside the private copy {copied:>28.0}");
}

fn received_over_libqpl(codec: &Qpl, packets: &[Packet<'_>], jobs: &mut Jobs) {
    let payloads = Payloads::of(codec, packets);
    let destination = Destination::new(codec, packets, &payloads);
    let mut receiver = destination.open();
    let ours = Parts::median(packets.len(), |at| receiver.receive_around(at, pause));
    destination.check(packets);
    let compressed = |at| {
        let chunks = Chunks::parse(payloads.get(at), PACKET_PAGES, multifd_benches::PAGE_SIZE);
        chunks.expect("the payload is valid").filter_map(|chunk| match chunk {
            Chunk::Compressed(chunk) => Some(chunk),
            Chunk::Raw(_) => None,
        })
    };
    let bare = Parts::median(packets.len(), |at| {
        jobs.load(Operation::Decompress, compressed(at));
        of_jobs(jobs)
    });
    ours.print_beside(&bare, "recv");
    let chunks: usize = (0..packets.len()).flat_map(compressed).map(<[u8]>::len).sum();
    let chunks = chunks as f64 / (packets.len() * PACKET_PAGES) as f64;
    println!("  bytes copied: chunk in, page out {:>33.0}", chunks + PAGE_BYTES as f64);
}

/// CPU time of a packet's jobs: to submit, and once all have ended to check.
fn of_jobs(jobs: &mut Jobs) -> Option<[Duration; 2]> {
    let submit = cpu_time(|| jobs.submit());
    pause();
    let mut had_ended = false;
    let check = cpu_time(|| had_ended = jobs.check());
    had_ended.then_some([submit, check])
}

/// Waits until the devices are done with a packet, in another thread's time.
fn pause() {
    thread::sleep(Duration::from_millis(20));
}

/// CPU time of a page to submit and to collect, in nanoseconds.
struct Parts([f64; 2]);

impl Parts {
    /// The medians over some passes over so many packets, without those that the devices were not done with
    /// in time: there, polling would count.
    ///
    /// # Panics
    /// Where those are more than half: the machine is busy.
    fn median(packets: usize, mut packet: impl FnMut(usize) -> Option<[Duration; 2]>) -> Self {
        let passes = packets * REPETITIONS;
        let samples: Vec<_> = (0..passes).filter_map(|pass| packet(pass % packets)).collect();
        let all = samples.len();
        assert!(all > passes / 2, "the devices were done in time with {all} of {passes} packets");
        Self([0, 1].map(|part| {
            let mut times: Vec<_> = samples.iter().map(|sample| sample[part]).collect();
            times.sort();
            times[times.len() / 2].as_nanos() as f64 / PACKET_PAGES as f64
        }))
    }

    fn print(&self, name: &str) {
        let Self([submit, collect]) = *self;
        println!("{name:<40} {submit:>8.0} {collect:>8.0} {:>8.0}", submit + collect);
    }

    /// Prints it, what libqpl takes of it, and what is left.
    fn print_beside(&self, libqpl: &Self, name: &str) {
        self.print(name);
        libqpl.print("  libqpl alone, the same jobs");
        Self([0, 1].map(|part| self.0[part] - libqpl.0[part])).print("  ours");
    }
}

/// The median time of some passes, in seconds.
fn median(mut pass: impl FnMut()) -> f64 {
    let mut times: Vec<_> = (0..REPETITIONS)
        .map(|_| {
            let started = Instant::now();
            pass();
            started.elapsed().as_secs_f64()
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[REPETITIONS / 2]
}
