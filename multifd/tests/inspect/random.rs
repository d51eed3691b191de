//! Recordings changed at random, and split at any place.

use multifd::inspect::{Inspector, Report};
use multifd_conformance::recordings;
use proptest::prelude::*;

use crate::streams::{PACKET, Streams};

/// A change of one of a recording's connections.
#[derive(Clone, Debug)]
enum Change {
    Flip { connection: usize, at: usize, bit: u8 },
    Cut { connection: usize, at: usize },
    Remove { connection: usize, at: usize, count: usize },
    Repeat { connection: usize, at: usize, count: usize },
    Word { connection: usize, at: usize, word: u32 },
}

fn change() -> impl Strategy<Value = Change> {
    let connection = || 0..3_usize;
    // Headers are at the start; payloads are most of the rest.
    let at = || prop_oneof![0..6000_usize, 0..2_000_000_usize];
    let count = || prop_oneof![1..3000_usize, Just(1344)];
    let word = prop_oneof![any::<u32>(), 0..300_u32, Just(u32::MAX)];
    prop_oneof![
        (connection(), at(), 0..8_u8).prop_map(|(connection, at, bit)| Change::Flip {
            connection,
            at,
            bit
        }),
        (connection(), at()).prop_map(|(connection, at)| Change::Cut { connection, at }),
        (connection(), at(), count()).prop_map(|(connection, at, count)| Change::Remove {
            connection,
            at,
            count
        }),
        (connection(), at(), count()).prop_map(|(connection, at, count)| Change::Repeat {
            connection,
            at,
            count
        }),
        (connection(), at(), word).prop_map(|(connection, at, word)| Change::Word {
            connection,
            at,
            word
        }),
    ]
}

fn apply(streams: &mut Streams, change: &Change) {
    let (Change::Flip { connection, at, .. }
    | Change::Cut { connection, at }
    | Change::Remove { connection, at, .. }
    | Change::Repeat { connection, at, .. }
    | Change::Word { connection, at, .. }) = *change;
    let bytes = streams.channels.get_mut(connection).unwrap_or(&mut streams.main);
    let at = at % bytes.len().max(1);
    let end = |count: usize| (at + count).min(bytes.len());
    match *change {
        Change::Flip { bit, .. } if at < bytes.len() => bytes[at] ^= 1 << bit,
        Change::Cut { .. } => bytes.truncate(at),
        Change::Remove { count, .. } => drop(bytes.drain(at..end(count))),
        Change::Repeat { count, .. } => {
            let again = bytes[at..end(count)].to_vec();
            bytes.splice(at..at, again);
        }
        Change::Word { word, .. } => {
            let end = end(4);
            bytes[at..end].copy_from_slice(&word.to_be_bytes()[..end - at]);
        }
        Change::Flip { .. } => {}
    }
}

/// As a relay would: the main channel first, then each channel, in pieces of these sizes.
fn inspect_in_pieces(streams: &Streams, sizes: &[usize]) -> Report {
    let mut inspector = Inspector::new();
    for mut piece in pieces(&streams.main, sizes) {
        while inspector.main_bytes(&mut piece).is_some() {}
    }
    for bytes in &streams.channels {
        let number = inspector.connect();
        for mut piece in pieces(bytes, sizes) {
            while inspector.channel_bytes(number, &mut piece, None).is_some() {}
        }
    }
    inspector.finish()
}

/// `bytes` in pieces of these sizes, over and over again.
fn pieces<'a>(mut bytes: &'a [u8], sizes: &'a [usize]) -> impl Iterator<Item = &'a [u8]> {
    sizes.iter().cycle().map_while(move |&size| {
        let (piece, rest) = bytes.split_at(size.min(bytes.len()));
        bytes = rest;
        (!piece.is_empty()).then_some(piece)
    })
}

fn text(report: &Report) -> String {
    format!("{report:#?}")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn no_change_and_no_split_makes_it_panic_and_the_split_changes_nothing(
        recording in 0..recordings().len(),
        changes in proptest::collection::vec(change(), 0..5),
        sizes in proptest::collection::vec(prop_oneof![1..5000_usize, 1..20_usize], 1..8),
    ) {
        let mut streams = Streams::of(&recordings()[recording]);
        changes.iter().for_each(|change| apply(&mut streams, change));
        streams.inspect();
        let whole = inspect_in_pieces(&streams, &[usize::MAX]);
        prop_assert_eq!(text(&inspect_in_pieces(&streams, &sizes)), text(&whole));
    }
}

#[test]
fn a_relay_in_any_order_of_the_channels_finds_nothing_wrong_either() {
    for recording in recordings() {
        let report = inspect_in_pieces(&Streams::of(recording), &[1000]);
        assert_eq!(report.findings.errors(), 0, "{recording:?}: {:#?}", report.findings);
        assert_eq!(text(&report), text(&Streams::of(recording).inspect()), "{recording:?}");
    }
}

#[test]
fn every_byte_for_itself_gives_the_same_report() {
    for recording in recordings() {
        let streams = Streams::of(recording);
        assert_eq!(text(&inspect_in_pieces(&streams, &[1])), text(&streams.inspect()));
    }
}

/// The start of two recordings of which one has lengths in its payloads: the main channel up to its
/// RAM blocks, and a channel's first packets with pages.
fn beginnings() -> [Streams; 2] {
    ["qemu-7.2-zlib", "qpl"].map(|name| {
        let mut streams = Streams::named(name);
        let pages = streams.pages(0);
        streams.main.truncate(1000);
        streams.channels[0].truncate(pages.start + PACKET + 1000);
        streams
    })
}

#[test]
fn a_split_at_any_place_of_the_beginning_gives_the_same_report() {
    for streams in beginnings() {
        let whole = inspect_in_pieces(&streams, &[usize::MAX]);
        assert!(whole.channels[0].counts.packets > 0 && whole.main.sections > 0);
        let whole = text(&whole);
        for at in 1..streams.channels[0].len() {
            assert_eq!(text(&inspect_in_pieces(&streams, &[at, usize::MAX])), whole, "{at}");
        }
    }
}
