//! Whole streams: encoded, decoded, and framed as the format says.

use super::*;
use crate::PageSize;
use crate::ram::BlockDigest;
use crate::wire::{BlockName, Uuid};

/// Two blocks; the second has a longer name and is one page long.
pub(super) fn blocks(page_size: PageSize) -> Vec<BlockInfo> {
    let bytes = page_size.bytes() as u64;
    vec![block("pc.ram", 4 * bytes), block("/rom@etc/acpi/rsdp", bytes)]
}

pub(super) fn block(name: &str, bytes: u64) -> BlockInfo {
    BlockInfo::new(BlockName::new(name).unwrap(), bytes)
}

/// A device state of one FULL section, ending in its FOOTER and EOF.
pub(super) const DEVICES: &[u8] =
    b"\x04\0\0\0\x02\x05timer\0\0\0\0\0\0\0\x02\x00\x06\0\0\0\0{}\x7e\0\0\0\x02\0";

/// [`DEVICES`] and a VMDESCRIPTION.
pub(super) fn described_devices() -> Vec<u8> {
    let json = br#"{"configuration": {"}": "\"{"}, "page_size": 4096, "devices": [{"a": [1]}]}"#;
    let length = json.len() as u32;
    [DEVICES, b"\x06", &length.to_be_bytes(), json].concat()
}

/// A source's stream with everything in it that a decoder takes.
pub(super) fn stream(encoder: MainEncoder, sync: SyncForm) -> Vec<u8> {
    let configuration = Configuration::new("pc-i440fx-10.0");
    encode(encoder, &configuration, sync, &described_devices())
}

fn encode(
    mut encoder: MainEncoder,
    configuration: &Configuration,
    sync: SyncForm,
    devices: &[u8],
) -> Vec<u8> {
    let page_size = configuration.page_size().unwrap_or_default();
    let bytes = page_size.bytes();
    encoder.header(configuration).unwrap();
    encoder.open_return_path().unwrap();
    encoder.ping(1).unwrap();
    encoder.ram_start(2, 0, &blocks(page_size), sync).unwrap();
    encoder.part_begin().unwrap();
    encoder.zero_page(0, 0).unwrap();
    encoder.zero_page(0, 3 * bytes as u64).unwrap();
    encoder.zero_page(1, 0).unwrap();
    encoder.page(1, 0, &vec![0x5a; bytes]).unwrap();
    encoder.sync().unwrap();
    encoder.body_end().unwrap();
    encoder.switchover_start().unwrap();
    encoder.end_begin().unwrap();
    encoder.zero_page(0, 0).unwrap();
    encoder.sync().unwrap();
    encoder.body_end().unwrap();
    encoder.ping(0xffff_fffe).unwrap();
    encoder.device_state(devices).unwrap();
    encoder.bytes().to_vec()
}

/// A stream that is only RAM, without a return path.
fn ram_alone() -> Vec<u8> {
    let mut encoder = MainEncoder::new();
    encoder.header(&Configuration::new("pc")).unwrap();
    encoder.ram_start(1, 0, &blocks(PageSize::Kib4), SyncForm::Flush).unwrap();
    encoder.ram_end().unwrap();
    encoder.no_device_state().unwrap();
    encoder.bytes().to_vec()
}

/// What [`stream`] says.
fn expected(configuration: &Configuration, sync: SyncForm, devices: &[u8]) -> Vec<MainEvent> {
    let page_size = configuration.page_size().unwrap_or_default();
    let data = vec![0x5a; page_size.bytes()].into_boxed_slice();
    vec![
        MainEvent::Configuration(configuration.clone()),
        MainEvent::OpenReturnPath,
        MainEvent::Ping(1),
        MainEvent::RamStart { section_id: 2, instance_id: 0, blocks: blocks(page_size), sync },
        MainEvent::Sync,
        MainEvent::ZeroPage { block: 0, offset: 0 },
        MainEvent::ZeroPage { block: 0, offset: 3 * page_size.bytes() as u64 },
        MainEvent::ZeroPage { block: 1, offset: 0 },
        MainEvent::Page { block: 1, offset: 0, data },
        MainEvent::Sync,
        MainEvent::BodyEnd { last: false },
        MainEvent::SwitchoverStart,
        MainEvent::ZeroPage { block: 0, offset: 0 },
        MainEvent::Sync,
        MainEvent::BodyEnd { last: true },
        MainEvent::Ping(0xffff_fffe),
        MainEvent::DeviceState(devices.to_vec()),
    ]
}

