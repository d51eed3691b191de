//! The members, both ways with zlib, and what is refused.

use std::io::Read;

use crate::support::{Member, deflate, packet, stored};

use flate2::read::MultiGzDecoder;
use multifd_conformance::ends::{PAGE_BYTES, Receiver, Sender, noise};
use multifd_core::codec::PacketMethods;
use multifd_core::{ErrorKind, PACKET_BYTES, PageSize, PeerError};
use multifd_qatzip::Qatzip;

fn codec() -> PacketMethods<Qatzip> {
    PacketMethods::new(Qatzip::new())
}

#[track_caller]
fn taken(payload: &[u8], pages: &[u8]) {
    let received = Receiver::new(&codec()).receive(payload, pages.len() / PAGE_BYTES);
    assert!(received.unwrap() == pages);
}

/// Asserts that a packet of these many pages with the payload is refused, 100 times in the same words,
/// which have `says` in them.
#[track_caller]
fn refused(payload: &[u8], pages: usize, says: &str) {
    let mut told = None;
    for _ in 0..100 {
        let error = Receiver::new(&codec()).receive(payload, pages).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Peer(PeerError::Payload { .. })), "{error}");
        let text = error.to_string();
        assert!(text.contains(says), "{text}");
        assert_eq!(told.get_or_insert_with(|| text.clone()), &text);
    }
}

/// A page and its member, as small as they get.
fn small() -> (Vec<u8>, Member) {
    let page = vec![7; PAGE_BYTES];
    let member = Member::of(&page);
    (page, member)
}

#[test]
fn a_packet_is_a_member_for_every_64_kib_with_sizes_that_are_true() {
    let pages = packet();
    let payload = Sender::new(&codec(), None).send(&pages);
    let mut rest = &payload[..];
    for bytes in pages.chunks(64 << 10) {
        let header = b"\x1f\x8b\x08\x04\0\0\0\0\0\xff\x0c\0QZ\x08\0";
        let member = rest.strip_prefix(header).unwrap();
        let sizes = member.first_chunk::<8>().unwrap();
        let [source, deflate] = [&sizes[..4], &sizes[4..]]
            .map(|size| u32::from_le_bytes(size.try_into().unwrap()) as usize);
        assert_eq!(source, bytes.len());
        assert!(
            Member::of(bytes).with_deflate(&member[8..8 + deflate]).bytes()
                == rest[..header.len() + 8 + deflate + 8]
        );
        rest = &member[8 + deflate + 8..];
    }
    assert!(rest.is_empty());
}

#[test]
fn zlib_reads_the_members_of_every_page_size() {
    for page_size in PageSize::ALL {
        let mut all = packet();
        all.truncate(page_size.bytes() * 7);
        for pages in [packet(), all] {
            let payload = Sender::of_pages(&codec(), None, page_size).send(&pages);
            let mut inflated = Vec::new();
            MultiGzDecoder::new(&payload[..]).read_to_end(&mut inflated).unwrap();
            assert!(inflated == pages, "pages of {page_size}");
        }
    }
}

#[test]
fn what_does_not_get_shorter_is_stored_and_stays_below_the_packets_bound() {
    let pages = noise(PACKET_BYTES);
    let payload = Sender::new(&codec(), None).send(&pages);
    // A header of 24 bytes, two stored blocks with 5 each, and a trailer of 8.
    assert_eq!(payload.len(), pages.len() + 8 * (24 + 2 * 5 + 8));
    taken(&payload, &pages);
    let page = &pages[..PAGE_BYTES];
    let payload = Sender::new(&codec(), None).send(page);
    assert_eq!(payload, Member::of(page).with_deflate(&stored(page)).bytes());
}

