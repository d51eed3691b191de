//! Recordings with one thing wrong on the main channel: just that is found, and where.

use multifd::inspect::Connection::{Channel, Main};

use crate::streams::{Streams, put32};

/// Where the main channel's first section starts: behind the header and the machine's name.
fn first_section(streams: &Streams) -> usize {
    13 + u32::from_be_bytes(streams.main[9..13].try_into().unwrap()) as usize
}

fn find(streams: &Streams, what: &[u8]) -> usize {
    streams.main.windows(what.len()).position(|bytes| bytes == what).unwrap()
}

fn device_state(streams: &Streams) -> usize {
    streams.inspect().main.device_state.unwrap().offset as usize
}

#[test]
fn a_wrong_magic() {
    Streams::named("zlib").with(|streams| streams.main[0] = b'q').has_only(
        "main",
        Main,
        0,
        "not with \"QEVM\"",
    );
}

#[test]
fn an_obsolete_version() {
    Streams::named("zlib").with(|streams| streams.main[7] = 2).has_only(
        "main",
        Main,
        0,
        "version 2",
    );
}

#[test]
fn a_section_that_goes_on_before_it_starts() {
    let streams = Streams::named("zlib");
    let at = first_section(&streams);
    streams.with(|streams| streams.main[at] = 2).has_only(
        "main",
        Main,
        at,
        "the ram section goes on before its START",
    );
}

#[test]
fn a_section_that_starts_twice() {
    let streams = Streams::named("zlib");
    let at = first_section(&streams);
    let footer = find(&streams, b"\x7e\0\0\0");
    let start = streams.main[at..footer + 5].to_vec();
    let again = footer + 5;
    streams.with(|streams| drop(streams.main.splice(again..again, start))).has_only(
        "main",
        Main,
        again,
        "a second START",
    );
}

#[test]
fn a_footer_of_another_section() {
    let streams = Streams::named("zlib");
    let footer = find(&streams, b"\x7e\0\0\0");
    streams.with(|streams| streams.main[footer + 4] ^= 0x40).has_only(
        "main",
        Main,
        footer,
        "a FOOTER has the section id",
    );
}

#[test]
fn a_word_with_unknown_flags() {
    let streams = Streams::named("zlib");
    let flush = find(&streams, &0x200_u64.to_be_bytes());
    streams.with(|streams| streams.main[flush + 6] = 4).has_only(
        "main",
        Main,
        flush,
        "unknown flags 0x400",
    );
}

#[test]
fn a_flush_that_is_lost() {
    let streams = Streams::named("zlib");
    let flushes: Vec<_> = (0..device_state(&streams))
        .filter(|&at| streams.main[at..at + 8] == 0x200_u64.to_be_bytes())
        .collect();
    assert_eq!(flushes.len(), 3);
    let at = flushes[1];
    let streams = streams.with(|streams| drop(streams.main.drain(at..at + 8)));
    let words = "3 SYNC packets, the main channel has 2";
    streams.has("sync-count", Channel(0), streams.channels[0].len(), words);
    streams.has("sync-count", Channel(1), streams.channels[1].len(), words);
}

#[test]
fn a_main_channel_that_is_cut_off() {
    let streams = Streams::named("none");
    let state = device_state(&streams);
    for (length, what) in [(6, "the header"), (state, "a section"), (state + 500, "device state")] {
        streams
            .clone()
            .with(|streams| streams.main.truncate(length))
            .has_only("main", Main, length, what);
    }
}

#[test]
fn bytes_behind_the_end() {
    for name in ["none", "qemu-7.2-zstd"] {
        let streams = Streams::named(name);
        let end = streams.main.len();
        let streams = streams.with(|streams| streams.main.extend(b"more"));
        streams.has_only("main", Main, end, "4 bytes follow the VMDESCRIPTION");
    }
}

#[test]
fn bytes_behind_the_end_of_a_stream_with_a_return_path() {
    let streams = Streams::named("none");
    let at = first_section(&streams);
    let streams = streams.with(|streams| drop(streams.main.splice(at..at, [8, 0, 1, 0, 0])));
    assert_eq!(streams.inspect().findings.errors(), 0);
    let end = streams.main.len();
    // So many that they come in another piece.
    let streams = streams.with(|streams| streams.main.extend(vec![7; 200_000]));
    let report = streams.inspect();
    assert_eq!(report.findings.errors(), 1, "{:#?}", report.findings);
    let finding = report.findings.iter().next().unwrap();
    assert!(finding.to_string().contains("200000 bytes follow the VMDESCRIPTION"), "{finding}");
    assert_eq!(finding.place.offset, end as u64);
}

