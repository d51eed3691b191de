//! The main channels of real QEMUs, split anywhere, cut off anywhere and damaged.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod drivers;

use multifd::stream::{
    Limits, MainDecoder, MainEncoder, MainEvent, StreamError, StreamErrorKind, section,
};
use multifd_conformance::recordings;
use proptest::prelude::*;
use proptest::sample::Index;

/// What a stream says: its events, each with the offset where it ends, and the error that ends it.
type Said = (Vec<(u64, MainEvent)>, Option<StreamError>);

/// What a stream says that comes in these pieces. Of each, every event leaves what lies behind it.
fn decode<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Said {
    let mut decoder = MainDecoder::new(Limits::default());
    let (mut events, mut start) = (Vec::new(), 0);
    for piece in pieces {
        let mut rest = piece;
        loop {
            match decoder.next(&mut rest) {
                Ok(Some(event)) => {
                    let of_piece = decoder.offset().saturating_sub(start) as usize;
                    assert!(rest == &piece[of_piece..], "behind {}", decoder.offset());
                    events.push((decoder.offset(), event));
                }
                Ok(None) => break,
                Err(error) => return (events, Some(error)),
            }
        }
        start += piece.len() as u64;
    }
    match decoder.finish() {
        Ok(event) => {
            events.extend(event.map(|event| (decoder.offset(), event)));
            (events, None)
        }
        Err(error) => (events, Some(error)),
    }
}

/// Pieces of these sizes, again and again.
fn pieces<'a>(mut bytes: &'a [u8], sizes: &'a [usize]) -> impl Iterator<Item = &'a [u8]> {
    sizes.iter().cycle().map_while(move |&size| {
        let (piece, rest) = bytes.split_at(size.min(bytes.len()));
        bytes = rest;
        (!piece.is_empty()).then_some(piece)
    })
}

/// A recorded main channel, and the same of a source with a return path.
fn streams() -> Vec<Vec<u8>> {
    let both = recordings().iter().flat_map(|recording| {
        let mut with_return_path = recording.main.to_vec();
        // Behind CONFIGURATION, in the first gap between two sections.
        let (events, _) = decode([recording.main]);
        let at = events[0].0 as usize;
        with_return_path.splice(at..at, [section::COMMAND, 0, 1, 0, 0]);
        [recording.main.to_vec(), with_return_path]
    });
    both.collect()
}

/// Where the device state starts, in a stream that is whole.
fn device_state_at(whole: &Said) -> usize {
    match whole.0.last() {
        Some((end, MainEvent::DeviceState(bytes))) => *end as usize - bytes.len(),
        other => panic!("{other:?}"),
    }
}

/// Every position up to behind the first pages, around the start of the device state and at the end;
/// some in between, where one page is like another, as one byte of a device is.
fn positions(bytes: &[u8], device_state: usize) -> impl Iterator<Item = usize> {
    let dense =
        move |at: usize| at < 600 || at.abs_diff(device_state) < 100 || at + 40 > bytes.len();
    let stride = move |at| if at < device_state { 37 } else { 4999 };
    (0..=bytes.len()).filter(move |&at| dense(at) || at % stride(at) == 0)
}

#[test]
fn the_events_of_a_recording_are_encoded_to_the_bytes_they_came_from() {
    for recording in recordings() {
        let mut decoder = MainDecoder::new(Limits::default());
        let (mut rest, mut events) = (recording.main, Vec::new());
        events.extend(std::iter::from_fn(|| decoder.next(&mut rest).unwrap()));
        events.extend(decoder.finish().unwrap());
        let mut encoder =
            MainEncoder::new().with_page_size(decoder.page_size()).with_footers(decoder.footers());
        encode(&mut encoder, &events).unwrap();
        assert!(encoder.bytes() == recording.main, "{recording:?}");
    }
}

fn encode(encoder: &mut MainEncoder, events: &[MainEvent]) -> Result<(), StreamError> {
    let mut events = events.iter().enumerate();
    let all: Vec<_> = events.clone().map(|(_, event)| event).collect();
    let mut in_body = false;
    while let Some((at, event)) = events.next() {
        let is_of_body = matches!(
            event,
            MainEvent::Sync
                | MainEvent::ZeroPage { .. }
                | MainEvent::Page { .. }
                | MainEvent::BodyEnd { .. }
        );
        if is_of_body && !in_body {
            let last = all[at..].iter().find_map(|event| match event {
                MainEvent::BodyEnd { last } => Some(*last),
                _ => None,
            });
            if last == Some(true) {
                encoder.end_begin()?;
            } else {
                encoder.part_begin()?;
            }
            in_body = true;
        }
        match event {
            MainEvent::Configuration(configuration) => encoder.header(configuration)?,
            MainEvent::OpenReturnPath => encoder.open_return_path()?,
            MainEvent::Ping(number) => encoder.ping(*number)?,
            MainEvent::PostcopyAdvise(advise) => encoder.postcopy_advise(*advise)?,
            MainEvent::EarlyState(section) => encoder.early_state(section)?,
            MainEvent::SwitchoverStart => encoder.switchover_start()?,
            MainEvent::RamStart { section_id, instance_id, blocks, sync } => {
                encoder.ram_start(*section_id, *instance_id, blocks, *sync)?;
                assert!(matches!(events.next(), Some((_, MainEvent::Sync))));
            }
            MainEvent::Sync => encoder.sync()?,
            MainEvent::ZeroPage { block, offset } => encoder.zero_page(*block, *offset)?,
            MainEvent::Page { block, offset, data } => encoder.page(*block, *offset, data)?,
            MainEvent::BodyEnd { .. } => {
                encoder.body_end()?;
                in_body = false;
            }
            MainEvent::DeviceState(bytes) => encoder.device_state(bytes)?,
            other => panic!("{other:?}"),
        }
    }
    Ok(())
}

