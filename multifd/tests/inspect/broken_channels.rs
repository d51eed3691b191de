//! Recordings with one thing wrong on the multifd channels: just that is found, and where.

use multifd::inspect::Connection::Channel;

use crate::streams::{INITIAL, PACKET, Streams, get64, put32, put64};

#[test]
fn a_wrong_magic_of_the_initial_packet() {
    Streams::named("zlib").with(|streams| streams.channels[1][0] = b'Q').has_only(
        "malformed",
        Channel(1),
        0,
        "not with multifd's magic",
    );
}

#[test]
fn a_wrong_version_of_the_initial_packet() {
    Streams::named("zlib").with(|streams| streams.channels[0][7] = 2).has_only(
        "malformed",
        Channel(0),
        4,
        "version 2",
    );
}

#[test]
fn the_id_of_another_channel() {
    Streams::named("zstd").with(|streams| streams.channels[2][24] = 1).has_only(
        "repeated-channel-id",
        Channel(2),
        24,
        "the id 1, which channel 1 also has",
    );
}

#[test]
fn an_id_at_the_number_of_channels() {
    Streams::named("zstd").with(|streams| streams.channels[2][24] = 3).has_only(
        "channel-id",
        Channel(2),
        24,
        "there are 3 channels",
    );
}

#[test]
fn another_uuid() {
    Streams::named("zlib").with(|streams| streams.channels[1][8] ^= 1).has_only(
        "uuid",
        Channel(1),
        8,
        "the first channel has 01020304-",
    );
}

#[test]
fn a_wrong_magic_of_a_packet() {
    let streams = Streams::named("qpl");
    let at = streams.pages(0).start;
    streams.with(|streams| streams.channels[0][at + 3] ^= 0x10).has_only(
        "malformed",
        Channel(0),
        at,
        "0x11223354",
    );
}

#[test]
fn a_flag_that_is_not_defined() {
    let streams = Streams::named("none");
    let at = streams.pages(1).start;
    streams.with(|streams| streams.channels[1][at + 10] = 1).has_only(
        "malformed",
        Channel(1),
        at + 8,
        "flags 0x100",
    );
}

#[test]
fn device_state_with_a_sync() {
    let streams = Streams::named("none");
    let at = streams.last_sync(1).start;
    streams.with(|streams| streams.channels[1][at + 11] = 0x41).has_only(
        "malformed",
        Channel(1),
        at + 8,
        "flags 0x41",
    );
}

#[test]
fn device_state_beside_a_codec() {
    let packet = [
        &[0x11, 0x22, 0x33, 0x44, 0, 0, 0, 1, 0, 0, 0, 0x40][..],
        b"vfio",
        &[0; 252 + 4],
        &[0, 0, 0, 3],
        b"abc",
    ]
    .concat();
    let insert = |name: &str| {
        Streams::named(name).with(|streams| {
            streams.channels[1].splice(INITIAL..INITIAL, packet.iter().copied());
        })
    };
    assert_eq!(insert("none").inspect().findings.errors(), 0);
    assert_eq!(insert("none").inspect().channels[1].device_state, 1);
    insert("zstd").has_only("device-state-compression", Channel(1), INITIAL, "allows, not zstd");
}

#[test]
fn more_slots_than_a_packet_has() {
    let streams = Streams::named("zstd");
    let at = streams.pages(2).start;
    streams.with(|streams| put32(&mut streams.channels[2], at + 12, 129)).has_only(
        "malformed",
        Channel(2),
        at + 12,
        "pages_alloc is 129, a packet has 128",
    );
}

#[test]
fn more_pages_than_slots() {
    let streams = Streams::named("zstd");
    let at = streams.pages(0).start;
    let with = |field: usize| {
        streams.clone().with(|streams| put32(&mut streams.channels[0], at + field, 129))
    };
    with(16).has_only("malformed", Channel(0), at + 16, "normal_pages is 129");
    with(32).has_only("malformed", Channel(0), at + 32, "zero_pages is 129");
}

#[test]
fn a_payload_size_that_the_codec_does_not_have() {
    for (name, size) in [("none", 4095), ("zlib", (1 << 20) + 1), ("qpl", 3), ("zstd", 0)] {
        let streams = Streams::named(name);
        let at = streams.pages(0).start;
        streams.with(|streams| put32(&mut streams.channels[0], at + 20, size)).has_only(
            "malformed",
            Channel(0),
            at + 20,
            &format!("next_packet_size is {size}"),
        );
    }
}

#[test]
fn an_offset_inside_a_page() {
    let streams = Streams::named("none");
    let at = streams.pages(0).start;
    streams.with(|streams| streams.channels[0][at + 320 + 7] = 1).has_only(
        "malformed",
        Channel(0),
        at + 320,
        "not a multiple of the page size",
    );
}

