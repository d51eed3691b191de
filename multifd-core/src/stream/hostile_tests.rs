//! Streams that are cut, damaged, endless or made up: an error or events, never a panic, and the same
//! however they are split.

use proptest::prelude::*;

use super::tests::{
    DEVICES, decode, decode_in_pieces, decode_pieces, described_devices, stream,
    stream_with_early_state,
};
use super::*;

fn whole(sync: SyncForm) -> Vec<u8> {
    stream(MainEncoder::new(), sync)
}

/// A stream in one of the two forms, with or without state before its pages.
fn good(flush: bool, early: bool) -> Vec<u8> {
    let sync = if flush { SyncForm::Flush } else { SyncForm::EachSection };
    if early { stream_with_early_state(sync).0 } else { whole(sync) }
}

/// Feeds `piece` to the decoder again and again until it is refused, and gives the error.
fn feed_on(decoder: &mut MainDecoder, mut piece: impl FnMut() -> Vec<u8>) -> StreamError {
    for _ in 0..1 << 20 {
        let piece = piece();
        let mut rest = &piece[..];
        loop {
            match decoder.next(&mut rest) {
                Ok(Some(event)) => assert!(!matches!(event, MainEvent::DeviceState(_))),
                Ok(None) => break,
                Err(error) => return error,
            }
        }
    }
    panic!("it is never refused");
}

#[test]
fn a_stream_cut_off_at_any_byte_is_truncated_there() {
    for sync in [SyncForm::Flush, SyncForm::EachSection] {
        let bytes = whole(sync);
        // Where there is no VMDESCRIPTION, because the source suppresses it, this is the end.
        let suppressed = bytes.len() - described_devices().len() + DEVICES.len();
        let step = if cfg!(miri) { 211 } else { 1 };
        for end in (0..bytes.len()).step_by(step).filter(|&end| end != suppressed) {
            let error = decode(&bytes[..end]).unwrap_err();
            assert!(matches!(error.kind, StreamErrorKind::Truncated { .. }), "{error}");
            assert_eq!(error.offset, end as u64, "{error}");
        }
        decode(&bytes[..suppressed]).unwrap();
    }
}

#[test]
fn an_endless_device_state_ends_at_the_limit() {
    let bytes = whole(SyncForm::Flush);
    let before = bytes.len() - described_devices().len();
    let limit = if cfg!(miri) { 1 << 9 } else { 1 << 14 };
    let limits = Limits { device_state: limit, ..Limits::default() };
    let mut decoder = MainDecoder::new(limits);
    while decoder.next(&mut &bytes[decoder.offset() as usize..before]).unwrap().is_some() {}
    decoder.next(&mut &DEVICES[..]).unwrap();
    let error = feed_on(&mut decoder, || vec![b'}'; 1000]);
    assert!(matches!(error.kind, StreamErrorKind::DeviceStateTooLarge { .. }), "{error}");
    assert_eq!(decoder.offset(), (before + limit) as u64);
}

#[test]
#[cfg_attr(miri, ignore = "a thousand names, each compared with all others, take too long")]
fn an_endless_list_of_blocks_ends_at_the_limit() {
    let mut decoder = MainDecoder::new(Limits::default());
    let start = b"QEVM\0\0\0\x03\x01\0\0\0\x01\x03ram\0\0\0\0\0\0\0\x04\
        \xff\xff\xff\xff\xff\xff\xf0\x04";
    let mut rest = &start[..];
    decoder.next(&mut rest).unwrap();
    assert_eq!(decoder.next(&mut rest), Ok(None));
    let mut number = 0;
    let error = feed_on(&mut decoder, || {
        number += 1;
        let size = 4096_u64.to_be_bytes();
        [&[8][..], format!("{number:08}").as_bytes(), &size].concat()
    });
    assert!(matches!(error.kind, StreamErrorKind::TooManyBlocks { limit: 1024 }), "{error}");
}