/// All events, each with the offset where it ends.
pub(super) type Ends = Vec<(u64, MainEvent)>;

/// What `decoder` says of a stream that comes in pieces of `size` bytes: its events, and the error
/// that ends it.
pub(super) fn decode_in_pieces(
    decoder: MainDecoder,
    bytes: &[u8],
    size: usize,
) -> (Ends, Option<StreamError>) {
    decode_pieces(decoder, bytes.chunks(size))
}

/// The same of pieces of any sizes. Of each, every event leaves what lies behind it.
pub(super) fn decode_pieces<'a>(
    mut decoder: MainDecoder,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> (Ends, Option<StreamError>) {
    let (mut events, mut start) = (Vec::new(), 0);
    for piece in pieces {
        let mut rest = piece;
        loop {
            match decoder.next(&mut rest) {
                Ok(Some(event)) => {
                    let of_piece = decoder.offset().saturating_sub(start) as usize;
                    assert_eq!(rest, &piece[of_piece..], "behind {event:?}");
                    events.push((decoder.offset(), event));
                }
                Ok(None) => break,
                Err(error) => return (events, Some(error)),
            }
        }
        start += piece.len() as u64;
    }
    loop {
        match decoder.finish() {
            Ok(Some(event)) => events.push((decoder.offset(), event)),
            Ok(None) => return (events, None),
            Err(error) => return (events, Some(error)),
        }
    }
}

/// What a stream says, at once and byte by byte.
pub(super) fn decode(bytes: &[u8]) -> Result<Vec<MainEvent>, StreamError> {
    let decode = |size| decode_in_pieces(MainDecoder::new(Limits::default()), bytes, size);
    let whole = decode(usize::MAX);
    // Miri takes milliseconds for each piece.
    assert_eq!(decode(if cfg!(miri) { 61 } else { 1 }), whole);
    match whole {
        (events, None) => Ok(events.into_iter().map(|(_, event)| event).collect()),
        (_, Some(error)) => Err(error),
    }
}

#[test]
fn what_is_encoded_is_decoded_in_both_sync_forms() {
    let configuration = Configuration::new("pc-i440fx-10.0");
    for sync in [SyncForm::Flush, SyncForm::EachSection] {
        let devices = described_devices();
        let bytes = encode(MainEncoder::new(), &configuration, sync, &devices);
        assert_eq!(decode(&bytes).unwrap(), expected(&configuration, sync, &devices), "{sync:?}");
        // Whose end is that of the stream.
        let bytes = encode(MainEncoder::new(), &configuration, sync, DEVICES);
        assert_eq!(decode(&bytes).unwrap(), expected(&configuration, sync, DEVICES), "{sync:?}");
    }
}

#[test]
fn any_split_gives_the_same_events_that_end_at_the_same_bytes() {
    for sync in [SyncForm::Flush, SyncForm::EachSection] {
        let bytes = stream(MainEncoder::new(), sync);
        let decode = |size| decode_in_pieces(MainDecoder::new(Limits::default()), &bytes, size);
        let whole = decode(usize::MAX);
        assert_eq!(whole.0.last().unwrap().0, bytes.len() as u64);
        let sizes = [1, 2, 3, 5, 7, 8, 9, 4095, 4096, 4097];
        for size in sizes.into_iter().skip(if cfg!(miri) { 6 } else { 0 }) {
            assert_eq!(decode(size), whole, "{sync:?}, {size}");
        }
    }
}

#[test]
fn a_stream_without_footers_says_the_same_and_is_known_as_such() {
    let with = stream(MainEncoder::new(), SyncForm::Flush);
    let without = stream(MainEncoder::new().with_footers(false), SyncForm::Flush);
    assert_eq!(with.len() - without.len(), 15);
    assert_eq!(decode(&with).unwrap(), decode(&without).unwrap());
    for (bytes, footers) in [(&with, true), (&without, false)] {
        let mut decoder = MainDecoder::new(Limits::default());
        let mut rest = &bytes[..];
        while decoder.next(&mut rest).unwrap().is_some() {}
        assert_eq!((decoder.footers(), decoder.is_over()), (footers, true));
        assert_eq!(decoder.offset(), bytes.len() as u64);
    }
}

