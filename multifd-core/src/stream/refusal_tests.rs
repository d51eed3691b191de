//! What is refused, each by its name.

use super::tests::{DEVICES, block, blocks, decode, decode_in_pieces, stream};
use super::*;
use crate::PageSize;

const HEADER: &[u8] = b"QEVM\0\0\0\x03";
const CONFIGURATION: &[u8] = b"\x07\0\0\0\x02pc";
/// START of ram up to the list of blocks; its section id is 1.
const START: &[u8] = b"\x01\0\0\0\x01\x03ram\0\0\0\0\0\0\0\x04";
const LIST: &[u8] = b"\0\0\0\0\0\0\x30\x04\x01a\0\0\0\0\0\0\x20\0\x01b\0\0\0\0\0\0\x10\0";
const FLUSH: &[u8] = b"\0\0\0\0\0\0\x02\0";
const EOS: &[u8] = b"\0\0\0\0\0\0\0\x10";
const FOOTER: &[u8] = b"\x7e\0\0\0\x01";
const PART: &[u8] = b"\x02\0\0\0\x01";
const END: &[u8] = b"\x03\0\0\0\x01";
/// A dirty-bitmap section without bitmaps.
const NO_BITMAPS: &[u8] = b"\x01\0\0\0\x07\x0cdirty-bitmap\0\0\0\0\0\0\0\x01\x01\x7e\0\0\0\x07";
/// A zero page at 0 of block b.
const ZERO_PAGE: &[u8] = b"\0\0\0\0\0\0\0\x02\x01b\0";

/// The stream up to and with START.
fn started() -> Vec<u8> {
    [HEADER, CONFIGURATION, START, LIST, FLUSH, EOS, FOOTER].concat()
}

/// The error that a stream with `piece` after `before` makes, and where in `piece` it is said to
/// be.
fn refused(before: impl AsRef<[u8]>, piece: impl AsRef<[u8]>) -> (StreamErrorKind, i64) {
    let (before, piece) = (before.as_ref(), piece.as_ref());
    // Enough to follow that nothing is refused for being too short.
    let bytes = [before, piece, &[0; 8192]].concat();
    let StreamError { offset, kind } = decode(&bytes).unwrap_err();
    (kind, offset as i64 - before.len() as i64)
}

macro_rules! assert_refused {
    ($before:expr, $piece:expr, $kind:pat $(if $guard:expr)?, $at:expr) => {
        let (kind, at) = refused(&$before, $piece);
        assert!(matches!(&kind, $kind $(if $guard)?), "{kind:?}");
        assert_eq!(at, $at, "{kind}");
    };
}

use StreamErrorKind as Kind;

#[test]
fn what_the_refusals_are_tested_with_is_a_good_stream() {
    let bytes =
        [&started(), PART, ZERO_PAGE, EOS, FOOTER, END, FLUSH, EOS, FOOTER, DEVICES].concat();
    decode(&bytes).unwrap();
}

#[test]
fn a_stream_of_something_else_is_refused() {
    assert_refused!(b"", b"\x11\x22\x33\x44\0\0\0\x01", Kind::Magic([0x11, ..]), 0);
}

#[test]
fn an_obsolete_version_is_refused() {
    assert_refused!(b"", b"QEVM\0\0\0\x02", Kind::Version(2), 0);
}

#[test]
fn a_machine_type_that_is_empty_or_too_long_or_no_text_is_refused() {
    assert_refused!(HEADER, b"\x07\xff\xff\xff\xff", Kind::Length { length: 0xffff_ffff, .. }, 0);
    assert_refused!(HEADER, b"\x07\0\0\0\0", Kind::Name { .. }, 0);
    assert_refused!(HEADER, b"\x07\0\0\0\x02\xff\xff", Kind::Name { .. }, 0);
    assert_refused!(HEADER, b"\x07\0\0\0\x02a\0", Kind::Name { .. }, 0);
}

#[test]
fn a_subsection_that_is_unknown_or_comes_twice_is_refused() {
    let before = [HEADER, CONFIGURATION].concat();
    let unknown = b"\x05\x11configuration/new\0\0\0\x01";
    assert_refused!(before, unknown, Kind::UnknownSubsection(n) if n == "configuration/new", 0);
    let uuid = b"\x05\x12configuration/uuid\0\0\0\x01................";
    let before = [&before, uuid.as_slice()].concat();
    assert_refused!(before, uuid, Kind::RepeatedSubsection("configuration/uuid"), 0);
}