#[test]
fn endless_dirty_bitmaps_end_at_the_limit_of_early_state() {
    for footers in [true, false] {
        let mut encoder = MainEncoder::new().with_footers(footers);
        encoder.header(&Configuration::new("pc")).unwrap();
        let blocks = tests::blocks(crate::PageSize::Kib4);
        encoder.ram_start(1, 0, &blocks, SyncForm::Flush).unwrap();
        let section = early::no_bitmaps(7, 0, footers);
        for limit in [0, section.len(), 1000] {
            let limits = Limits { early_state: limit, ..Limits::default() };
            let mut decoder = MainDecoder::new(limits);
            let mut rest = encoder.bytes();
            while decoder.next(&mut rest).unwrap().is_some() {}
            let error = feed_on(&mut decoder, || section.clone());
            assert_eq!(error.kind, StreamErrorKind::EarlyStateTooLarge { limit });
            let taken = limit / section.len() * section.len();
            assert_eq!(error.offset, encoder.offset() + taken as u64);
        }
    }
}

/// What a stream says, in pieces of any sizes.
fn decode_in_sizes(bytes: &[u8], sizes: &[usize]) -> Result<Vec<MainEvent>, StreamError> {
    let (mut bytes, mut sizes) = (bytes, sizes.iter().cycle());
    let pieces = std::iter::from_fn(|| {
        let size = sizes.next().map_or(bytes.len(), |&size| size.min(bytes.len()));
        let (piece, rest) = bytes.split_at(size);
        bytes = rest;
        (!piece.is_empty()).then_some(piece)
    });
    match decode_pieces(MainDecoder::new(Limits::default()), pieces) {
        (events, None) => Ok(events.into_iter().map(|(_, event)| event).collect()),
        (_, Some(error)) => Err(error),
    }
}

fn cases() -> ProptestConfig {
    ProptestConfig::with_cases(if cfg!(miri) { 1 } else { 256 })
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn made_up_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        let _ = decode(&bytes);
        let _ = decode(&[b"QEVM\0\0\0\x03", &bytes[..]].concat());
        let _ = ReturnDecoder::new().next(&mut &bytes[..]);
    }

    #[test]
    fn made_up_bytes_after_a_good_beginning_never_panic_and_any_split_gives_the_same(
        bytes in prop::collection::vec(prop_oneof![any::<u8>(), 0_u8..0x11], 0..256),
        keep in any::<prop::sample::Index>(),
        flush in any::<bool>(),
        early in any::<bool>(),
        sizes in prop::collection::vec(1..100_usize, 1..8),
    ) {
        let good = good(flush, early);
        let bytes = [&good[..keep.index(good.len())], &bytes].concat();
        prop_assert_eq!(decode_in_sizes(&bytes, &sizes), decode(&bytes));
    }

    #[test]
    fn a_damaged_stream_never_panics_and_keeps_its_pages_inside_the_blocks(
        flips in prop::collection::vec((any::<prop::sample::Index>(), 0_u8..8), 1..4),
        flush in any::<bool>(),
        early in any::<bool>(),
        sizes in prop::collection::vec(1..5000_usize, 1..8),
    ) {
        let mut bytes = good(flush, early);
        for (at, bit) in flips {
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
        }
        prop_assert_eq!(decode_in_sizes(&bytes, &sizes), decode(&bytes));
        let decoder = MainDecoder::new(Limits::default());
        let (mut page_size, mut block_bytes) = (4096, Vec::new());
        for (_, event) in decode_in_pieces(decoder, &bytes, usize::MAX).0 {
            match event {
                MainEvent::Configuration(configuration) => {
                    page_size = configuration.page_size().unwrap_or_default().bytes() as u64;
                }
                MainEvent::RamStart { blocks, .. } => {
                    block_bytes = blocks.iter().map(|block| block.bytes).collect();
                }
                MainEvent::ZeroPage { block, offset } | MainEvent::Page { block, offset, .. } => {
                    prop_assert!(offset + page_size <= block_bytes[block]);
                }
                MainEvent::DeviceState(state) => prop_assert!(state.len() <= bytes.len()),
                _ => {}
            }
        }
    }
}