#[test]
fn subsections_of_the_configuration_are_decoded_and_set_the_page_size() {
    let capabilities = vec!["multifd".to_owned(), "return-path".to_owned()];
    let uuid = Uuid(*b"0123456789abcdef");
    let data = [
        SubsectionData::PageSize(PageSize::Kib64),
        SubsectionData::Capabilities(capabilities.clone()),
        SubsectionData::Uuid(uuid),
    ];
    let mut configuration = Configuration::new("virt-10.0");
    configuration.subsections = data.map(Subsection::new).to_vec();
    configuration.subsections[1].version = 7;
    let bytes = encode(MainEncoder::new(), &configuration, SyncForm::Flush, DEVICES);
    let events = expected(&configuration, SyncForm::Flush, DEVICES);
    assert_eq!(decode(&bytes).unwrap(), events);

    assert_eq!(configuration.page_size(), Some(PageSize::Kib64));
    assert_eq!(configuration.capabilities(), capabilities);
    assert_eq!(configuration.uuid(), Some(uuid));
    let mut decoder = MainDecoder::new(Limits::default());
    decoder.next(&mut &bytes[..]).unwrap();
    assert_eq!(decoder.page_size(), PageSize::Kib64);
}

#[test]
fn a_stream_without_a_configuration_has_no_machine() {
    let none = Configuration::default();
    let bytes = encode(MainEncoder::new(), &none, SyncForm::Flush, DEVICES);
    assert_eq!(bytes[8], section::COMMAND);
    assert_eq!(decode(&bytes).unwrap()[0], MainEvent::Configuration(none));
}

#[test]
fn the_page_size_that_is_expected_goes_for_a_source_that_does_not_say_it() {
    let mut encoder = MainEncoder::new().with_page_size(PageSize::Kib16);
    encoder.header(&Configuration::new("virt-10.0")).unwrap();
    encoder.ram_start(1, 0, &blocks(PageSize::Kib16), SyncForm::Flush).unwrap();
    let limits = Limits { page_size: Some(PageSize::Kib16), ..Limits::default() };
    let mut decoder = MainDecoder::new(limits);
    let mut bytes = encoder.bytes();
    decoder.next(&mut bytes).unwrap();
    let event = decoder.next(&mut bytes).unwrap();
    let Some(MainEvent::RamStart { blocks: list, .. }) = event else { panic!("{event:?}") };
    assert_eq!(list, blocks(PageSize::Kib16));
}

#[test]
fn a_stream_is_framed_byte_for_byte_as_the_format_says() {
    let block = [block("r", 0x3000)];
    let framed = |sync| {
        let mut encoder = MainEncoder::new();
        encoder.header(&Configuration::new("pc")).unwrap();
        encoder.ram_start(7, 0, &block, sync).unwrap();
        encoder.part_begin().unwrap();
        encoder.zero_page(0, 0x1000).unwrap();
        encoder.zero_page(0, 0x2000).unwrap();
        encoder.sync().unwrap();
        encoder.body_end().unwrap();
        encoder.ram_end().unwrap();
        encoder.no_device_state().unwrap();
        encoder.bytes().to_vec()
    };
    let start = b"QEVM\0\0\0\x03\x07\0\0\0\x02pc\x01\0\0\0\x07\x03ram\0\0\0\0\0\0\0\x04\
        \0\0\0\0\0\0\x30\x04\x01r\0\0\0\0\0\0\x30\0";
    let flush = b"\0\0\0\0\0\0\x02\0";
    let end_of_body = b"\0\0\0\0\0\0\0\x10\x7e\0\0\0\x07";
    let part = b"\x02\0\0\0\x07\0\0\0\0\0\0\x10\x02\x01r\0\0\0\0\0\0\0\x20\x22\0";
    let end = b"\x03\0\0\0\x07";
    let devices = b"\0\x06\0\0\0\x22{\"page_size\": 4096, \"devices\": []}";
    for (sync, flush) in [(SyncForm::Flush, flush.as_slice()), (SyncForm::EachSection, b"")] {
        let pieces: [&[u8]; 10] =
            [start, flush, end_of_body, part, flush, end_of_body, end, flush, end_of_body, devices];
        assert_eq!(framed(sync), pieces.concat(), "{sync:?}");
    }
}