#[test]
fn a_device_footer_of_another_section() {
    let streams = Streams::named("zlib");
    let state = streams.inspect().main.device_state.unwrap();
    let cpu = state.sections.iter().find(|section| section.name == "cpu").unwrap();
    let footer = (cpu.offset + cpu.bytes) as usize - 5;
    let streams = streams.with(|streams| put32(&mut streams.main, footer + 1, 0x77));
    streams.has_only("description", Main, footer, "the FOOTER of 'cpu' has the section id 119");
}

#[test]
fn a_device_that_the_description_does_not_list() {
    let streams = Streams::named("zlib");
    let at = device_state(&streams);
    let streams = streams.with(|streams| streams.main[at + 6] ^= 1);
    streams.has_only("description", Main, at, "the device 'apic', instance 0");
}

#[test]
fn a_missing_description_is_only_unusual() {
    let streams = Streams::named("zlib");
    let state = streams.inspect().main.device_state.unwrap();
    let at = state.offset as usize;
    let length = streams.main.len() - state.description_bytes.unwrap() as usize - 5;
    let streams = streams.with(|streams| streams.main.truncate(length));
    streams.has_note("no-description", Main, at, "no VMDESCRIPTION");
}

#[test]
fn bytes_behind_the_end_of_a_stream_with_early_state() {
    let streams = Streams::named("zlib");
    let at = first_section(&streams);
    let early = b"\x08\0\x01\0\0\x04\0\0\0\x63\x01d\0\0\0\0\0\0\0\x01state\x7e\0\0\0\x63";
    let streams = streams.with(|streams| {
        streams.main.splice(at..at, *early);
        streams.main.extend(b"}\0\x06");
    });
    let end = streams.main.len() - 3;
    streams.has_only("trailing", Main, end, "3 bytes follow");
}

#[test]
fn another_uuid_than_the_channels() {
    let streams = Streams::named("zlib");
    let at = first_section(&streams);
    let subsection = [b"\x05\x12configuration/uuid\0\0\0\x01".as_slice(), &[7; 16]].concat();
    let streams = streams.with(|streams| drop(streams.main.splice(at..at, subsection)));
    streams.has_only("uuid", Channel(0), 8, "the main channel has 07070707-");
}

#[test]
fn a_zero_page_that_a_channel_sends_in_the_same_round() {
    let streams = Streams::named("zstd-zero-legacy");
    let pages = streams.pages(0).start;
    let page = u64::from_be_bytes(streams.channels[0][pages + 320..][..8].try_into().unwrap());
    assert!(streams.channels[0][pages + 64..].starts_with(b"pc.ram\0"));
    let first = find(&streams, b"\x02\x06pc.ram\0");
    // The word before the name, and the name of a block, a fill of 0 behind it.
    let word = first - 7;
    let streams = streams
        .with(|streams| streams.main[word..word + 8].copy_from_slice(&(page | 2).to_be_bytes()));
    let report = streams.inspect();
    let mut codes = report.findings.iter().map(|finding| finding.kind.code());
    assert_eq!(codes.next(), Some("two-connections"), "{:#?}", report.findings);
    assert_eq!(report.findings.errors(), 1, "{:#?}", report.findings);
}

#[test]
fn syncs_without_end_take_no_memory_each() {
    let streams = Streams::named("zstd-zero-legacy");
    let first = find(&streams, b"\x02\x06pc.ram\0") - 7;
    let flushes = 0x200_u64.to_be_bytes().repeat(300_000);
    let streams = streams.with(|streams| drop(streams.main.splice(first..first, flushes)));
    let report = streams.inspect();
    assert_eq!((report.rounds.len(), report.main.syncs), (100_000, 300_003));
    assert_eq!(report.rounds[99_999].main_zero_pages, report.main.zero_pages);
    streams.has("sync-count", Channel(0), streams.channels[0].len(), "the main channel has 300003");
}
