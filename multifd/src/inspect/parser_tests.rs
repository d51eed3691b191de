//! Channels whole, in pieces and cut.

use multifd_core::wire::{BlockName, InitialPacket, RamPacketBuilder};
use multifd_core::{Compression, PageSize};

use super::chunks::Chunks;
use super::parser::{ChannelParser, Content};

/// The events of a channel that comes in pieces of `piece` bytes, as text, and its end.
fn events(bytes: &[u8], piece: usize) -> Vec<String> {
    let mut parser = ChannelParser::new(0);
    let mut events = Vec::new();
    for mut bytes in bytes.chunks(piece) {
        while let Some(event) = parser.next(&mut bytes, PageSize::Kib4) {
            events.push(format!("{event:?}"));
        }
    }
    events.push(format!("{:?}", parser.end()));
    events
}

fn qpl(lengths: &[u32], payload_bytes: usize) -> Option<Chunks> {
    let block = BlockName::new("pc.ram").unwrap();
    let offsets: Vec<_> = (0..lengths.len() as u64).map(|page| page << 12).collect();
    let mut packets = RamPacketBuilder::new(PageSize::Kib4);
    let head = packets.pages(Compression::Qpl, 0, &block, [&offsets, &[]], payload_bytes).to_vec();
    let lengths: Vec<u8> = lengths.iter().flat_map(|length| length.to_be_bytes()).collect();
    let chunks = vec![0; payload_bytes - lengths.len()];
    let initial = InitialPacket::new(Default::default(), 0).to_bytes();
    let bytes = [&initial[..], &head, &lengths, &chunks].concat();
    let mut parser = ChannelParser::new(0);
    let mut bytes = &bytes[..];
    parser.next(&mut bytes, PageSize::Kib4).unwrap();
    let event = parser.next(&mut bytes, PageSize::Kib4).unwrap();
    let Content::Ram { chunks, .. } = event.content else { panic!() };
    chunks
}

#[test]
fn the_size_of_the_pieces_changes_nothing() {
    for recording in multifd_conformance::recordings() {
        let bytes = recording.channels[0];
        let whole = events(bytes, bytes.len());
        assert!(whole.len() > 5 && whole.last().unwrap().contains("cut: None"));
        for piece in [1, 7, 1344, 4097] {
            assert_eq!(events(bytes, piece), whole, "{piece}");
        }
    }
}

#[test]
fn a_channel_says_where_it_was_cut() {
    let bytes = multifd_conformance::recordings()[5].channels[0];
    let end = |length: usize| events(&bytes[..length], 100).pop().unwrap();
    for (length, within, missing) in [
        (0, "the initial packet", 64),
        (63, "the initial packet", 1),
        (65, "a packet's header", 11),
        (64 + 12, "a packet", 1332),
        (64 + 1344 + 1343, "a packet", 1),
    ] {
        let cut = format!("within: {within:?}, missing: {missing} ");
        assert!(end(length).contains(&cut), "{length}: {}", end(length));
    }
    assert!(end(64).contains("cut: None"));
    assert!(end(64 + 2 * 1344 + 3).contains("a payload's lengths"));
    assert!(end(64 + 2 * 1344 + 600).contains("a payload\""));
}

#[test]
fn raw_and_compressed_pages_are_told_by_their_lengths() {
    let chunks = qpl(&[4096, 100, 4096], 12 + 8292).unwrap();
    assert_eq!(chunks, Chunks { raw: 2, fault: None });
}

#[test]
fn a_length_that_no_page_has_is_a_fault() {
    for (lengths, payload, words) in [
        ([0, 100], 108, "page 0's length is 0"),
        ([100, 4097], 8 + 4197, "page 1's length is 4097"),
        ([100, u32::MAX], 208, "page 1's length is 4294967295"),
        ([100, 100], 209, "add up to 200 bytes, but 201 follow"),
    ] {
        let fault = qpl(&lengths, payload).unwrap().fault.unwrap();
        assert!(fault.contains(words), "{fault}");
    }
}

#[test]
fn nothing_comes_after_what_is_malformed() {
    let mut bytes = multifd_conformance::recordings()[0].channels[0].to_vec();
    bytes[64] ^= 1;
    let events = events(&bytes, 50);
    assert_eq!(events.len(), 3, "{events:?}");
    assert!(events[1].contains("Malformed") && events[2].contains("cut: None"), "{events:?}");
}
