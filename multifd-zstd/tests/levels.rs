//! What the levels set: legal frames, windows and memory as documented.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use multifd_conformance::ends::{PAGE_BYTES, Receiver, Sender, noise};
use multifd_conformance::made_up;
use multifd_core::PageSize;
use multifd_core::codec::{PacketCodec, PacketMethods};
use multifd_zstd::Zstd;
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};
use zstd_safe::zstd_sys::ZSTD_EndDirective::ZSTD_e_flush;
use zstd_safe::{CCtx, DCtx, InBuffer, OutBuffer};

const PACKET_PAGES: usize = PageSize::Kib4.page_count();

/// Each documented level with its window and the most that libzstd takes for it at a source and at a destination, in KiB.
const LEVELS: [(i32, usize, usize, usize); 10] = [
    (-5, 512, 1310, 1000),
    (-4, 512, 1310, 1000),
    (-3, 128, 930, 620),
    (-2, 128, 930, 620),
    (-1, 128, 930, 620),
    (0, 2048, 3600, 2540),
    (1, 512, 1340, 1000),
    (2, 1024, 2050, 1520),
    (3, 2048, 3600, 2540),
    (4, 2048, 4900, 2540),
];

/// Packets of text, pointers, code and noise, so many that they are more than a window.
fn packets() -> Vec<Vec<u8>> {
    let mut pages = vec![0; 6 * PACKET_PAGES * PAGE_BYTES];
    for (page, index) in pages.chunks_exact_mut(PAGE_BYTES).zip(0..) {
        made_up::fill(page, 1, index);
    }
    let mut packets: Vec<_> =
        pages.chunks_exact(PACKET_PAGES * PAGE_BYTES).map(<[u8]>::to_vec).collect();
    packets.push(noise(PACKET_PAGES * PAGE_BYTES));
    packets.push(packets[0].clone());
    packets
}

fn payloads(level: i32, packets: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut sender = Sender::new(&PacketMethods::new(Zstd::new()), Some(level));
    packets.iter().map(|pages| sender.send(pages)).collect()
}

/// What an independent decoder makes of the channel's bytes, to which it gets the frame's end.
fn decode(payloads: &[Vec<u8>]) -> Vec<u8> {
    const LAST_BLOCK: [u8; 3] = [1, 0, 0];
    let frame = [&payloads.concat()[..], &LAST_BLOCK].concat();
    let mut source = &frame[..];
    let mut decoder = FrameDecoder::new();
    decoder.init(&mut source).unwrap();
    decoder.decode_blocks(&mut source, BlockDecodingStrategy::All).unwrap();
    assert!(source.is_empty(), "{} bytes are left over", source.len());
    decoder.collect().unwrap()
}

#[test]
fn an_independent_decoder_and_a_receiver_restore_what_each_level_makes() {
    let packets = packets();
    for (level, ..) in LEVELS {
        let payloads = payloads(level, &packets);
        assert!(decode(&payloads) == packets.concat(), "level {level}");
        let mut receiver = Receiver::new(&PacketMethods::new(Zstd::new()));
        for (payload, pages) in payloads.iter().zip(&packets) {
            assert!(receiver.receive(payload, PACKET_PAGES).unwrap() == *pages, "level {level}");
        }
    }
}

#[test]
fn a_level_up_to_1_compresses_further_than_the_one_below() {
    let packets = packets();
    let bytes = |level| payloads(level, &packets).iter().map(Vec::len).sum::<usize>();
    let bytes = [-4, -3, -2, -1, 1].map(bytes);
    assert!(bytes.is_sorted_by(|lower, higher| lower > higher), "{bytes:?}");
}

#[test]
fn level_0_is_level_3() {
    let packets = packets();
    assert!(payloads(0, &packets) == payloads(3, &packets));
}

#[test]
fn a_level_s_window_is_the_documented_one() {
    let pages = vec![vec![7; PAGE_BYTES]];
    for (level, window, ..) in LEVELS {
        let header = payloads(level, &pages).concat();
        // The frame has no single segment, and its window no mantissa (RFC 8878, 3.1.1.1).
        assert_eq!(header[4], 0, "level {level}");
        assert_eq!(u32::from(header[5]), window.ilog2() << 3, "level {level}");
    }
}

#[test]
fn a_channel_takes_no_more_memory_than_documented() {
    let packets = packets();
    for (level, _, source, destination) in LEVELS {
        let codec = Zstd::new();
        let config = codec.descriptor().config(0, PageSize::Kib4, Some(level)).unwrap();
        let mut compressor = codec.encoder(&config).unwrap();
        let mut decompressor = codec.decoder(&config).unwrap();
        for pages in &packets {
            pass(&mut compressor, &mut decompressor, pages);
        }
        let [source_takes, destination_takes] = [compressor.sizeof(), decompressor.sizeof()];
        let what = format!("level {level}: {source_takes} and {destination_takes} bytes");
        for (takes, documented) in [(source_takes, source), (destination_takes, destination)] {
            let documented = documented << 10;
            assert!(takes <= documented && takes > documented / 10 * 9, "{what}");
        }
    }
}

fn pass(compressor: &mut CCtx<'static>, decompressor: &mut DCtx<'static>, pages: &[u8]) {
    let mut payload = vec![0; 1 << 20];
    let mut output = OutBuffer::around(&mut payload[..]);
    let left = compressor.compress_stream2(&mut output, &mut InBuffer::around(pages), ZSTD_e_flush);
    assert_eq!(left, Ok(0));
    let mut restored = vec![0; pages.len()];
    let mut input = InBuffer::around(output.as_slice());
    decompressor.decompress_stream(&mut OutBuffer::around(&mut restored[..]), &mut input).unwrap();
    assert!(restored == pages);
}