#[test]
fn no_event_waits_for_bytes_that_come_after_it() {
    for sync in [SyncForm::Flush, SyncForm::EachSection] {
        let bytes = stream(MainEncoder::new(), sync);
        let new = || MainDecoder::new(Limits::default());
        let (events, _) = decode_in_pieces(new(), &bytes, usize::MAX);
        for (nth, (end, event)) in events.iter().enumerate() {
            // That CONFIGURATION has no more subsections shows in the byte after it.
            let mut needed = &bytes[..*end as usize + usize::from(nth == 0)];
            let mut decoder = new();
            for _ in 0..nth {
                decoder.next(&mut needed).unwrap();
            }
            assert_eq!(decoder.next(&mut needed).unwrap().as_ref(), Some(event));
            assert_eq!(needed.len(), usize::from(nth == 0), "what comes after is not taken");
        }
    }
}

#[test]
fn the_form_of_the_sync_is_known_before_the_first_sync() {
    for sync in [SyncForm::Flush, SyncForm::EachSection] {
        let events = decode(&stream(MainEncoder::new(), sync)).unwrap();
        let start = events.iter().position(|event| matches!(event, MainEvent::RamStart { .. }));
        let first = events.iter().position(|event| *event == MainEvent::Sync);
        assert_eq!(first, start.map(|start| start + 1));
        assert_eq!(events.iter().filter(|event| **event == MainEvent::Sync).count(), 3);
    }
}

#[test]
fn a_part_may_have_no_flush_or_several() {
    let mut encoder = MainEncoder::new();
    encoder.header(&Configuration::new("pc")).unwrap();
    encoder.ram_start(1, 0, &blocks(PageSize::Kib4), SyncForm::Flush).unwrap();
    for syncs in [0, 2] {
        encoder.part_begin().unwrap();
        for _ in 0..syncs {
            encoder.sync().unwrap();
        }
        encoder.body_end().unwrap();
    }
    encoder.ram_end().unwrap();
    encoder.no_device_state().unwrap();
    let events = decode(encoder.bytes()).unwrap();
    let (sync, part) = (MainEvent::Sync, MainEvent::BodyEnd { last: false });
    assert_eq!(events[2..7], [sync.clone(), part.clone(), sync.clone(), sync, part]);
}

#[test]
fn a_stream_with_a_return_path_is_complete_at_its_last_byte_and_takes_no_more() {
    let bytes = [&stream(MainEncoder::new(), SyncForm::Flush)[..], b"}\0\x06more"].concat();
    let mut decoder = MainDecoder::new(Limits::default());
    let (mut rest, mut last) = (&bytes[..], None);
    while let Some(event) = decoder.next(&mut rest).unwrap() {
        last = Some(event);
    }
    assert_eq!(last, Some(MainEvent::DeviceState(described_devices())));
    assert!(decoder.is_over());
    assert_eq!(decoder.next(&mut rest), Ok(None));
    assert_eq!(rest, b"}\0\x06more");
    assert_eq!(decoder.finish(), Ok(None));
}

#[test]
fn a_stream_without_a_return_path_is_complete_where_it_is_closed() {
    let bytes = ram_alone();
    let mut decoder = MainDecoder::new(Limits::default());
    let mut rest = &bytes[..];
    while let Some(event) = decoder.next(&mut rest).unwrap() {
        assert!(!matches!(event, MainEvent::DeviceState(_)));
    }
    assert!(rest.is_empty() && !decoder.is_over());
    let event = decoder.finish().unwrap();
    assert!(matches!(event, Some(MainEvent::DeviceState(_))), "{event:?}");
    assert_eq!(decoder.finish(), Ok(None));
}

#[test]
fn what_follows_a_stream_without_a_return_path_is_refused_where_it_starts() {
    let whole = ram_alone();
    let error = decode(&[&whole[..], b"more"].concat()).unwrap_err();
    let kind = StreamErrorKind::Trailing { bytes: 4 };
    assert_eq!(error, StreamError { offset: whole.len() as u64, kind });
}