#[test]
fn every_form_of_member_is_taken() {
    let pages = packet();
    // One of the whole packet, as QATzip makes it in software, or of 64 KiB, or less than a page.
    taken(&Member::of(&pages).bytes(), &pages);
    taken(&Member::of(&pages).plain().bytes(), &pages);
    for size in [64 << 10, 1000, PAGE_BYTES] {
        let members = pages.chunks(size).map(Member::of);
        taken(&members.clone().flat_map(|member| member.bytes()).collect::<Vec<_>>(), &pages);
        taken(
            &members.clone().flat_map(|member| member.plain().bytes()).collect::<Vec<_>>(),
            &pages,
        );
        let mixed = members.enumerate().flat_map(|(number, member)| {
            if number % 2 == 0 { member.bytes() } else { member.plain().bytes() }
        });
        taken(&mixed.collect::<Vec<_>>(), &pages);
    }
    let (page, member) = small();
    for member in [member.clone(), member.plain()] {
        for xfl in [0, 2, 4] {
            // Of any time and system.
            for (time, os) in [([0; 4], 0xff), ([1, 2, 3, 4], 3)] {
                let mut member = member.clone();
                member.header[4..8].copy_from_slice(&time);
                member.header[8] = xfl;
                member.header[9] = os;
                taken(&member.bytes(), &page);
            }
        }
    }
    taken(&member.clone().with_deflate(&stored(&page)).bytes(), &page);
    taken(&member.with_deflate(&stored(&page)).plain().bytes(), &page);
}

#[test]
fn a_match_may_reach_32_kib_back() {
    let mut pages = noise(32 << 10);
    pages.extend_from_within(..PAGE_BYTES);
    // The first 32 KiB are stored. Then in the fixed code 15 matches of 258 bytes and one of 226, with the
    // distance 32768, each with its bits in the order in which they are written, and the end.
    let matches = ["11000101", "11101", "1111111111111"].concat().repeat(15);
    let last = ["11000011", "11111", "11101", "1111111111111", "0000000"].concat();
    let bits = ["1", "10", &matches, &last].concat();
    let bytes = bits
        .as_bytes()
        .chunks(8)
        .map(|bits| bits.iter().rev().fold(0, |byte, &bit| byte << 1 | (bit - b'0')));
    let mut deflate = stored(&pages[..32 << 10]);
    deflate[0] = 0;
    deflate.extend(bytes);
    let member = Member::of(&pages).with_deflate(&deflate);
    taken(&member.bytes(), &pages);
    taken(&member.plain().bytes(), &pages);
}

#[test]
fn a_header_that_is_not_of_such_a_member_is_an_error() {
    let (_, member) = small();
    refused(&[0x1f], 1, "it ends in the header");
    refused(&member.bytes()[..9], 1, "it ends in the header");
    for at in 0..3 {
        let mut member = member.clone();
        member.header[at] ^= 1;
        refused(&member.bytes(), 1, "a gzip member begins with");
    }
    // A text, a CRC-16, a name, a comment, and what is reserved.
    for flags in [1, 2, 8, 0x10, 0x20, 0x40, 0x80, 0x0c, 0x14] {
        let mut member = member.clone();
        member.header[3] = flags;
        refused(&member.bytes(), 1, "a gzip member has the flags");
    }
    for xfl in [1, 3, 5, 0xff] {
        let mut member = member.clone();
        member.header[8] = xfl;
        refused(&member.bytes(), 1, "a gzip member has XFL");
    }
}

#[test]
fn an_extra_field_that_is_not_qatzips_is_an_error() {
    let (_, member) = small();
    for at in 0..6 {
        let mut member = member.clone();
        member.extra[at] ^= 1;
        refused(&member.bytes(), 1, "extra field begins with");
    }
    for bytes in [10, 11, 15, 16, 23] {
        refused(&member.bytes()[..bytes], 1, "it ends in the extra field");
    }
}