#[test]
fn more_capabilities_than_there_can_be_are_refused() {
    let before = [HEADER, CONFIGURATION].concat();
    let piece = b"\x05\x1aconfiguration/capabilities\0\0\0\x01\0\0\x01\x01";
    assert_refused!(before, piece, Kind::Length { length: 257, .. }, 0);
}

#[test]
fn a_capability_that_changes_the_format_is_refused() {
    let piece = b"\x07\0\0\0\x02pc\x05\x1aconfiguration/capabilities\0\0\0\x01\
        \0\0\0\x01\x0fx-ignore-shared";
    assert_refused!(HEADER, piece, Kind::UnsupportedCapability("x-ignore-shared"), 7);
}

#[test]
fn a_mapped_ram_file_is_known_by_its_capability_or_by_its_list_of_blocks() {
    let piece =
        b"\x07\0\0\0\x02pc\x05\x1aconfiguration/capabilities\0\0\0\x01\0\0\0\x01\x0amapped-ram";
    assert_refused!(HEADER, piece, Kind::MappedRam, 7);
    // The header of a block's pages: version 1, the page size, the offsets.
    let header = b"\0\0\0\x01\0\0\0\0\0\0\x10\0\0\0\0\0\0\0\0\x8e";
    let list = b"\0\0\0\0\0\0\x20\x04\x01a\0\0\0\0\0\0\x20\0";
    let before = [HEADER, CONFIGURATION, START].concat();
    assert_refused!(before, [&list[..], header].concat(), Kind::MappedRam, 18);
    let list = b"\0\0\0\0\0\0\x30\x04\x01a\0\0\0\0\0\0\x20\0";
    assert_refused!(before, [&list[..], header].concat(), Kind::MappedRam, 18);
}

#[test]
fn a_page_size_that_is_not_supported_or_not_expected_is_refused() {
    let bits = |bits: u8| {
        let name = b"\x05\x1econfiguration/target-page-bits\0\0\0\x01\0\0\0";
        [name.as_slice(), &[bits]].concat()
    };
    let before = [HEADER, CONFIGURATION].concat();
    for bad in [0, 11, 17, 64] {
        assert_refused!(before, bits(bad), Kind::PageBits(_), 0);
    }
    let bytes = [&before, bits(16).as_slice(), FOOTER].concat();
    let limits = Limits { page_size: Some(PageSize::Kib4), ..Limits::default() };
    let error = MainDecoder::new(limits).next(&mut &bytes[..]).unwrap_err();
    let (expected, found) = (PageSize::Kib4, PageSize::Kib64);
    assert_eq!(error.kind, Kind::PageSizeMismatch { expected, found });
    assert_eq!(error.offset, before.len() as u64);
}

#[test]
fn a_byte_that_starts_no_section_is_refused() {
    assert_refused!(started(), [0x09], Kind::UnknownSection(0x09), 0);
    assert_refused!(started(), [0x05], Kind::UnknownSection(0x05), 0);
}

#[test]
fn commands_of_postcopy_and_colo_are_refused_by_name_and_number() {
    for (command, wanted) in [
        (4, "POSTCOPY_LISTEN"),
        (5, "POSTCOPY_RUN"),
        (6, "POSTCOPY_RAM_DISCARD"),
        (7, "PACKAGED"),
        (8, "ENABLE_COLO"),
        (9, "POSTCOPY_RESUME"),
        (10, "RECV_BITMAP"),
    ] {
        let piece = [8, 0, command, 0, 0];
        let before = started();
        assert_refused!(before, piece, Kind::UnsupportedCommand { name, .. } if *name == wanted, 0);
        let text = refused(before, piece).0.to_string();
        assert!(text.contains(&command.to_string()) && text.contains("turn"), "{text}");
    }
    assert_refused!(started(), [8, 0, 12, 0, 0], Kind::UnknownCommand(12), 0);
    assert_refused!(started(), [8, 0, 0, 0, 0], Kind::UnknownCommand(0), 0);
}

