//! Measures whether the framework keeps what it promises beside the bare libraries.
//!
//! Everything is measured in one run, over all non-zero pages of the guest's memory. The two sides
//! take turns every few packets, so that what else the machine does slows both. The figures are
//! medians over the repetitions, 5 or as many as the argument says:
//! `cargo bench -p multifd-benches --bench targets -- 9`.
#![allow(clippy::print_stdout, reason = "the table is what this program is for")]

use std::cell::RefCell;
use std::hint::black_box;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use multifd_benches::bare::{self, Memory};
use multifd_benches::{
    Destination, Guest, PACKET_PAGES, PAGE_BYTES, PAGE_SIZE, Packet, Payloads, Sender, mark_if_busy,
};
use multifd_core::channel::{SendConfig, SendMachine, SendNext};
use multifd_core::ram::{PageBatch, copy_unless_zero};
use multifd_core::{Compression, MultiFdMethods, Registry};
use multifd_qpl::{Options, Path, Qpl};
use pollster::block_on;

fn main() {
    let repetitions = std::env::args().find_map(|arg| arg.parse().ok()).unwrap_or(5);
    let busy = mark_if_busy();
    let guest = Guest::load();
    let registry = Registry::collected().expect("no codec is registered twice");
    let codec = |method| &**registry.get(method).expect("the codec is linked");
    println!(
        "{}: {} non-zero pages, {} zero; {repetitions} repetitions; C zlib {}\n",
        guest.origin(),
        guest.normal().len(),
        guest.zero().len(),
        bare::zlib::version(),
    );
    println!("{:<36} {:>8} {:>8} {:>6} {:>7}", "MB/s", "multifd", "bare", "ratio", "target");
    let bench = Bench { packets: guest.packets(), guest: &guest, repetitions, busy };
    bench.zlib(codec(Compression::Zlib));
    bench.zstd(codec(Compression::Zstd));
    bench.qpl();
    bench.copy("copy and scan, non-zero pages", guest.normal(), 0.5);
    bench.copy("copy and scan, zero pages", guest.zero(), 1.0);
}

struct Bench<'a> {
    guest: &'a Guest,
    packets: Vec<Packet<'a>>,
    repetitions: usize,
    busy: bool,
}

/// One side's work on the packets in a range. A pass over all packets begins with a new one.
type Pass<'a> = Box<dyn FnMut(Range<usize>) + 'a>;