#[test]
fn a_recording_split_anywhere_says_the_same() {
    for bytes in streams() {
        let whole = decode([&bytes[..]]);
        assert_eq!(whole.1, None);
        assert!(decode(bytes.chunks(1)) == whole);
        for at in positions(&bytes, device_state_at(&whole)) {
            let (one, other) = bytes.split_at(at);
            assert!(decode([one, other]) == whole, "split at {at}");
        }
    }
}

#[test]
fn a_recording_cut_off_anywhere_is_truncated_there_however_it_is_split() {
    for bytes in streams() {
        let whole = decode([&bytes[..]]);
        for end in positions(&bytes, device_state_at(&whole)).filter(|&end| end < bytes.len()) {
            let cut = decode([&bytes[..end]]);
            let error = cut.1.as_ref().expect("a part is no stream");
            let kind = &error.kind;
            assert!(matches!(kind, StreamErrorKind::Truncated { .. }), "{end}: {kind}");
            assert_eq!(error.offset, end as u64);
            assert!(whole.0.starts_with(&cut.0), "{end}");
            assert!(decode(bytes[..end].chunks(1)) == cut, "{end}");
        }
    }
}

/// What happens to a stream.
#[derive(Clone, Debug)]
enum Change {
    Flip { at: Index, bit: u8 },
    Cut { at: Index },
    Remove { at: Index, count: usize },
    Repeat { at: Index, count: usize },
    Byte { at: Index, byte: u8 },
}

fn change() -> impl Strategy<Value = Change> {
    let at = || any::<Index>();
    prop_oneof![
        4 => (at(), 0..8_u8).prop_map(|(at, bit)| Change::Flip { at, bit }),
        1 => at().prop_map(|at| Change::Cut { at }),
        2 => (at(), 1..20_usize).prop_map(|(at, count)| Change::Remove { at, count }),
        2 => (at(), 1..40_usize).prop_map(|(at, count)| Change::Repeat { at, count }),
        2 => (at(), 0..0x20_u8).prop_map(|(at, byte)| Change::Byte { at, byte }),
    ]
}

/// Applies the change, mostly to the first `focus` bytes: most of the rest is device state.
fn apply(bytes: &mut Vec<u8>, change: &Change, focus: usize) {
    let (Change::Flip { at, .. }
    | Change::Cut { at }
    | Change::Remove { at, .. }
    | Change::Repeat { at, .. }
    | Change::Byte { at, .. }) = change;
    let within = if focus > 0 { focus.min(bytes.len()) } else { bytes.len() };
    if within == 0 {
        return;
    }
    let at = at.index(within);
    let end = |count: usize| (at + count).min(bytes.len());
    match *change {
        Change::Flip { bit, .. } => bytes[at] ^= 1 << bit,
        Change::Cut { .. } => bytes.truncate(at),
        Change::Remove { count, .. } => drop(bytes.drain(at..end(count))),
        Change::Repeat { count, .. } => {
            let again = bytes[at..end(count)].to_vec();
            bytes.splice(at..at, again);
        }
        Change::Byte { byte, .. } => bytes[at] = byte,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn a_recording_in_pieces_of_any_sizes_says_the_same(
        stream in any::<Index>(),
        sizes in prop::collection::vec(1..5000_usize, 1..8),
    ) {
        let streams = streams();
        let bytes = stream.get(&streams);
        prop_assert!(decode(pieces(bytes, &sizes)) == decode([&bytes[..]]));
    }

    #[test]
    fn a_damaged_recording_never_panics_and_says_the_same_however_it_is_split(
        stream in any::<Index>(),
        changes in prop::collection::vec(change(), 1..4),
        focus in prop_oneof![Just(0_usize), 200..8000_usize],
        sizes in prop::collection::vec(1..300_usize, 1..8),
    ) {
        let mut bytes = stream.get(&streams()).clone();
        changes.iter().for_each(|change| apply(&mut bytes, change, focus));
        let whole = decode([&bytes[..]]);
        let split = decode(pieces(&bytes, &sizes));
        prop_assert_eq!(&split.1, &whole.1);
        prop_assert!(split.0 == whole.0);
    }
}