#[test]
fn a_decoder_that_goes_along_with_postcopy_says_where_it_starts_and_passes_over_the_rest() {
    for command in 4..=7 {
        let bytes = [&started()[..], &[8, 0, command, 0, 4], b"\x7e\0anything"].concat();
        for size in [1, 7, usize::MAX] {
            let decoder = MainDecoder::new(Limits::default()).passing_postcopy();
            let (events, error) = decode_in_pieces(decoder, &bytes, size);
            let last = (started().len() as u64 + 5, MainEvent::Postcopy);
            assert_eq!((events.last(), error), (Some(&last), None));
        }
    }
    for command in [8, 9, 10, 12] {
        let bytes = [&started()[..], &[8, 0, command, 0, 0]].concat();
        let decoder = MainDecoder::new(Limits::default()).passing_postcopy();
        assert!(decode_in_pieces(decoder, &bytes, 1).1.is_some(), "{command}");
    }
}

#[test]
fn a_command_of_another_length_is_refused() {
    for piece in [[8, 0, 1, 0, 4], [8, 0, 2, 0, 8], [8, 0, 3, 0, 8], [8, 0, 11, 0, 1]] {
        assert_refused!(started(), piece, Kind::Length { .. }, 0);
    }
}

#[test]
fn another_section_that_is_sent_in_parts_is_refused_by_its_name() {
    let before_ram = [HEADER, CONFIGURATION].concat();
    let bitmaps = b"\x01\0\0\0\x02\x0cdirty-bitmap\0\0\0\0\0\0\0\x01\x01\x7e\0\0\0\x02".to_vec();
    assert!(
        decode(&[&started()[..], &bitmaps].concat())
            .is_err_and(|error| { matches!(error.kind, Kind::Truncated { what: "a section" }) })
    );
    let (mut version, mut content) = (bitmaps.clone(), bitmaps.clone());
    (version[25], content[26]) = (2, 0x30);
    for (before, piece) in [(before_ram, &bitmaps), (started(), &version), (started(), &content)] {
        assert_refused!(before, piece, Kind::ForeignSection(name) if name == "dirty-bitmap", 0);
    }
    for name in ["vfio", "spapr/htab"] {
        let piece = [b"\x01\0\0\0\x05", &[name.len() as u8][..], name.as_bytes()].concat();
        assert_refused!(started(), piece, Kind::ForeignSection(found) if found == name, 0);
    }
}

#[test]
fn another_version_of_the_ram_section_is_refused() {
    let before = [HEADER, CONFIGURATION].concat();
    assert_refused!(before, b"\x01\0\0\0\x01\x03ram\0\0\0\0\0\0\0\x03", Kind::RamVersion(3), 0);
}

#[test]
fn a_footer_with_another_section_id_is_an_error() {
    let before = &started()[..started().len() - FOOTER.len()];
    assert_refused!(
        before,
        b"\x7e\0\0\0\x02",
        Kind::SectionId { what: "a FOOTER", found: 2, expected: 1 },
        0
    );
}

#[test]
fn a_part_or_end_with_another_section_id_is_an_error() {
    assert_refused!(started(), b"\x02\0\0\0\x02", Kind::SectionId { found: 2, .. }, 0);
    assert_refused!(started(), b"\x03\0\0\0\0", Kind::SectionId { found: 0, .. }, 0);
}

#[test]
fn sections_in_a_wrong_order_are_refused() {
    let before = [HEADER, CONFIGURATION].concat();
    let ended = [&started(), END, FLUSH, EOS, FOOTER].concat();
    for (before, piece) in [
        (&before, PART),
        (&before, END),
        (&before, FOOTER),
        (&before, b"\0"),
        (&started(), CONFIGURATION),
        (&started(), START),
        (&started(), FOOTER),
        (&started(), b"\0"),
        (&started(), b"\x06\0\0\0\x02{}"),
        (&ended, PART),
        (&ended, END),
        (&ended, START),
        (&ended, FOOTER),
        (&ended, b"\x06\0\0\0\x02{}"),
    ] {
        assert_refused!(before, piece, Kind::Misplaced(_), 0);
    }
}

#[test]
fn a_start_has_the_list_of_blocks_and_one_flush_only() {
    let before = [HEADER, CONFIGURATION, START].concat();
    for piece in [FLUSH, EOS, ZERO_PAGE] {
        assert_refused!(before, piece, Kind::Misplaced(_), 0);
    }
    let listed = [&before, LIST].concat();
    for piece in [LIST, ZERO_PAGE] {
        assert_refused!(listed, piece, Kind::Misplaced(_), 0);
    }
    let flushed = [&listed, FLUSH].concat();
    for piece in [LIST, ZERO_PAGE, FLUSH] {
        assert_refused!(flushed, piece, Kind::Misplaced(_), 0);
    }
}