#[test]
fn a_device_state_that_is_passed_ends_at_the_same_byte_and_is_not_kept() {
    let mut bytes = stream(MainEncoder::new(), SyncForm::Flush);
    let devices = bytes.len() - described_devices().len();
    bytes.splice(devices + 10..devices + 10, vec![0x7d; if cfg!(miri) { 600 } else { 10_000 }]);
    let limits = || Limits { device_state: 500, ..Limits::default() };
    for size in [if cfg!(miri) { 61 } else { 1 }, 1000, usize::MAX] {
        let decoder = MainDecoder::new(limits()).passing_device_state();
        let (events, error) = decode_in_pieces(decoder, &bytes, size);
        assert_eq!(error, None, "{size}");
        let (end, MainEvent::DeviceState(kept)) = events.last().unwrap() else { panic!() };
        assert_eq!(*end, bytes.len() as u64);
        assert!(kept.len() < 200 && bytes.ends_with(kept), "{} bytes are kept", kept.len());
    }
}

#[test]
fn what_was_written_is_given_no_more_and_counts_for_the_offset() {
    let mut encoder = MainEncoder::new();
    encoder.header(&Configuration::new("pc")).unwrap();
    let header = encoder.bytes().to_vec();
    encoder.written(10);
    assert_eq!(encoder.bytes(), &header[10..]);
    encoder.ping(1).unwrap();
    assert_eq!(encoder.bytes().len(), header.len() - 10 + 9);
    assert_eq!(encoder.offset(), header.len() as u64 + 9);
    encoder.written(encoder.bytes().len());
    assert_eq!((encoder.bytes(), encoder.offset()), (&[][..], header.len() as u64 + 9));
}

/// A section as QEMU sends it for a virtio-mem device, cut short.
fn early_section(id: u8) -> Vec<u8> {
    let head = [b"\x04\0\0\0", &[id, 14][..], b"virtio-mem-dev\0\0\0\0\0\0\0\x01"].concat();
    let body = [&[0, 0x7e, 0, 0, 0, id, 1, 2, 0x7e, 0, 0, 0, id, 8][..], &[0; 300]].concat();
    [&head[..], &body, &[0x7e, 0, 0, 0, id]].concat()
}

/// A stream with all that may come before the pages, and its events up to there.
pub(super) fn stream_with_early_state(sync: SyncForm) -> (Vec<u8>, Vec<MainEvent>) {
    let advise = PostcopyAdvise::Ram { page_sizes: 0x20_1000, target_page_bytes: 0x1000 };
    let none = b"\x01\0\0\0\x07\x0cdirty-bitmap\0\0\0\0\0\0\0\x01\x01\x7e\0\0\0\x07";
    let mut encoder = MainEncoder::new();
    encoder.header(&Configuration::new("pc")).unwrap();
    encoder.ping(1).unwrap();
    encoder.postcopy_advise(advise).unwrap();
    encoder.early_state(&[early_section(5), early_section(6)].concat()).unwrap();
    encoder.ram_start(2, 0, &blocks(PageSize::Kib4), sync).unwrap();
    encoder.early_state(&[&none[..], &early_section(8)].concat()).unwrap();
    encoder.postcopy_advise(PostcopyAdvise::DirtyBitmaps).unwrap();
    encoder.early_state(&early_section(9)).unwrap();
    encoder.part_begin().unwrap();
    encoder.zero_page(0, 0).unwrap();
    encoder.sync().unwrap();
    encoder.body_end().unwrap();
    encoder.early_state(&early_section(10)).unwrap();
    encoder.ram_end().unwrap();
    encoder.device_state(&described_devices()).unwrap();
    let early = |id| MainEvent::EarlyState(early_section(id));
    let events = vec![
        MainEvent::Configuration(Configuration::new("pc")),
        MainEvent::Ping(1),
        MainEvent::PostcopyAdvise(advise),
        early(5),
        early(6),
        MainEvent::RamStart { section_id: 2, instance_id: 0, blocks: blocks(PageSize::Kib4), sync },
        MainEvent::Sync,
        MainEvent::EarlyState(none.to_vec()),
        early(8),
        MainEvent::PostcopyAdvise(PostcopyAdvise::DirtyBitmaps),
        early(9),
        MainEvent::ZeroPage { block: 0, offset: 0 },
        MainEvent::Sync,
        MainEvent::BodyEnd { last: false },
        early(10),
        MainEvent::Sync,
        MainEvent::BodyEnd { last: true },
        MainEvent::DeviceState(described_devices()),
    ];
    (encoder.bytes().to_vec(), events)
}

