//! Whole migrations over loopback TCP, beside threads that only write and read the same bytes: out
//! of memory as large as the guest's, into memory as large.
//!
//! `cargo bench -p multifd-benches --bench loopback -- 9` repeats 9 times; the two sides alternate
//! in one run, the figures are medians.
#![allow(clippy::print_stdout, reason = "the table is what this program is for")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use multifd::core::ram::{Ram, RamBlock};
use multifd::core::vm_memory::MmapRegion;
use multifd::core::wire::BlockName;
use multifd::core::{Compression, PACKET_BYTES, Registry};
use multifd::{Destination, PageSet, Source};
use multifd_benches::{Guest, PAGE_SIZE, mark_if_busy};

const CHANNELS: u8 = 2;

fn main() {
    let repetitions = std::env::args().find_map(|arg| arg.parse().ok()).unwrap_or(5);
    mark_if_busy();
    let guest = Guest::load();
    let registry = Registry::collected().expect("no codec is registered twice");
    let ram = new_ram(guest.normal().len() * PAGE_SIZE.bytes());
    copy_normal_pages(&guest, &ram);
    let gib = ram.bytes() as f64 / f64::from(1 << 30);
    println!(
        "{}: {:.2} GiB of non-zero pages, {CHANNELS} channels, {repetitions} repetitions\n",
        guest.origin(),
        gib,
    );
    println!("{:<10} {:>9} {:>9} {:>7}", "GiB/s", "multifd", "bare", "ratio");
    let from: Vec<u8> = guest.packets().iter().flat_map(|packet| packet.private).copied().collect();
    let mut to = vec![1; from.len()];
    for codec in registry.iter() {
        let destination = new_ram(ram.bytes() as usize);
        let mut ours = Vec::new();
        let mut bare = Vec::new();
        // The first pass of each side only warms up.
        for _ in 0..=repetitions {
            ours.push(migrate(&registry, codec.compression(), &ram, &destination));
            bare.push(copy_only(&from, &mut to));
        }
        let (ours, bare) = (gib / median(ours), gib / median(bare));
        // What the bare side moves is what method none moves: only there do the two compare.
        let ratio = match codec.compression() {
            Compression::None => format!("{:.2}", ours / bare),
            _ => String::new(),
        };
        println!("{:<10} {ours:>9.2} {bare:>9.2} {ratio:>7}", codec.name());
    }
    println!("\ntarget: none at least 0.8 of the bare threads");
}

fn new_ram(bytes: usize) -> Arc<Ram> {
    let memory = MmapRegion::<()>::new(bytes).expect("there is memory for the guest");
    let name = BlockName::new("pc.ram").expect("a valid name");
    Arc::new(Ram::new(PAGE_SIZE, [RamBlock::new(name, memory)]).expect("whole pages"))
}

fn copy_normal_pages(guest: &Guest, ram: &Ram) {
    let bytes = PAGE_SIZE.bytes();
    for (index, &offset) in guest.normal().iter().enumerate() {
        let page = &guest.bytes()[offset as usize..][..bytes];
        ram.blocks()[0].write((index * bytes) as u64, page);
    }
}

/// Moves `ram` to `destination`. Connecting and ending are part of the time.
fn migrate(
    registry: &Registry,
    compression: Compression,
    ram: &Arc<Ram>,
    destination: &Arc<Ram>,
) -> Duration {
    let any_port = "tcp:127.0.0.1:0".parse().expect("an address");
    let listening = Destination::builder(registry)
        .compression(compression)
        .channels(CHANNELS)
        .listen(&any_port)
        .expect("a free port");
    let uri = listening.uri().clone();
    let all = PageSet::all(ram);
    let began = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let source = Source::builder(registry, Arc::clone(ram))
                .compression(compression)
                .channels(CHANNELS)
                .connect(&uri)
                .expect("the destination listens");
            source.finish(&all, None).expect("the migration succeeds");
        });
        let arrived = listening.receive(|_| Ok(Arc::clone(destination)));
        arrived.and_then(multifd::Arrived::confirm).expect("the migration succeeds");
    });
    began.elapsed()
}

/// Two connections, each with a thread that writes its half of the memory, as much at once as a
/// packet holds, and one that reads it into memory of its own.
fn copy_only(from: &[u8], to: &mut [u8]) -> Duration {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let half = from.len().div_ceil(usize::from(CHANNELS));
    let began = Instant::now();
    std::thread::scope(|scope| {
        for (from, to) in from.chunks(half).zip(to.chunks_mut(half)) {
            scope.spawn(move || {
                let mut stream = TcpStream::connect(address).expect("the listener listens");
                let mut packets = from.chunks(PACKET_BYTES);
                packets.try_for_each(|packet| stream.write_all(packet)).expect("the reader reads");
            });
            let (mut stream, _) = listener.accept().expect("the writer connects");
            scope.spawn(move || {
                let mut packets = to.chunks_mut(PACKET_BYTES);
                packets.try_for_each(|packet| stream.read_exact(packet)).expect("it writes");
            });
        }
    });
    began.elapsed()
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.remove(0);
    times.sort();
    times[times.len() / 2].as_secs_f64()
}
