//! What is zstd's own: how the frame begins, goes on and must not end.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use multifd_conformance::ends::{PAGE_BYTES, Receiver, Sender, noise};
use multifd_core::MultiFdMethods;
use multifd_core::codec::PacketMethods;
use multifd_zstd::Zstd;
use zstd_safe::zstd_sys::ZSTD_EndDirective::{self, ZSTD_e_end, ZSTD_e_flush};
use zstd_safe::{CCtx, DCtx, InBuffer, OutBuffer};

const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

fn codec() -> PacketMethods<Zstd> {
    PacketMethods::new(Zstd::new())
}

fn refusal(payload: &[u8], pages: usize) -> String {
    let refused = Receiver::new(&codec()).receive(payload, pages);
    refused.expect_err("a malformed payload").to_string()
}

/// `bytes` as the first part of a zstd frame.
fn compress(bytes: &[u8], end: ZSTD_EndDirective) -> Vec<u8> {
    let mut payload = Vec::with_capacity(1 << 20);
    let mut output = OutBuffer::around(&mut payload);
    let mut input = InBuffer::around(bytes);
    let left = CCtx::create().compress_stream2(&mut output, &mut input, end);
    assert_eq!(left, Ok(0));
    payload
}

#[test]
fn one_frame_with_one_magic_runs_through_all_packets_and_never_ends() {
    let pages = [b"a page of text, ".repeat(512), noise(3 * PAGE_BYTES), vec![7; PAGE_BYTES]];
    let mut sender = Sender::new(&codec(), None);
    let mut context = DCtx::create();
    for (packet, pages) in pages.iter().enumerate() {
        let payload = sender.send(pages);
        assert_eq!(payload.starts_with(&MAGIC), packet == 0, "packet {packet}");
        let mut decompressed = vec![0; pages.len()];
        let mut output = OutBuffer::around(&mut decompressed[..]);
        let mut input = InBuffer::around(&payload);
        let wanted = context.decompress_stream(&mut output, &mut input).unwrap();
        assert_eq!(wanted, 3, "the next block, packet {packet}");
        assert!(decompressed == *pages, "packet {packet}");
    }
}

#[test]
fn the_levels_are_those_of_the_library() {
    let levels = codec().descriptor().levels.unwrap();
    assert_eq!(levels.least, zstd_safe::min_c_level());
    assert_eq!(levels.most, zstd_safe::max_c_level());
}

#[test]
fn pages_of_noise_fit_a_packet_at_the_lowest_and_the_highest_level() {
    let levels = codec().descriptor().levels.unwrap();
    let pages = noise(128 * PAGE_BYTES);
    for level in [levels.least, -5, 0, 1, 19, levels.most] {
        let mut sender = Sender::new(&codec(), Some(level));
        let mut receiver = Receiver::new(&codec());
        for _ in 0..2 {
            let payload = sender.send(&pages);
            assert!(payload.len() <= 1 << 20, "level {level}");
            assert!(receiver.receive(&payload, 128).unwrap() == pages, "level {level}");
        }
    }
}

#[test]
fn a_frame_that_ends_is_an_error() {
    let pages = [7; 2 * PAGE_BYTES];
    for payload in [
        compress(&pages, ZSTD_e_end),
        [&compress(&pages, ZSTD_e_flush)[..], &[1, 0, 0]].concat(),
        [&compress(&pages, ZSTD_e_end)[..], &compress(&pages, ZSTD_e_flush)[..]].concat(),
        [&[0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 9][..], &compress(&pages, ZSTD_e_flush)].concat(),
    ] {
        assert!(refusal(&payload, 2).contains("the zstd frame ends"), "{payload:x?}");
    }
}

#[test]
fn a_payload_with_less_or_more_than_its_pages_is_an_error() {
    let payload = compress(&[7; 2 * PAGE_BYTES], ZSTD_e_flush);
    assert!(Receiver::new(&codec()).receive(&payload, 2).is_ok());
    assert!(refusal(&payload, 1).contains("it goes on after the packet's pages"));
    assert!(refusal(&payload, 3).contains("4096 bytes of the packet's pages are missing"));
    let payload = compress(&[7; PAGE_BYTES - 1], ZSTD_e_flush);
    assert!(refusal(&payload, 1).contains("1 bytes of the packet's pages are missing"));
    let payload = compress(&[7; PAGE_BYTES + 1], ZSTD_e_flush);
    assert!(refusal(&payload, 1).contains("it goes on after the packet's pages"));
}

#[test]
fn a_byte_missing_or_left_over_at_the_end_is_an_error() {
    let payload = compress(&noise(PAGE_BYTES), ZSTD_e_flush);
    assert!(
        refusal(&payload[..payload.len() - 1], 1)
            .contains("1 bytes of the packet's pages are missing")
    );
    for byte in 0..=0xff {
        let longer = [&payload[..], &[byte]].concat();
        assert!(refusal(&longer, 1).contains("it goes on after the packet's pages"), "{byte:#x}");
    }
}

#[test]
fn a_window_above_128_mib_is_an_error() {
    // No content size, no checksum; then a block that repeats one byte for a page.
    let frame = |window: u8| [&MAGIC[..], &[0x00, window, 0x02, 0x80, 0x00, b'x']].concat();
    let received = Receiver::new(&codec()).receive(&frame(17 << 3), 1);
    assert!(received.unwrap() == [b'x'; PAGE_BYTES], "2^27 bytes");
    for window in [17 << 3 | 1, 18 << 3, 31 << 3 | 7] {
        assert!(refusal(&frame(window), 1).contains("requires too much memory"), "{window:#x}");
    }
}