#[test]
fn a_list_of_blocks_that_does_not_add_up_is_refused() {
    let before = [HEADER, CONFIGURATION, START].concat();
    let total = |total: u64| (total | 4).to_be_bytes();
    let block = |name: &[u8], bytes: u64| {
        [&[name.len() as u8], name, bytes.to_be_bytes().as_slice()].concat()
    };
    let list = |sum: u64, first: Vec<u8>, second: Vec<u8>| {
        [total(sum).as_slice(), &first, &second].concat()
    };
    let a = || block(b"a", 0x1000);

    assert_refused!(before, total(0), Kind::Misplaced(_), 0);
    let piece = list(0x2000, a(), block(b"b", 0x2000));
    assert_refused!(before, piece, Kind::BlockTotal { total: 0x2000, .. }, 18);
    let piece = list(0x3000, a(), block(b"b", u64::MAX - 0xfff));
    assert_refused!(before, piece, Kind::BlockTotal { .. }, 18);
    let piece = list(0x2000, a(), a());
    assert_refused!(before, piece, Kind::RepeatedBlock(name) if name.as_str() == "a", 18);
    let piece = list(0x2000, a(), block(b"b", 0));
    assert_refused!(before, piece, Kind::BlockSize { bytes: 0, .. }, 18);
    let piece = list(0x2000, a(), block(b"b", 0xfff));
    assert_refused!(
        before,
        piece,
        Kind::BlockSize { bytes: 0xfff, page_size: PageSize::Kib4, .. },
        18
    );
    // In place of a name's length a zero starts the size of the pages of the block before.
    let piece = list(0x2000, a(), block(b"", 0x1000));
    assert_refused!(before, piece, Kind::BlockPageSize { bytes: 0x10, .. }, 18);
    for name in [b"\xff".as_slice(), b"a\0"] {
        assert_refused!(before, list(0x2000, a(), block(name, 0x1000)), Kind::Name { .. }, 18);
    }
}

#[test]
fn pages_outside_the_blocks_are_refused() {
    let part = [&started(), PART].concat();
    assert_refused!(part, b"\0\0\0\0\0\0\0\x02\x01c\0", Kind::UnknownBlock(name) if name == "c", 0);
    for word in [b"\0\0\0\0\0\0\x10\x02", b"\xff\xff\xff\xff\xff\xff\xf0\x02"] {
        let piece = [word.as_slice(), b"\x01b\0"].concat();
        assert_refused!(part, piece, Kind::PageOutsideBlock { block, .. } if block.as_str() == "b", 0);
    }
    let after_another = [&part, ZERO_PAGE].concat();
    assert_refused!(after_another, b"\0\0\0\0\0\0\x10\x22\0", Kind::PageOutsideBlock { .. }, 0);
}

#[test]
fn a_page_of_the_last_block_is_refused_where_there_is_none() {
    let part = [&started(), PART].concat();
    assert_refused!(part, b"\0\0\0\0\0\0\0\x22\0", Kind::NoLastBlock, 0);
    assert_refused!(part, b"\0\0\0\0\0\0\0\x28\0", Kind::NoLastBlock, 0);
}

#[test]
fn a_zero_page_filled_with_something_else_is_refused() {
    let part = [&started(), PART].concat();
    assert_refused!(part, b"\0\0\0\0\0\0\0\x02\x01b\x01", Kind::Fill(1), 0);
}

#[test]
fn flags_that_are_not_supported_are_refused_by_name() {
    let part = [&started(), PART].concat();
    for (flags, expected) in [(0x40, "XBZRLE"), (0x60, "XBZRLE"), (0x80, "HOOK")] {
        let piece = [0, 0, 0, 0, 0, 0, 0, flags];
        assert_refused!(part, piece, Kind::UnsupportedFlag { name, .. } if *name == expected, 0);
    }
    assert_refused!(part, b"\0\0\0\0\0\0\x01\x02", Kind::UnknownFlags(0x100), 0);
    assert_refused!(part, b"\0\0\0\0\0\0\0\x01", Kind::UnknownFlags(1), 0);
    assert_refused!(part, b"\0\0\0\0\0\0\0\x0a", Kind::Word(0x0a), 0);
    assert_refused!(part, LIST, Kind::Misplaced(_), 0);
}