#[test]
fn state_that_comes_before_the_pages_is_decoded_as_it_was_encoded_however_it_is_split() {
    for sync in [SyncForm::Flush, SyncForm::EachSection] {
        let (bytes, expected) = stream_with_early_state(sync);
        let in_pieces = |size| decode_in_pieces(MainDecoder::new(Limits::default()), &bytes, size);
        let (events, error) = in_pieces(usize::MAX);
        assert_eq!(error, None);
        assert_eq!(events.iter().map(|(_, event)| event.clone()).collect::<Vec<_>>(), expected);
        for (end, event) in &events {
            if let MainEvent::EarlyState(section) = event {
                assert!(bytes[..*end as usize].ends_with(section), "it ends where its bytes do");
            }
        }
        for size in [1, 2, 3, 5, 64, 300, 1000].into_iter().skip(if cfg!(miri) { 5 } else { 0 }) {
            assert_eq!(in_pieces(size), (events.clone(), None), "{sync:?}, {size}");
        }
        // And cut off anywhere it is truncated there, whatever had to be looked at behind a section.
        let step = if cfg!(miri) { 211 } else { 1 };
        for end in (0..bytes.len() - described_devices().len()).step_by(step) {
            let error = decode(&bytes[..end]).unwrap_err();
            assert!(matches!(error.kind, StreamErrorKind::Truncated { .. }), "{error}");
            assert_eq!(error.offset, end as u64, "{error}");
        }
    }
}

/// The same with a return path, and its events.
fn stream_with_early_state_and_return_path(sync: SyncForm) -> (Vec<u8>, Ends) {
    let (mut bytes, _) = stream_with_early_state(sync);
    let new = || MainDecoder::new(Limits::default());
    let (events, _) = decode_in_pieces(new(), &bytes, usize::MAX);
    // Behind CONFIGURATION.
    let at = events[0].0 as usize;
    bytes.splice(at..at, [section::COMMAND, 0, 1, 0, 0]);
    let (events, error) = decode_in_pieces(new(), &bytes, usize::MAX);
    assert_eq!((&events[1].1, error), (&MainEvent::OpenReturnPath, None));
    (bytes, events)
}

#[test]
fn what_is_left_of_a_piece_behind_early_state_is_what_lies_behind_it_wherever_it_is_split() {
    let step = if cfg!(miri) { 211 } else { 1 };
    for sync in [SyncForm::Flush, SyncForm::EachSection] {
        let (bytes, expected) = stream_with_early_state_and_return_path(sync);
        for at in (0..=bytes.len()).step_by(step) {
            let (one, other) = bytes.split_at(at);
            let said = decode_pieces(MainDecoder::new(Limits::default()), [one, other]);
            assert_eq!(said, (expected.clone(), None), "{at}");
        }
    }
}

#[test]
fn what_follows_a_stream_with_early_state_is_trailing_wherever_it_is_split() {
    let (whole, _) = stream_with_early_state_and_return_path(SyncForm::Flush);
    let more = b"}\0\x06more";
    let bytes = [&whole[..], more].concat();
    let expected = StreamError {
        offset: whole.len() as u64,
        kind: StreamErrorKind::Trailing { bytes: more.len() },
    };
    let step = if cfg!(miri) { 211 } else { 1 };
    for at in (0..=bytes.len()).step_by(step) {
        let mut decoder = MainDecoder::new(Limits::default());
        let mut unread = Vec::new();
        for mut piece in <[&[u8]; 2]>::from(bytes.split_at(at)) {
            while decoder.next(&mut piece).unwrap().is_some() {}
            unread.extend_from_slice(piece);
        }
        assert!(decoder.is_over());
        assert_eq!(decoder.expect_end(&unread), Err(expected.clone()), "{at}");
    }
}