#[test]
fn an_offset_past_the_end_of_its_block() {
    let streams = Streams::named("none");
    let at = streams.pages(0).start;
    for offset in [4 << 20, 1 << 60, u64::MAX << 12] {
        let streams =
            streams.clone().with(|streams| put64(&mut streams.channels[0], at + 328, offset));
        streams.has_only("outside-block", Channel(0), at + 328, "past the end of the RAM block");
        let note = streams.inspect();
        let never = note.findings.iter().find(|finding| finding.kind.code() == "never-sent");
        assert!(never.unwrap().to_string().contains("1 of the 1024 pages of 'pc.ram' never came"));
    }
}

#[test]
fn a_block_that_the_main_channel_does_not_list() {
    let streams = Streams::named("zlib");
    let at = streams.pages(0).start;
    streams.with(|streams| streams.channels[0][at + 64] = b'x').has_only(
        "unknown-block",
        Channel(0),
        at + 64,
        "names the RAM block 'x",
    );
}

#[test]
fn a_block_name_that_is_no_name() {
    for (byte, words) in [(0, "empty"), (0xff, "not UTF-8")] {
        let streams = Streams::named("zlib");
        let at = streams.pages(0).start;
        streams.with(|streams| streams.channels[0][at + 64] = byte).has_only(
            "malformed",
            Channel(0),
            at + 64,
            words,
        );
    }
}

#[test]
fn a_packet_of_another_codec() {
    let streams = Streams::named("zlib");
    let at = streams.packets(1).into_iter().filter(|packet| packet.len() > PACKET).nth(1);
    let at = at.unwrap().start;
    streams.with(|streams| streams.channels[1][at + 11] = 4).has_only(
        "compression",
        Channel(1),
        at + 8,
        "compressed with zstd, earlier packets with zlib",
    );
}

#[test]
fn two_packets_in_the_wrong_order() {
    let streams = Streams::named("zstd");
    let [one, other] = &streams.packets(0)[1..3] else { panic!() };
    let swapped = [&streams.channels[0][other.clone()], &streams.channels[0][one.clone()]].concat();
    let (start, end, second) = (one.start, other.end, one.start + other.len());
    streams
        .with(|streams| {
            streams.channels[0].splice(start..end, swapped);
        })
        .has_only("number-order", Channel(0), second + 24, "it must grow along a channel");
}

#[test]
fn a_packet_that_comes_twice() {
    let streams = Streams::named("zstd");
    let packet = streams.pages(0);
    let bytes = streams.channels[0][packet.clone()].to_vec();
    let streams = streams.with(|streams| {
        streams.channels[0].splice(packet.end..packet.end, bytes);
    });
    streams.has_only("number-order", Channel(0), packet.end + 24, "after");
    let report = streams.inspect();
    assert!(report.findings.iter().any(|finding| finding.kind.code() == "repeated-in-round"));
}

#[test]
fn a_number_that_another_channel_has() {
    let streams = Streams::named("qpl");
    let (own, other) = (streams.packets(1), streams.packets(0));
    // The first number of the other channel is the second of all; this channel has the first.
    let number = get64(&streams.channels[0], other[0].start + 24);
    assert!(number > get64(&streams.channels[1], own[0].start + 24));
    assert!(number < get64(&streams.channels[1], own[2].start + 24));
    let at = own[1].start + 24;
    let streams = streams.with(|streams| put64(&mut streams.channels[1], at, number));
    streams.has("repeated-number", Channel(1), at, &format!("packet_num is {number}"));
    streams.has("missing-numbers", Channel(0), 0, "1 packet numbers are missing");
}

#[test]
fn a_packet_that_is_lost() {
    let streams = Streams::named("none");
    let packet = streams.pages(1);
    let number = get64(&streams.channels[1], packet.start + 24);
    let streams = streams.with(|streams| drop(streams.channels[1].drain(packet)));
    let words = format!("1 packet numbers are missing, the first is {number}");
    streams.has_only("missing-numbers", Channel(0), 0, &words);
    let report = streams.inspect();
    assert!(report.findings.iter().any(|finding| finding.kind.code() == "never-sent"));
}

#[test]
fn the_last_channel_is_lost() {
    for name in ["zstd", "qemu-7.2-zlib"] {
        let streams = Streams::named(name).with(|streams| drop(streams.channels.pop()));
        streams.has_only("missing-numbers", Channel(0), 0, "or a channel are lost");
    }
}

#[test]
fn another_channel_than_the_last_is_lost() {
    let streams = Streams::named("zstd").with(|streams| drop(streams.channels.remove(1)));
    streams.has("channel-id", Channel(1), 24, "the id 2, but there are 2 channels");
    streams.has("missing-numbers", Channel(0), 0, "lost");
}

#[test]
fn a_sync_that_is_lost_at_the_end() {
    let streams = Streams::named("zlib");
    let sync = streams.last_sync(1);
    let streams = streams.with(|streams| streams.channels[1].truncate(sync.start));
    streams.has("sync-count", Channel(1), sync.start, "2 SYNC packets, the main channel has 3");
    streams.has("missing-numbers", Channel(0), 0, "1 packet numbers are missing");
}

