//! Arbitrary bytes as packets.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use multifd_core::PageSize;
use multifd_core::wire::{
    BlockName, DeviceStatePacket, InitialPacket, PacketHeader, RamPacket, RamPacketBuilder,
};
use multifd_core::{Compression, MAX_PAYLOAD};
use proptest::prelude::*;

fn page_size() -> impl Strategy<Value = PageSize> {
    prop::sample::select(&PageSize::ALL[..])
}

/// A valid packet, and some of its bytes changed: those of the fixed part, mostly.
fn damaged_packet() -> impl Strategy<Value = (PageSize, Vec<u8>)> {
    let pages = prop::collection::vec(0..1000_u64, 0..8);
    let changes = prop::collection::vec((0..400_usize, any::<u8>()), 0..6);
    (page_size(), pages.clone(), pages, changes).prop_map(|(page_size, normal, zero, changes)| {
        let offset = |page: u64| page * page_size.bytes() as u64;
        let (mut normal, mut zero): (Vec<_>, Vec<_>) =
            (normal.into_iter().map(offset).collect(), zero.into_iter().map(offset).collect());
        normal.truncate(page_size.page_count() / 2);
        zero.truncate(page_size.page_count() / 2);
        let name = BlockName::new("pc.ram").unwrap();
        let payload = normal.len() * page_size.bytes();
        let mut builder = RamPacketBuilder::new(page_size);
        let pages = [&normal[..], &zero[..]];
        let mut bytes = builder.pages(Compression::None, 1, &name, pages, payload).to_vec();
        for (at, byte) in changes {
            if let Some(target) = bytes.get_mut(at) {
                *target = byte;
            }
        }
        (page_size, bytes)
    })
}

proptest! {
    #[test]
    fn what_parses_as_a_ram_packet_is_within_every_bound((page_size, bytes) in damaged_packet()) {
        let Ok(packet) = RamPacket::parse(&bytes, page_size) else { return Ok(()) };
        prop_assert!(packet.payload_bytes <= MAX_PAYLOAD);
        match packet.pages {
            None => prop_assert_eq!(packet.payload_bytes, 0),
            Some(pages) => {
                let (normal, zero) = (pages.normal.len(), pages.zero.len());
                prop_assert!((1..=page_size.page_count()).contains(&(normal + zero)));
                prop_assert_eq!(packet.payload_bytes == 0, normal == 0);
                prop_assert!(!pages.block.is_empty());
                let mut offsets = pages.normal.iter().chain(pages.zero);
                prop_assert!(offsets.all(|offset| page_size.is_aligned(offset.get())));
            }
        }
    }

    #[test]
    fn bytes_of_any_length_and_content_are_parsed_or_refused(
        page_size in page_size(),
        bytes in prop::collection::vec(any::<u8>(), 0..2000),
    ) {
        _ = RamPacket::parse(&bytes, page_size);
        if let Some(bytes) = bytes.first_chunk() {
            _ = PacketHeader::parse(bytes);
        }
        if let Some(bytes) = bytes.first_chunk() {
            _ = InitialPacket::parse(bytes);
        }
        if let Some(bytes) = bytes.first_chunk() {
            _ = DeviceStatePacket::parse(bytes);
        }
    }

    #[test]
    fn an_undamaged_packet_says_what_was_written(
        page_size in page_size(),
        pages in prop::collection::btree_set(0..1000_u64, 1..8),
        packet_num: u64,
    ) {
        let offsets: Vec<_> = pages.iter().map(|page| page * page_size.bytes() as u64).collect();
        let (normal, zero) = offsets.split_at(offsets.len() / 2);
        let name = BlockName::new("/rom@etc/acpi/tables").unwrap();
        let payload = normal.len() * page_size.bytes();
        let mut builder = RamPacketBuilder::new(page_size);
        let bytes = builder.pages(Compression::None, packet_num, &name, [normal, zero], payload);
        let packet = RamPacket::parse(bytes, page_size).unwrap();
        prop_assert_eq!(packet.packet_num, packet_num);
        prop_assert_eq!(packet.compression(), Compression::None);
        let parsed = packet.pages.unwrap();
        prop_assert_eq!(parsed.block, name.as_str());
        prop_assert!(parsed.normal.iter().map(|offset| offset.get()).eq(normal.iter().copied()));
        prop_assert!(parsed.zero.iter().map(|offset| offset.get()).eq(zero.iter().copied()));
    }
}