#[test]
fn the_end_of_a_section_may_show_when_whole_commands_behind_it_have_come() {
    // What follows its FOOTER is the head of a section up to the version, whose name is a FOOTER as
    // well: with two commands behind it.
    let command = b"\x08\0\x0b\0\0";
    let early = b"\x04aaaa\x01d\0\0\0\0\0\0\0\x01~aaaa\x04\0\0\0\x07\x05~aaaa";
    let mut encoder = MainEncoder::new();
    encoder.header(&Configuration::new("pc")).unwrap();
    let header = encoder.bytes().to_vec();
    encoder.ram_start(1, 0, &blocks(PageSize::Kib4), SyncForm::Flush).unwrap();
    encoder.ram_end().unwrap();
    encoder.no_device_state().unwrap();
    let rest = &encoder.bytes()[header.len()..];
    let bytes = [&header, &early[..], command, command, rest].concat();
    let decode = |at| {
        let (one, other) = bytes.split_at(at);
        decode_pieces(MainDecoder::new(Limits::default()), [one, other])
    };
    let whole = decode(bytes.len());
    assert_eq!(whole.1, None);
    assert_eq!(whole.0[1].1, MainEvent::EarlyState(early.to_vec()));
    assert_eq!((&whole.0[2].1, &whole.0[3].1), (&MainEvent::SwitchoverStart, &whole.0[2].1));
    let start = header.len();
    for at in start..start + early.len() + 2 * command.len() + 1 {
        assert_eq!(decode(at), whole, "{at}");
    }
}

#[test]
fn early_state_has_no_place_in_a_body_or_behind_the_end_of_ram() {
    let mut encoder = MainEncoder::new();
    encoder.early_state(&early_section(5)).unwrap_err();
    encoder.header(&Configuration::new("pc")).unwrap();
    encoder.ram_start(2, 0, &blocks(PageSize::Kib4), SyncForm::Flush).unwrap();
    encoder.end_begin().unwrap();
    encoder.early_state(&early_section(5)).unwrap_err();
    encoder.sync().unwrap();
    encoder.body_end().unwrap();
    encoder.early_state(&early_section(5)).unwrap_err();
}

#[test]
fn the_sizes_of_huge_pages_in_the_list_of_blocks_are_kept() {
    let huge = Some(2 << 20);
    for (first, second) in [(huge, None), (None, huge), (huge, Some(1 << 30))] {
        for sync in [SyncForm::Flush, SyncForm::EachSection] {
            let mut list = blocks(PageSize::Kib4);
            (list[0].page_bytes, list[1].page_bytes) = (first, second);
            let mut encoder = MainEncoder::new();
            encoder.header(&Configuration::new("pc")).unwrap();
            encoder.ram_start(2, 0, &list, sync).unwrap();
            encoder.ram_end().unwrap();
            encoder.no_device_state().unwrap();
            let events = decode(encoder.bytes()).unwrap();
            let started = MainEvent::RamStart { section_id: 2, instance_id: 0, blocks: list, sync };
            assert_eq!(events[1], started);
            assert_eq!(events.iter().filter(|event| **event == MainEvent::Sync).count(), 2);
        }
    }
    let odd = block("pc.ram", 4096).with_page_bytes(Some(4097));
    let mut encoder = MainEncoder::new();
    encoder.header(&Configuration::new("pc")).unwrap();
    encoder.ram_start(2, 0, &[odd], SyncForm::Flush).unwrap_err();
}

#[test]
fn a_device_state_in_pieces_is_the_same_that_ends_at_the_same_byte() {
    let whole = stream(MainEncoder::new(), SyncForm::Flush);
    let (without_return_path, _) = stream_with_early_state(SyncForm::Flush);
    for bytes in [whole, without_return_path] {
        let devices = described_devices();
        for size in [1, 7, 1000, usize::MAX].into_iter().skip(if cfg!(miri) { 2 } else { 0 }) {
            let limits = Limits { device_state: devices.len(), ..Limits::default() };
            let decoder = MainDecoder::new(limits.clone()).giving_device_state_in_pieces();
            let (events, error) = decode_in_pieces(decoder, &bytes, size);
            assert_eq!(error, None, "{size}");
            assert_eq!(events.last(), Some(&(bytes.len() as u64, MainEvent::DeviceState(vec![]))));
            let pieces = events.iter().filter_map(|(_, event)| match event {
                MainEvent::DeviceStatePiece(piece) => Some(&piece[..]),
                _ => None,
            });
            assert_eq!(pieces.collect::<Vec<_>>().concat(), devices);

            let limits = Limits { device_state: devices.len() - 1, ..limits };
            let decoder = MainDecoder::new(limits).giving_device_state_in_pieces();
            let error = decode_in_pieces(decoder, &bytes, size).1.unwrap();
            assert!(matches!(error.kind, StreamErrorKind::DeviceStateTooLarge { .. }), "{error}");
        }
    }
}