#[test]
fn a_sync_that_is_lost_in_between() {
    let streams = Streams::named("zlib");
    let first = streams.packets(0)[0].clone();
    let end = streams.channels[0].len() - first.len();
    let streams = streams.with(|streams| drop(streams.channels[0].drain(first)));
    streams.has("sync-count", Channel(0), end, "2 SYNC packets");
    streams.has("missing-numbers", Channel(0), 0, "the first is 0");
}

#[test]
fn a_sync_too_many() {
    let streams = Streams::named("zlib");
    let (end, number) = (streams.channels[0].len(), 19);
    let sync = streams.channels[0][streams.last_sync(0)].to_vec();
    let streams = streams.with(|streams| {
        streams.channels[0].extend(sync);
        put64(&mut streams.channels[0], end + 24, number);
    });
    streams.has_only("sync-count", Channel(0), end + PACKET, "4 SYNC packets");
}

#[test]
fn pages_after_the_last_sync() {
    let streams = Streams::named("zlib");
    let end = streams.channels[1].len();
    let pages = streams.channels[1][streams.pages(1)].to_vec();
    let streams = streams.with(|streams| {
        streams.channels[1].extend(pages);
        put64(&mut streams.channels[1], end + 24, 19);
    });
    streams.has_only("after-last-sync", Channel(1), end, "1 packets with pages");
}

#[test]
fn an_empty_packet_after_the_last_sync_is_only_unusual() {
    let streams = Streams::named("zlib");
    let end = streams.channels[1].len();
    let mut empty = streams.channels[1][streams.last_sync(1)].to_vec();
    empty[11] = 0;
    let streams = streams.with(|streams| streams.channels[1].extend(empty));
    streams.has_note("empty", Channel(1), end, "neither pages nor SYNC");
}

#[test]
fn a_channel_that_is_cut_off() {
    let streams = Streams::named("qpl");
    let pages = streams.pages(1);
    let (start, end) = (pages.start, pages.end);
    for (length, words) in [
        (0, "the initial packet, of which 64 bytes"),
        (63, "the initial packet, of which 1 bytes"),
        (start + 5, "a packet's header, of which 7 bytes"),
        (start + 12, "a packet, of which 1332 bytes"),
        (start + PACKET + 1, "a payload's lengths, of which"),
        (end - 1, "a payload, of which 1 bytes"),
    ] {
        let streams = streams.clone().with(|streams| streams.channels[1].truncate(length));
        streams.has_only("cut", Channel(1), length, words);
    }
}

#[test]
fn the_lengths_of_pages_that_do_not_add_up() {
    let streams = Streams::named("qpl");
    let at = streams.pages(0).start + PACKET;
    for (length, words) in [(0, "length is 0"), (4097, "length is 4097"), (77, "add up to")] {
        let streams = streams.clone();
        let streams = streams.with(|streams| put32(&mut streams.channels[0], at, length));
        streams.has_only("lengths", Channel(0), at, words);
    }
}

#[test]
fn a_page_on_two_channels_in_one_round() {
    let streams = Streams::named("none");
    let (one, other) = (streams.pages(0).start, streams.pages(1).start);
    let page = streams.channels[0][one + 320..one + 328].to_vec();
    let name = streams.channels[0][one + 64..one + 320].to_vec();
    assert_eq!(name, streams.channels[1][other + 64..other + 320]);
    let streams = streams.with(|streams| {
        streams.channels[1][other + 320..other + 328].copy_from_slice(&page);
    });
    streams.has_only("two-connections", Channel(1), other, "came on channel 0 in the same round");
}

#[test]
fn a_page_twice_in_a_packet_is_only_unusual() {
    let streams = Streams::named("none");
    let at = streams.pages(0).start;
    let streams =
        streams.with(|streams| streams.channels[0].copy_within(at + 320..at + 328, at + 328));
    streams.has_note("repeated-in-packet", Channel(0), at, "is in the packet twice");
}

#[test]
fn a_codec_that_no_qemu_knows_is_only_unusual() {
    let streams = Streams::named("zstd");
    let packets: Vec<_> = (0..3).map(|channel| streams.packets(channel)).collect();
    let first = packets[0].iter().find(|packet| packet.len() > PACKET).unwrap().start;
    let streams = streams.with(|streams| {
        for (channel, packets) in streams.channels.iter_mut().zip(&packets) {
            for packet in packets {
                // Zero pages alone have the codec, too.
                if channel[packet.start + 11] == 0x04 {
                    channel[packet.start + 11] = 0x06;
                }
            }
        }
    });
    streams.has_note("private-codec", Channel(0), first + 8, "private-0x06");
}

#[test]
fn unused_bytes_that_are_used_are_only_unusual() {
    let streams = Streams::named("zlib");
    let at = streams.pages(1).start;
    let streams = streams.with(|streams| streams.channels[1][at + 40] = 1);
    streams.has_note("unused", Channel(1), at, "unused bytes");
    Streams::named("zlib").with(|streams| streams.channels[0][30] = 1).has_note(
        "unused",
        Channel(0),
        0,
        "unused bytes",
    );
}