#[test]
fn sizes_in_the_extra_field_that_are_not_true_are_an_error() {
    let (page, member) = small();
    let sized = |source: usize, deflate: usize| member.clone().with_sizes(source, deflate).bytes();
    let deflate = member.deflate.len();
    refused(&sized(PAGE_BYTES - 1, deflate), 1, "more");
    refused(&sized(PAGE_BYTES + 1, deflate), 1, "4096 of the packet's pages are left");
    refused(&sized(PAGE_BYTES + 1, deflate), 2, "4096 bytes");
    refused(&sized(0, deflate), 1, "in a gzip member said to inflate to 0 bytes");
    refused(&sized(u32::MAX as usize, deflate), 1, "says that it inflates to 4294967295 bytes");
    refused(&sized(PAGE_BYTES, deflate - 1), 1, "in a gzip member said to inflate to 4096 bytes");
    refused(&sized(PAGE_BYTES, deflate + 1), 1, "says that it has");
    refused(&sized(PAGE_BYTES, deflate + 8), 1, "says that it has");
    refused(&sized(PAGE_BYTES, deflate + 9), 1, "are left");
    refused(&sized(PAGE_BYTES, u32::MAX as usize), 1, "says that it has 4294967295 bytes");
    taken(&sized(PAGE_BYTES, deflate), &page);
}

#[test]
fn a_trailer_that_is_not_true_is_an_error() {
    let (_, member) = small();
    for member in [member.clone(), member.plain()] {
        for at in 0..8 {
            let mut member = member.clone();
            member.trailer[at] ^= 0x10;
            refused(&member.bytes(), 1, if at < 4 { "with the CRC-32" } else { "its ISIZE is" });
        }
        let bytes = member.bytes();
        for cut in 1..=8 {
            refused(&bytes[..bytes.len() - cut], 1, "it ends in the trailer");
        }
    }
}

#[test]
fn a_member_of_no_byte_is_an_error() {
    let (page, member) = small();
    let empty = Member::of(&[]);
    for empty in [empty.bytes(), empty.plain().bytes()] {
        refused(&[&empty, &member.bytes()[..]].concat(), 1, "inflates to no byte");
        refused(&[&member.bytes(), &empty[..]].concat(), 1, "bytes behind the packet's pages");
    }
    taken(&member.bytes(), &page);
}

#[test]
fn anything_but_exactly_the_packets_pages_is_an_error() {
    let (page, member) = small();
    for member in [member.clone(), member.plain()] {
        let bytes = member.bytes();
        refused(&bytes, 2, "it ends in the header");
        refused(&[&bytes[..], &[0]].concat(), 1, "1 bytes behind the packet's pages");
        refused(&[&bytes[..], &bytes].concat(), 1, "bytes behind the packet's pages");
        refused(&[&[0], &bytes[..]].concat(), 1, "a gzip member begins with");
        refused(&[&bytes[..], &[0], &bytes].concat(), 2, "a gzip member begins with");
    }
    let longer = [&page[..], &[7]].concat();
    refused(&Member::of(&longer).bytes(), 1, "4096 of the packet's pages are left");
    refused(&Member::of(&longer).plain().bytes(), 1, "more than is left of the packet's pages");
    let shorter = &page[1..];
    refused(&Member::of(shorter).bytes(), 1, "it ends in the header");
    refused(&Member::of(shorter).plain().bytes(), 1, "it ends in the header");
}

#[test]
fn a_deflate_stream_that_is_malformed_is_an_error() {
    let (page, member) = small();
    let deflated = deflate(&page);
    let mut open = deflated.clone();
    open[0] &= !1;
    // None; block type 3; a distance to before the start; cut short; not the last block.
    let cut = &deflated[..deflated.len() - 1];
    for deflate in [&[][..], &[7], &[0x03, 0x02, 0], cut, &open] {
        let member = member.clone().with_deflate(deflate);
        refused(&member.bytes(), 1, "in a gzip member said to inflate to 4096 bytes");
        let plain = member.plain().bytes();
        assert!(Receiver::new(&codec()).receive(&plain, 1).is_err(), "{deflate:x?}");
        refused(&plain[..plain.len() - 8], 1, "gzip member");
    }
    let mut behind = deflated;
    behind.push(0);
    refused(&member.with_deflate(&behind).bytes(), 1, "bytes of DEFLATE, it has");
}
