//! Measures the hardware path of QPL on simulated devices: what it costs itself, and whether it
//! keeps the devices at work.
//!
//! Each measurement has a process of its own, since the simulation is set up by the environment:
//! this program again, with an argument. `cargo bench -p multifd-benches --bench hardware`.
#![allow(clippy::print_stdout, reason = "the table is what this program is for")]

use std::env;
use std::process::Command;
use std::time::Instant;

use multifd_benches::{
    Destination, Guest, PACKET_PAGES, PAGE_BYTES, Packet, Payloads, Sender, mark_if_busy,
};
use multifd_core::MultiFdMethods;
use multifd_qpl::{Options, Path, Qpl};

/// Passes over the packets; the result is their median.
const REPETITIONS: usize = 9;

/// An engine's bytes of pages a second, where it is to be slow.
const SLOW: f64 = 50e6;

fn main() {
    let argument = env::args().nth(1).unwrap_or_default();
    match argument.as_str() {
        "own-cost" => own_cost(),
        "slow-engines" => slow_engines(),
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
