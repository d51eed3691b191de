//! What is zlib's own: how the stream begins, goes on and must not end.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};
use multifd_conformance::ends::{PAGE_BYTES, Receiver, Sender, noise};
use multifd_core::codec::PacketMethods;
use multifd_zlib::Zlib;

fn codec() -> PacketMethods<Zlib> {
    PacketMethods::new(Zlib::new())
}

fn refusal(payload: &[u8], pages: usize) -> String {
    let refused = Receiver::new(&codec()).receive(payload, pages);
    refused.expect_err("a malformed payload").to_string()
}

/// `bytes` as the first part of a zlib stream, up to a flush.
fn deflate(bytes: &[u8], flush: FlushCompress) -> Vec<u8> {
    let mut payload = Vec::with_capacity(1 << 20);
    Compress::new(Compression::fast(), true).compress_vec(bytes, &mut payload, flush).unwrap();
    payload
}

#[test]
fn one_stream_with_one_header_runs_through_all_packets() {
    let pages = [b"a page of text, ".repeat(512), noise(3 * PAGE_BYTES), vec![7; PAGE_BYTES]];
    let mut sender = Sender::new(&codec(), None);
    let mut inflate = Decompress::new(true);
    for (packet, pages) in pages.iter().enumerate() {
        let payload = sender.send(pages);
        // CINFO 7, a window of 32 KiB; FLEVEL 0, level 1.
        assert_eq!(payload.starts_with(&[0x78, 0x01]), packet == 0, "packet {packet}");
        let mut inflated = Vec::with_capacity(pages.len());
        inflate.decompress_vec(&payload, &mut inflated, FlushDecompress::None).unwrap();
        assert!(inflated == *pages, "packet {packet}");
    }
}

#[test]
fn every_packet_ends_at_a_sync_flush_and_fits_whatever_the_level() {
    for level in 0..=9 {
        let mut sender = Sender::new(&codec(), Some(level));
        for pages in [vec![0; PAGE_BYTES], noise(128 * PAGE_BYTES), vec![1; 5 * PAGE_BYTES]] {
            let payload = sender.send(&pages);
            assert!(payload.ends_with(&[0, 0, 0xff, 0xff]), "level {level}");
            assert!(payload.len() <= 1 << 20, "level {level}");
        }
    }
}

#[test]
fn a_stream_that_ends_is_an_error() {
    let mut payload = deflate(&[7; PAGE_BYTES], FlushCompress::Finish);
    assert!(refusal(&payload, 1).contains("does not end at a sync flush"));
    payload.extend([0, 0, 0xff, 0xff]);
    assert!(refusal(&payload, 1).contains("the zlib stream ends"));
    assert!(refusal(&payload, 2).contains("the zlib stream ends"));
}

#[test]
fn a_payload_with_less_or_more_than_its_pages_is_an_error() {
    let payload = deflate(&[7; 2 * PAGE_BYTES], FlushCompress::Sync);
    assert!(Receiver::new(&codec()).receive(&payload, 2).is_ok());
    assert!(refusal(&payload, 1).contains("it goes on after the packet's pages"));
    assert!(refusal(&payload, 3).contains("4096 bytes of the packet's pages are missing"));
    let payload = deflate(&[7; PAGE_BYTES - 1], FlushCompress::Sync);
    assert!(refusal(&payload, 1).contains("1 bytes of the packet's pages are missing"));
    let payload = deflate(&[7; PAGE_BYTES + 1], FlushCompress::Sync);
    assert!(refusal(&payload, 1).contains("it goes on after the packet's pages"));
}

#[test]
fn a_byte_missing_or_left_over_at_the_end_is_an_error() {
    let payload = deflate(&noise(PAGE_BYTES), FlushCompress::Sync);
    assert!(refusal(&payload[..payload.len() - 1], 1).contains("does not end at a sync flush"));
    for byte in 0..=0xff {
        let longer = [&payload[..], &[byte]].concat();
        assert!(refusal(&longer, 1).contains("does not end at a sync flush"), "{byte:#x}");
    }
}

#[test]
fn a_stream_with_a_preset_dictionary_or_a_larger_window_is_an_error() {
    let payload = deflate(&[7; PAGE_BYTES], FlushCompress::Sync);
    let with_header = |header: &[u8]| [header, &payload[2..]].concat();
    assert!(Receiver::new(&codec()).receive(&with_header(&[0x78, 0x01]), 1).is_ok());
    for header in [&[0x78, 0x20, 1, 2, 3, 4][..], &[0x88, 0x1c], &[0x78, 0x02]] {
        assert!(refusal(&with_header(header), 1).contains("zlib cannot read it"), "{header:x?}");
    }
}
