//! Every registered codec, with the bare libraries beside it, and what else a page goes through.
#![allow(missing_docs, reason = "criterion's macros make items without them")]

use std::hint::black_box;
use std::time::Duration;

use criterion::{BatchSize, Bencher, Criterion, Throughput, criterion_group, criterion_main};
use multifd_benches::bare::{self, Memory};
use multifd_benches::{
    Destination, Guest, PACKET_PAGES, PAGE_BYTES, PAGE_SIZE, Packet, Payloads, Sender, mark_if_busy,
};
use multifd_core::ram::{copy_unless_zero, is_zero};
use multifd_core::wire::{BlockName, RamPacket, RamPacketBuilder};
use multifd_core::{Compression, Registry};

criterion_main!(benches);
criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10).measurement_time(Duration::from_secs(3));
    targets = codecs, scan, packets
}

/// Packets to work on: enough that the set-up of a channel does not count, and few enough that a
/// slow codec does not take minutes.
const PACKETS: usize = 64;

fn codecs(criterion: &mut Criterion) {
    mark_if_busy();
    let guest = Guest::load();
    let packets = guest.sample(PACKETS);
    let bytes = (packets.len() * PACKET_PAGES * PAGE_BYTES) as u64;
    let registry = Registry::collected().expect("no codec is registered twice");

    let mut group = criterion.benchmark_group("send_prepare");
    group.throughput(Throughput::Bytes(bytes));
    for codec in registry.iter() {
        let mut sender = Sender::new(&**codec);
        group.bench_function(codec.name(), |bencher| bencher.iter(|| sender.send(&packets)));
    }
    let mut zlib = bare::zlib::Compressor::new(1);
    group.bench_function("zlib, C zlib page by page", |bencher| {
        bencher.iter(|| zlib.compress(&packets, |payload| _ = black_box(payload)));
    });
    let mut zstd = bare::zstd::Compressor::new(1);
    group.bench_function("zstd, bare page by page", |bencher| {
        bencher.iter(|| zstd.compress(&packets, |payload| _ = black_box(payload)));
    });
    group.finish();

    let mut memory = Memory::new(&guest);
    let mut group = criterion.benchmark_group("recv");
    group.throughput(Throughput::Bytes(bytes));
    for codec in registry.iter() {
        let payloads = Payloads::of(&**codec, &packets);
        let destination = Destination::new(&**codec, &packets, &payloads);
        destination.open().receive(0..packets.len());
        destination.check(&packets);
        group.bench_function(codec.name(), |bencher| {
            bencher.iter_batched(
                || destination.open(),
                |mut receiver| {
                    receiver.receive(0..packets.len());
                    receiver
                },
                BatchSize::PerIteration,
            );
        });
        match codec.compression() {
            Compression::Zlib => group.bench_function("zlib, C zlib page by page", |bencher| {
                let decompress = bare::zlib::Decompressor::decompress;
                bare_recv(bencher, &packets, &payloads, &mut memory, decompress);
            }),
            Compression::Zstd => group.bench_function("zstd, bare page by page", |bencher| {
                let decompress = bare::zstd::Decompressor::decompress;
                bare_recv(bencher, &packets, &payloads, &mut memory, decompress);
            }),
            _ => continue,
        };
    }
    group.finish();
}

/// Decompresses with a bare library, whose decompressors are `D`, through `decompress`.
fn bare_recv<D: Default>(
    bencher: &mut Bencher<'_>,
    packets: &[Packet<'_>],
    payloads: &Payloads,
    memory: &mut Memory,
    decompress: fn(&mut D, &[u64], &[u8], &mut Memory),
) {
    bencher.iter_batched(
        D::default,
        |mut decompressor| {
            for (packet, payload) in packets.iter().zip(payloads.iter()) {
                decompress(&mut decompressor, packet.guest.offsets(), payload, memory);
            }
            decompressor
        },
        BatchSize::PerIteration,
    );
}

/// The private copy and the zero scan beside a plain copy, on pages that are not in the cache.
fn scan(criterion: &mut Criterion) {
    const PAGES: usize = 16 << 10;
    let guest = Guest::load();
    let mut private = vec![0; PAGE_BYTES];
    for (kind, offsets) in [("pages with data", guest.normal()), ("zero pages", guest.zero())] {
        let offsets = &offsets[..offsets.len().min(PAGES)];
        let pages = || offsets.iter().map(|&offset| guest.block().slice(offset, PAGE_BYTES));
        let mut group = criterion.benchmark_group(format!("scan of {kind}"));
        group.throughput(Throughput::Bytes((offsets.len() * PAGE_BYTES) as u64));
        group.bench_function("copy_unless_zero", |bencher| {
            bencher.iter(|| pages().filter(|page| copy_unless_zero(*page, &mut private)).count());
        });
        group.bench_function("is_zero", |bencher| {
            bencher.iter(|| pages().filter(|page| is_zero(*page)).count());
        });
        group.bench_function("memcpy", |bencher| {
            bencher.iter(|| {
                for &offset in offsets {
                    private.copy_from_slice(&guest.bytes()[offset as usize..][..PAGE_BYTES]);
                    black_box(&mut private);
                }
            });
        });
        group.finish();
    }
}

/// The header of a full packet.
fn packets(criterion: &mut Criterion) {
    let mut builder = RamPacketBuilder::new(PAGE_SIZE);
    let name = BlockName::new("pc.ram").expect("a valid name");
    let offsets: Vec<_> = (0..PACKET_PAGES as u64).map(|page| page << 20).collect();
    let offsets = offsets.split_at(PACKET_PAGES / 2);
    let mut build = |payload_bytes| {
        let pages = [offsets.0, offsets.1];
        builder.pages(Compression::Zstd, 7, &name, pages, payload_bytes).to_vec()
    };
    let packet = build(100_000);
    let mut group = criterion.benchmark_group("packet");
    group.bench_function("build", |bencher| bencher.iter(|| build(black_box(100_000))));
    group.bench_function("parse", |bencher| {
        bencher.iter(|| RamPacket::parse(black_box(&packet), PAGE_SIZE).map(|packet| packet.flags));
    });
    group.finish();
}