#[test]
fn a_flush_is_refused_where_start_had_none() {
    let before = [HEADER, CONFIGURATION, START, LIST, EOS, FOOTER, PART].concat();
    assert_refused!(before, FLUSH, Kind::Misplaced(_), 0);
}

#[test]
fn early_state_without_footers_is_refused_before_and_behind_start() {
    let section = b"\x04\0\0\0\x09\x01d\0\0\0\0\0\0\0\x01state";
    let before = [HEADER, CONFIGURATION].concat();
    assert_refused!(before, [section, START].concat(), Kind::Misplaced(_), 0);
    let started = [HEADER, CONFIGURATION, START, LIST, FLUSH, EOS].concat();
    assert_refused!(started, section, Kind::Misplaced(_), 0);
}

#[test]
fn early_state_above_the_limit_is_refused_however_it_comes() {
    let section = |body: &[u8]| {
        [&b"\x04\0\0\0\x09\x01d\0\0\0\0\0\0\0\x01"[..], body, b"\x7e\0\0\0\x09"].concat()
    };
    let long = section(&[1; 1000]);
    let early = [&section(b"a")[..], &long].concat();
    let rest = [START, LIST, FLUSH, EOS, FOOTER, END, FLUSH, EOS, FOOTER, DEVICES].concat();
    let bytes = [HEADER, CONFIGURATION, &early, &rest].concat();
    for size in [1, 16, usize::MAX] {
        let end = |early_state| {
            let limits = Limits { early_state, ..Limits::default() };
            decode_in_pieces(MainDecoder::new(limits), &bytes, size).1.map(|error| error.kind)
        };
        assert_eq!(end(early.len()), None);
        for limit in [early.len() - 1, early.len() - 300, 0] {
            assert_eq!(end(limit), Some(Kind::EarlyStateTooLarge { limit }), "{size}");
        }
    }
}

#[test]
fn dirty_bitmaps_and_other_early_state_have_one_limit() {
    let device = b"\x04\0\0\0\x09\x01d\0\0\0\0\0\0\0\x01state\x7e\0\0\0\x09";
    let all = device.len() + NO_BITMAPS.len();
    let rest = [END, FLUSH, EOS, FOOTER, DEVICES].concat();
    for early in [[device, NO_BITMAPS], [NO_BITMAPS, device]] {
        let bytes = [&started(), &early.concat()[..], &rest].concat();
        for size in [1, 16, usize::MAX] {
            let end = |early_state| {
                let limits = Limits { early_state, ..Limits::default() };
                decode_in_pieces(MainDecoder::new(limits), &bytes, size).1.map(|error| error.kind)
            };
            assert_eq!(end(all), None);
            assert_eq!(end(all - 1), Some(Kind::EarlyStateTooLarge { limit: all - 1 }), "{size}");
        }
    }
}

#[test]
fn no_section_starts_behind_the_end_of_ram() {
    let ended = [&started(), END, FLUSH, EOS, FOOTER].concat();
    assert_refused!(ended, NO_BITMAPS, Kind::Misplaced(what) if what.contains("dirty-bitmap"), 0);
    assert_refused!(ended, START, Kind::Misplaced(what) if what.contains("second"), 0);
    let other = b"\x01\0\0\0\x07\x04vfio";
    assert_refused!(ended, other, Kind::ForeignSection(name) if name == "vfio", 0);
}

#[test]
fn a_device_state_above_the_limit_is_refused() {
    let bytes = stream(MainEncoder::new(), SyncForm::Flush);
    let length = tests::described_devices().len();
    for size in [1, 16, usize::MAX] {
        let end = |device_state| {
            let limits = Limits { device_state, ..Limits::default() };
            decode_in_pieces(MainDecoder::new(limits), &bytes, size).1.map(|error| error.kind)
        };
        assert_eq!(end(length), None);
        assert_eq!(end(length - 1), Some(Kind::DeviceStateTooLarge { limit: length - 1 }));
    }
}

#[test]
fn a_decoder_is_at_its_end_after_an_error() {
    let mut decoder = MainDecoder::new(Limits::default());
    let mut bytes = &b"QEVM\0\0\0\x02QEVM"[..];
    decoder.next(&mut bytes).unwrap_err();
    for error in [decoder.next(&mut bytes).unwrap_err(), decoder.finish().unwrap_err()] {
        assert_eq!(error.kind, AFTER_AN_ERROR);
    }
}

