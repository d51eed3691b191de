//! What is UADK's own: the streams, both ways with zlib, and what is refused.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::io::{Read, Write};

use flate2::Compression;
use flate2::read::ZlibDecoder;
use flate2::write::{DeflateEncoder, ZlibEncoder};
use multifd_conformance::ends::{PAGE_BYTES, Receiver, Sender, noise};
use multifd_core::codec::PageMethods;
use multifd_core::{ErrorKind, PageSize, PeerError};
use multifd_uadk::{Uadk, WINDOW};

fn codec() -> PageMethods<Uadk> {
    PageMethods::new(Uadk::new())
}

/// The chunks of the pages, and the pages, that a codec has to do with.
fn pages(page_bytes: usize) -> Vec<Vec<u8>> {
    let text = b"Lorem ipsum dolor sit amet, 0123456789. ".repeat(page_bytes / 40 + 1);
    let mut pointers = Vec::new();
    for (number, byte) in noise(page_bytes / 8).into_iter().enumerate() {
        pointers
            .extend((0x7f00_dead_0000_u64 + u64::from(byte) * 64 + number as u64).to_le_bytes());
    }
    // Repeats of more than the window.
    let repeats = noise(page_bytes / 2).repeat(2);
    vec![vec![0; page_bytes], vec![7; page_bytes], text[..page_bytes].to_vec(), pointers, repeats]
}

/// A payload of one chunk.
fn payload(chunk: &[u8]) -> Vec<u8> {
    [&(chunk.len() as u32).to_be_bytes(), chunk].concat()
}

fn chunk(payload: &[u8]) -> &[u8] {
    &payload[4..]
}

/// A chunk of these parts, with the right header and the Adler-32 of `page`.
fn wrapped(deflate: &[u8], page: &[u8]) -> Vec<u8> {
    [&[0x78, 0x9c], deflate, &adler32(page).to_be_bytes()].concat()
}

/// RFC 1950, section 8.2.
fn adler32(bytes: &[u8]) -> u32 {
    let step = |(a, b): (u32, u32), &byte: &u8| {
        let a = (a + u32::from(byte)) % 65521;
        (a, (b + a) % 65521)
    };
    let (a, b) = bytes.iter().fold((1, 0), step);
    b << 16 | a
}

fn deflate(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::new(9));
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A stored block of `bytes` that is the last.
fn stored(bytes: &[u8]) -> Vec<u8> {
    let length = bytes.len() as u16;
    [&[1], &length.to_le_bytes()[..], &(!length).to_le_bytes(), bytes].concat()
}

/// Asserts that a packet of one page with the payload is refused, 100 times in the same words, which
/// have `says` in them.
#[track_caller]
fn refused(payload: &[u8], says: &str) {
    let mut told = None;
    for _ in 0..100 {
        let error = Receiver::new(&codec()).receive(payload, 1).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Peer(PeerError::Payload { .. })), "{error}");
        let text = error.to_string();
        assert!(text.contains(says), "{text}");
        assert_eq!(told.get_or_insert_with(|| text.clone()), &text);
    }
}

#[track_caller]
fn chunk_refused(chunk: &[u8], says: &str) {
    refused(&payload(chunk), says);
}

#[test]
fn zlib_reads_every_chunk_which_has_the_header_of_the_accelerators() {
    for page_size in PageSize::ALL {
        for page in pages(page_size.bytes()) {
            let payload = Sender::of_pages(&codec(), None, page_size).send(&page);
            if payload.len() == 4 + page.len() {
                continue;
            }
            assert_eq!(chunk(&payload)[..2], [0x78, 0x9c]);
            let mut inflated = Vec::new();
            let mut decoder = ZlibDecoder::new(chunk(&payload));
            decoder.read_to_end(&mut inflated).unwrap();
            assert!(inflated == page, "pages of {page_size}");
            assert_eq!(decoder.total_in(), chunk(&payload).len() as u64, "pages of {page_size}");
        }
    }
}

#[test]
fn pages_that_do_not_get_shorter_go_as_they_are() {
    let mut sender = Sender::new(&codec(), None);
    let page = noise(PAGE_BYTES);
    let payload = sender.send(&page);
    assert!(payload == [&(PAGE_BYTES as u32).to_be_bytes(), &page[..]].concat());
    let mut receiver = Receiver::new(&codec());
    assert!(receiver.receive(&payload, 1).unwrap() == page);
    let one_raw_page = |counts: multifd_core::MethodStats| {
        assert_eq!(counts.iter().collect::<Vec<_>>(), [("raw pages", 1)]);
    };
    one_raw_page(sender.finish());
    one_raw_page(receiver.finish());
}