#[test]
fn a_device_state_is_encoded_from_pieces_of_any_size_and_its_end_only_when_it_is_whole() {
    let long = [&vec![7; if cfg!(miri) { 100 } else { 200_000 }][..], b"\0"].concat();
    let devices =
        [&DEVICES[..10], &long, &DEVICES[10..], &described_devices()[DEVICES.len()..]].concat();
    for size in [1, 1000, usize::MAX].into_iter().skip(if cfg!(miri) { 1 } else { 0 }) {
        for end in [devices.len(), devices.len() - 1, 0] {
            let mut encoder = MainEncoder::new();
            encoder.header(&Configuration::new("pc")).unwrap();
            encoder.ram_start(1, 0, &blocks(PageSize::Kib4), SyncForm::Flush).unwrap();
            encoder.ram_end().unwrap();
            let before = encoder.bytes().len();
            for piece in devices[..end].chunks(size) {
                encoder.device_state_piece(piece).unwrap();
            }
            // The EOF is held back.
            let written = encoder.bytes()[before..].to_vec();
            assert!(devices.starts_with(&written) && written.len() <= DEVICES.len() + long.len());
            assert_eq!(encoder.device_state_end().is_ok(), end == devices.len());
            let whole = if end == devices.len() { &devices } else { &written };
            assert!(encoder.bytes()[before..] == whole[..], "{size}, {end}");
        }
    }
}

#[test]
fn a_device_state_in_pieces_does_not_go_on_behind_its_end() {
    for more in [&b"\0"[..], b"}"] {
        let mut encoder = MainEncoder::new();
        encoder.header(&Configuration::new("pc")).unwrap();
        encoder.ram_start(1, 0, &blocks(PageSize::Kib4), SyncForm::Flush).unwrap();
        encoder.ram_end().unwrap();
        encoder.device_state_piece(&described_devices()).unwrap();
        encoder.device_state_piece(b"").unwrap();
        encoder.device_state_piece(more).unwrap_err();
    }
}

#[test]
fn digests_are_said_at_the_end_and_the_device_state_comes_as_it_was() {
    let digests: Vec<BlockDigest> =
        (0..blocks(PageSize::Kib4).len()).map(|at| format!("{at:032x}").parse().unwrap()).collect();
    let devices = described_devices();
    for return_path in [false, true] {
        let encode = |digests: Vec<BlockDigest>, pieces: bool| {
            let mut encoder = MainEncoder::new();
            encoder.header(&Configuration::new("pc")).unwrap();
            if return_path {
                encoder.open_return_path().unwrap();
            }
            encoder.ram_start(1, 0, &blocks(PageSize::Kib4), SyncForm::Flush).unwrap();
            encoder.ram_end().unwrap();
            encoder.set_digests(digests);
            if pieces {
                encoder.device_state_piece(&devices).unwrap();
                encoder.device_state_end().unwrap();
            } else {
                encoder.device_state(&devices).unwrap();
            }
            encoder.bytes().to_vec()
        };
        let bytes = encode(digests.clone(), false);
        assert!(bytes == encode(digests.clone(), true));
        for in_pieces in [false, true] {
            let decoder = MainDecoder::new(Limits::default());
            let mut decoder =
                if in_pieces { decoder.giving_device_state_in_pieces() } else { decoder };
            let (mut came, mut rest) = (Vec::new(), &bytes[..]);
            loop {
                let event = decoder.next(&mut rest).unwrap();
                match event.or_else(|| decoder.finish().unwrap()) {
                    Some(MainEvent::DeviceState(bytes) | MainEvent::DeviceStatePiece(bytes)) => {
                        came.extend(bytes);
                    }
                    Some(_) => assert_eq!(decoder.digests(), None),
                    None => break,
                }
            }
            assert!(came == devices, "{return_path}, {in_pieces}");
            assert_eq!(decoder.digests(), Some(&digests[..]));
        }
        for wrong in [&digests[1..], &[&digests[..], &digests[..1]].concat()] {
            let refused = decode(&encode(wrong.to_vec(), false)).map(|_| ());
            assert_eq!(refused.unwrap_err().kind, StreamErrorKind::Digests, "{}", wrong.len());
        }
    }
}