impl Bench<'_> {
    fn zlib(&self, codec: &dyn MultiFdMethods) {
        let mut theirs = Payloads::default();
        bare::zlib::Compressor::new(1).compress(&self.packets, |payload| theirs.push(payload));
        let ours = Payloads::of(codec, &self.packets);
        let bare = || -> Pass<'_> {
            let mut compressor = bare::zlib::Compressor::new(1);
            Box::new(move |range| {
                compressor.compress(&self.packets[range], |payload| _ = black_box(payload));
            })
        };
        self.compare("zlib 1 compress", Some(2.4), || self.send(codec), bare);
        self.compare("  with copy and zero scan", None, || self.send_all(codec), bare);
        self.print_sizes(&ours, &theirs);

        let memory = RefCell::new(Memory::new(self.guest));
        for (name, payloads, target) in
            [("zlib 1 decompress", &theirs, Some(1.7)), ("  the stream of multifd", &ours, None)]
        {
            let destination = Destination::new(codec, &self.packets, payloads);
            let bare = || -> Pass<'_> {
                let mut decompressor = bare::zlib::Decompressor::default();
                let memory = &memory;
                Box::new(move |range| {
                    for index in range {
                        let offsets = self.packets[index].guest.offsets();
                        let memory = &mut memory.borrow_mut();
                        decompressor.decompress(offsets, payloads.get(index), memory);
                    }
                })
            };
            self.compare(name, target, || receive(&destination), bare);
            destination.check(&self.packets);
            memory.borrow_mut().check(&self.packets);
        }
    }

    fn zstd(&self, codec: &dyn MultiFdMethods) {
        let mut theirs = Payloads::default();
        bare::zstd::Compressor::new(1).compress(&self.packets, |payload| theirs.push(payload));
        let ours = Payloads::of(codec, &self.packets);
        let bare = || -> Pass<'_> {
            let mut compressor = bare::zstd::Compressor::new(1);
            Box::new(move |range| {
                compressor.compress(&self.packets[range], |payload| _ = black_box(payload));
            })
        };
        self.compare("zstd 1 compress", Some(0.95), || self.send(codec), bare);
        self.compare("  with copy and zero scan", None, || self.send_all(codec), bare);
        self.print_sizes(&ours, &theirs);

        let memory = RefCell::new(Memory::new(self.guest));
        let destination = Destination::new(codec, &self.packets, &theirs);
        let bare = || -> Pass<'_> {
            let mut decompressor = bare::zstd::Decompressor::default();
            let (memory, theirs) = (&memory, &theirs);
            Box::new(move |range| {
                for index in range {
                    let offsets = self.packets[index].guest.offsets();
                    let memory = &mut memory.borrow_mut();
                    decompressor.decompress(offsets, theirs.get(index), memory);
                }
            })
        };
        self.compare("zstd 1 decompress", Some(0.95), || receive(&destination), bare);
        destination.check(&self.packets);
        memory.borrow_mut().check(&self.packets);
    }

    /// Each path beside bare libqpl in software.
    fn qpl(&self) {
        let mut bare = match bare::qpl::Qpl::open() {
            Ok(bare) => bare,
            Err(error) => return println!("qpl is left out: {error}"),
        };
        println!("libqpl {}", bare.version());
        let mut theirs = Payloads::default();
        bare.compress(&self.packets, |payload| theirs.push(payload));
        let bare = RefCell::new(bare);
        let compress = || -> Pass<'_> {
            Box::new(|range| {
                bare.borrow_mut().compress(&self.packets[range], |payload| _ = black_box(payload));
            })
        };
        let memory = RefCell::new(Memory::new(self.guest));
        for (name, path, targets) in [
            ("qpl software", Path::Software, [0.95, 0.95]),
            ("qpl portable", Path::Portable, [0.85, 0.7]),
        ] {
            let codec = Qpl::new(Options::new(path));
            let send = format!("{name} compress");
            self.compare(&send, Some(targets[0]), || self.send(&codec), compress);
            let ours = Payloads::of(&codec, &self.packets);
            self.print_sizes(&ours, &theirs);
            for (name, target, payloads) in [
                (format!("{name} decompress"), Some(targets[1]), &ours),
                ("  the stream of bare libqpl".to_owned(), None, &theirs),
            ] {
                let destination = Destination::new(&codec, &self.packets, payloads);
                // Bare libqpl takes its own stream: what is faster to decode counts, too.
                let bare = || -> Pass<'_> {
                    Box::new(|range| {
                        for index in range {
                            let offsets = self.packets[index].guest.offsets();
                            let memory = &mut memory.borrow_mut();
                            bare.borrow_mut().decompress(offsets, theirs.get(index), memory);
                        }
                    })
                };
                self.compare(&name, target, || receive(&destination), bare);
                destination.check(&self.packets);
                memory.borrow_mut().check(&self.packets);
            }
        }
    }

    fn copy(&self, name: &str, offsets: &[u64], target: f64) {
        let batches: Vec<_> = offsets.chunks_exact(PACKET_PAGES).collect();
        let batches = &batches;
        let scan = || -> Pass<'_> {
            let mut private = vec![0; PACKET_PAGES * PAGE_BYTES];
            Box::new(move |range| {
                for batch in &batches[range] {
                    let copies = private.chunks_exact_mut(PAGE_BYTES);
                    for (&offset, copy) in batch.iter().zip(copies) {
                        let page = self.guest.block().slice(offset, PAGE_BYTES);
                        black_box(copy_unless_zero(page, copy));
                    }
                }
            })
        };
        let memcpy = || -> Pass<'_> {
            let mut private = vec![0; PACKET_PAGES * PAGE_BYTES];
            Box::new(move |range| {
                for batch in &batches[range] {
                    let copies = private.chunks_exact_mut(PAGE_BYTES);
                    for (&offset, copy) in batch.iter().zip(copies) {
                        let page = &self.guest.bytes()[offset as usize..][..PAGE_BYTES];
                        copy.copy_from_slice(page);
                        black_box(copy);
                    }
                }
            })
        };
        self.compare_on(batches.len(), name, Some(target), scan, memcpy);
    }

    /// `send_prepare` alone, of pages whose private copies exist.
    fn send(&self, codec: &dyn MultiFdMethods) -> Pass<'_> {
        let mut sender = Sender::new(codec);
        Box::new(move |range| {
            black_box(sender.send(&self.packets[range]));
        })
    }

    /// All of a channel's work but for the stream: copy, scan, compress, header.
    fn send_all(&self, codec: &dyn MultiFdMethods) -> Pass<'_> {
        let config = codec.descriptor().config(0, PAGE_SIZE, None);
        let config = SendConfig::new(config.expect("the default level exists"));
        let batches: Vec<_> = self
            .packets
            .iter()
            .map(|packet| {
                let offsets = packet.guest.offsets().to_vec();
                PageBatch::new(Arc::clone(self.guest.block()), PAGE_SIZE, offsets)
                    .expect("the offsets are those of pages")
            })
            .collect();
        let channel = block_on(SendMachine::new(codec, config));
        let mut channel = channel.expect("the codec works here");
        let mut send = move |batch: PageBatch| -> Result<(), multifd_core::Error> {
            drain(&mut channel)?;
            channel.pages(batch)?;
            drain(&mut channel)
        };
        Box::new(move |range| {
            for batch in &batches[range] {
                send(batch.clone()).expect("the codec works");
            }
        })
    }

    fn compare<'a>(
        &'a self,
        name: &str,
        target: Option<f64>,
        ours: impl Fn() -> Pass<'a>,
        bare: impl Fn() -> Pass<'a>,
    ) {
        self.compare_on(self.packets.len(), name, target, ours, bare);
    }

    /// Measures both sides in turn over so many packets and prints a line of the table.
    fn compare_on<'a>(
        &self,
        packets: usize,
        name: &str,
        target: Option<f64>,
        ours: impl Fn() -> Pass<'a>,
        bare: impl Fn() -> Pass<'a>,
    ) {
        // Long enough that a side finds its own buffers in the cache again for most of its turn.
        const TURN: usize = 64;
        let (mut our_times, mut bare_times, mut ratios) = (vec![], vec![], vec![]);
        for _ in 0..self.repetitions {
            let mut passes = [ours(), bare()];
            let mut seconds = [0.0; 2];
            for (turn, start) in (0..packets).step_by(TURN).enumerate() {
                // Who comes second finds some of the pages in the cache.
                for side in [turn % 2, 1 - turn % 2] {
                    let started = Instant::now();
                    passes[side](start..packets.min(start + TURN));
                    seconds[side] += started.elapsed().as_secs_f64();
                }
            }
            our_times.push(seconds[0]);
            bare_times.push(seconds[1]);
            ratios.push(seconds[1] / seconds[0]);
        }
        let megabytes = (packets * PACKET_PAGES * PAGE_BYTES) as f64 / 1e6;
        let (ours, bare) = (megabytes / median(our_times), megabytes / median(bare_times));
        let ratio = median(ratios);
        let verdict = target.map_or(String::new(), |target| {
            let met = if ratio >= target { "met" } else { "NOT MET" };
            format!("{target:>7.2} {}", if self.busy { "(busy)" } else { met })
        });
        println!("{name:<36} {ours:>8.0} {bare:>8.0} {ratio:>6.2} {verdict}");
    }

    fn print_sizes(&self, ours: &Payloads, bare: &Payloads) {
        let pages = (self.packets.len() * PACKET_PAGES * PAGE_BYTES) as f64;
        let [ours, bare] = [ours, bare].map(|payloads| payloads.bytes() as f64 / pages * 100.0);
        println!("{:<36} {ours:>8.1} {bare:>8.1}", "  payload in % of the pages");
    }
}

/// Sends what the channel has to send, to nowhere.
fn drain(channel: &mut SendMachine) -> Result<(), multifd_core::Error> {
    loop {
        let count = match channel.next()? {
            SendNext::Idle => return Ok(()),
            SendNext::Encode => {
                block_on(channel.encode())?;
                continue;
            }
            SendNext::Write(parts) => parts.map(|part| part.bytes()).sum(),
        };
        channel.sent(count);
    }
}

fn receive<'a>(destination: &'a Destination<'_>) -> Pass<'a> {
    let mut receiver = destination.open();
    Box::new(move |range| receiver.receive(range))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