#[test]
fn the_chunks_of_zlib_come_back() {
    for page in pages(PAGE_BYTES) {
        // Of the levels, only 6 has the header in zlib.
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::new(6));
        encoder.write_all(&page).unwrap();
        let chunk = encoder.finish().unwrap();
        assert!(chunk.starts_with(&[0x78, 0x9c]));
        if chunk.len() < PAGE_BYTES {
            assert!(Receiver::new(&codec()).receive(&payload(&chunk), 1).unwrap() == page);
        }
        let chunk = wrapped(&deflate(&page), &page);
        if chunk.len() < PAGE_BYTES {
            assert!(Receiver::new(&codec()).receive(&payload(&chunk), 1).unwrap() == page);
        }
    }
}

#[test]
fn a_distance_above_4096_is_an_error_whatever_the_header_declares() {
    for page_size in [PageSize::Kib16, PageSize::Kib64] {
        for (distance, is_taken) in [(WINDOW - 1, true), (WINDOW, true), (WINDOW + 1, false)] {
            let page = noise(distance).repeat(17);
            let page = &page[..page_size.bytes()];
            let chunk = wrapped(&deflate(page), page);
            assert!(chunk.len() < page_size.bytes(), "{distance}: it has matches");
            let received = Receiver::of_pages(&codec(), page_size).receive(&payload(&chunk), 1);
            assert_eq!(received.is_ok(), is_taken, "pages of {page_size}, {distance}");
        }
    }
}

#[test]
fn a_payload_whose_lengths_are_wrong_is_an_error() {
    refused(&[0, 0, 0], "shorter than the lengths");
    refused(&[0, 0, 0, 0, 1], "add up to 0 bytes");
    refused(&[0, 0, 0, 2, 1], "add up to 2 bytes");
    refused(&[0, 0, 0, 0], "a chunk has 0 bytes");
    refused(&payload(&[0; PAGE_BYTES + 1]), "a chunk has 4097 bytes, not 1 to 4096");
}

#[test]
fn any_header_but_78_9c_is_an_error() {
    let page = [7; PAGE_BYTES];
    let right = wrapped(&deflate(&page), &page);
    assert!(Receiver::new(&codec()).receive(&payload(&right), 1).unwrap() == page);
    // Other levels, a smaller window, with a dictionary, another method, a wrong check.
    for header in
        [[0x78, 0x01], [0x78, 0xda], [0x48, 0x89], [0x78, 0xbb], [0x77, 0x9c], [0x78, 0x9d]]
    {
        let chunk = [&header, &right[2..]].concat();
        chunk_refused(&chunk, "not with [78, 9c]");
    }
    chunk_refused(&[0x78], "a chunk begins with [78]");
    // The stream alone, as QPL has it.
    chunk_refused(&right[2..right.len() - 4], "not with [78, 9c]");
}

#[test]
fn a_wrong_adler_32_or_none_is_an_error() {
    let page = [7; PAGE_BYTES];
    let mut chunk = wrapped(&deflate(&page), &page);
    chunk_refused(&[0x78, 0x9c, 0, 0, 1], "too short for its Adler-32");
    let last = chunk.len() - 1;
    for at in last - 3..=last {
        chunk[at] ^= 0x80;
        chunk_refused(&chunk, "the page has the Adler-32 0x");
        chunk[at] ^= 0x80;
    }
}

#[test]
fn a_stream_that_is_malformed_or_not_the_page_alone_is_an_error() {
    let page = [7; PAGE_BYTES];
    let deflated = deflate(&page);
    // No bit of a stream; block type 3; a distance to before the page.
    chunk_refused(&wrapped(&[], &page), "in a chunk, ");
    chunk_refused(&wrapped(&[7], &page), "in a chunk, ");
    chunk_refused(&wrapped(&[0x03, 0x02, 0], &page), "in a chunk, ");
    // Cut short, so that the Adler-32 is taken for a part of it.
    let cut =
        [&[0x78, 0x9c], &deflated[..deflated.len() - 1], &adler32(&page).to_be_bytes()].concat();
    chunk_refused(&cut[..cut.len() - 4], "in a chunk, ");
    // Not the last block.
    let mut open = deflated.clone();
    open[0] &= !1;
    chunk_refused(&wrapped(&open, &page), "in a chunk, ");
    chunk_refused(&wrapped(&stored(&[]), &page), "in a chunk, the stream inflates to 0 bytes");
    let short = &page[1..];
    chunk_refused(
        &wrapped(&deflate(short), short),
        "in a chunk, the stream inflates to 4095 bytes",
    );
    let long = [7; PAGE_BYTES + 1];
    chunk_refused(&wrapped(&deflate(&long), &long), "in a chunk, the stream inflates to more");
    let mut behind = deflated;
    behind.push(0);
    chunk_refused(&wrapped(&behind, &page), "1 bytes between its DEFLATE stream and its end");
}
