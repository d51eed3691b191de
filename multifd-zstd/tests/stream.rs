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

/// A frame that repeats one byte for a page and whose header has the window `window` (RFC 8878,
/// section 3.1.1.1.2). No content size, no checksum.
fn frame(window: u8) -> Vec<u8> {
    [&MAGIC[..], &[0x00, window, 0x02, 0x80, 0x00, b'x']].concat()
}

#[test]
fn a_window_above_the_limit_is_an_error_that_says_what_to_do() {
    let most = PacketMethods::new(Zstd::new().with_window_limit(Zstd::MAX_WINDOW));
    for (codec, log) in [(codec(), 23), (most, 27)] {
        let received = Receiver::new(&codec).receive(&frame((log - 10) << 3), 1);
        assert!(received.unwrap() == [b'x'; PAGE_BYTES], "2^{log} bytes");
        for window in [(log - 10) << 3 | 1, (log - 9) << 3, 31 << 3 | 7] {
            let refused = Receiver::new(&codec).receive(&frame(window), 1).unwrap_err();
            assert!(refused.to_string().contains("allow windows of up to 128 MiB"), "{window:#x}");
        }
    }
}

#[test]
fn a_limit_is_a_power_of_two_within_what_the_format_and_qemu_have() {
    for (bytes, limit) in [
        (0, Zstd::MIN_WINDOW),
        (1023, 1 << 10),
        (1024, 1 << 10),
        ((16 << 20) - 1, 8 << 20),
        (1 << 27, 1 << 27),
        ((1 << 27) + 1, Zstd::MAX_WINDOW),
        (u64::MAX, Zstd::MAX_WINDOW),
    ] {
        assert_eq!(Zstd::new().with_window_limit(bytes).window_limit(), limit, "{bytes}");
    }
    assert_eq!(Zstd::default().window_limit(), Zstd::DEFAULT_WINDOW);
}

/// The window that the header of a frame asks for, in bytes.
fn window(payload: &[u8]) -> u64 {
    assert_eq!((&payload[..4], payload[4]), (&MAGIC[..], 0), "no size, checksum or dictionary");
    let base = 1 << (10 + (payload[5] >> 3));
    base + base / 8 * u64::from(payload[5] & 7)
}

#[test]
fn a_level_s_window_is_within_the_limit_and_within_8_mib_up_to_level_19() {
    let limited = |mib: u64| PacketMethods::new(Zstd::new().with_window_limit(mib << 20));
    let windows = |codec: &PacketMethods<Zstd>| {
        [19, 20, 21, 22]
            .map(|level| window(&Sender::new(codec, Some(level)).send(&[7; PAGE_BYTES])) >> 20)
    };
    assert_eq!(windows(&codec()), [8; 4]);
    assert_eq!(windows(&limited(1)), [8; 4]);
    assert_eq!(windows(&limited(16)), [8, 16, 16, 16]);
    assert_eq!(windows(&limited(128)), [8, 32, 64, 128]);
    for level in -7..19 {
        let window = window(&Sender::new(&codec(), Some(level)).send(&[7; PAGE_BYTES]));
        assert!(window <= Zstd::DEFAULT_WINDOW, "level {level}: {window}");
    }
}