#[test]
fn an_error_says_in_one_sentence_what_and_where() {
    let piece = [&started(), PART, b"\0\0\0\0\0\0\0\x40"].concat();
    let error = decode(&piece).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "a word of the ram section has the flag XBZRLE, which is not supported: multifd \
             excludes it, so turn the xbzrle capability off on the source (byte {} of the stream)",
            piece.len() - 8
        )
    );
}

#[test]
fn an_encoder_refuses_what_no_decoder_would_take() {
    let long = "x".repeat(256);
    for machine in ["", "a\0", &long] {
        let mut encoder = MainEncoder::new();
        encoder.header(&Configuration::new(machine)).unwrap_err();
        encoder.header(&Configuration::new("pc")).unwrap();
        assert_eq!(encoder.bytes(), [HEADER, CONFIGURATION].concat());
    }
    for blocks in [
        vec![],
        vec![block("a", 0)],
        vec![block("a", 4095)],
        vec![block("a", 4096), block("a", 4096)],
        vec![block("a", 1 << 63), block("b", 1 << 63)],
    ] {
        let mut encoder = MainEncoder::new();
        encoder.header(&Configuration::new("pc")).unwrap();
        encoder.ram_start(1, 0, &blocks, SyncForm::Flush).unwrap_err();
        assert_eq!(encoder.offset(), 15);
    }
}

#[test]
#[cfg_attr(miri, ignore = "a thousand names, each compared with all others, take too long")]
fn an_encoder_refuses_more_blocks_than_a_decoder_takes() {
    let blocks: Vec<_> = (0..1025).map(|n| block(&n.to_string(), 4096)).collect();
    let mut encoder = MainEncoder::new();
    encoder.header(&Configuration::new("pc")).unwrap();
    let error = encoder.ram_start(1, 0, &blocks, SyncForm::Flush).unwrap_err();
    assert_eq!(error.kind, Kind::TooManyBlocks { limit: 1024 });
    encoder.ram_start(1, 0, &blocks[1..], SyncForm::Flush).unwrap();
}

#[test]
fn the_longest_name_of_a_block_comes_back() {
    let list = [block(&"x".repeat(255), 4096)];
    let mut encoder = MainEncoder::new();
    encoder.header(&Configuration::new("pc")).unwrap();
    encoder.ram_start(1, 0, &list, SyncForm::Flush).unwrap();
    encoder.ram_end().unwrap();
    encoder.no_device_state().unwrap();
    let events = decode(encoder.bytes()).unwrap();
    assert!(matches!(&events[1], MainEvent::RamStart { blocks, .. } if *blocks == list));
}

#[test]
fn an_encoder_refuses_calls_in_a_wrong_order_and_adds_nothing() {
    let misuse = |result: Result<(), StreamError>| {
        let error = result.unwrap_err();
        assert!(matches!(error.kind, Kind::Misuse(_)), "{error}");
    };
    let blocks = blocks(PageSize::Kib4);
    let mut encoder = MainEncoder::new();
    misuse(encoder.ping(1));
    misuse(encoder.ram_start(1, 0, &blocks, SyncForm::Flush));
    encoder.header(&Configuration::default()).unwrap();
    misuse(encoder.header(&Configuration::default()));
    misuse(encoder.part_begin());
    encoder.ram_start(1, 0, &blocks, SyncForm::Flush).unwrap();
    misuse(encoder.ram_start(1, 0, &blocks, SyncForm::Flush));
    misuse(encoder.zero_page(0, 0));
    misuse(encoder.sync());
    misuse(encoder.body_end());
    misuse(encoder.no_device_state());
    encoder.part_begin().unwrap();
    misuse(encoder.part_begin());
    misuse(encoder.ping(1));
    misuse(encoder.zero_page(2, 0));
    misuse(encoder.zero_page(0, 1));
    misuse(encoder.page(0, 0, &[0; 4095]));
    let error = encoder.zero_page(1, 4096).unwrap_err();
    assert!(matches!(error.kind, Kind::PageOutsideBlock { .. }), "{error}");
    encoder.body_end().unwrap();
    encoder.ram_end().unwrap();
    misuse(encoder.part_begin());
    misuse(encoder.device_state(&DEVICES[..DEVICES.len() - 1]));
    encoder.no_device_state().unwrap();
    misuse(encoder.ping(1));
    misuse(encoder.no_device_state());
    assert_eq!(decode(encoder.bytes()).unwrap().len(), 7);
}
