//! Recordings as QEMU sent them.

use multifd::inspect::{Counts, Severity};
use multifd::stream::SyncForm;
use multifd_conformance::recordings;
use serde_json::Value;

use crate::streams::Streams;

fn capture(name: &str) -> Value {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../conformance/recordings");
    serde_json::from_slice(&std::fs::read(format!("{folder}/{name}/capture.json")).unwrap())
        .unwrap()
}

#[test]
fn nothing_is_wrong_with_what_qemu_sends() {
    for recording in recordings() {
        let report = Streams::of(recording).inspect();
        assert_eq!(report.findings.errors(), 0, "{recording:?}: {:#?}", report.findings);
        let empty = u64::from(recording.qemu.starts_with("7.2"));
        assert_eq!(report.findings.notes(), empty, "{recording:?}: {:#?}", report.findings);
        assert!(
            report.findings.iter().all(|finding| finding.kind.code() == "empty"
                && finding.kind.severity() == Severity::Note)
        );
    }
}

#[test]
fn the_counts_are_those_of_the_source() {
    for recording in recordings() {
        let capture = capture(recording.name);
        let report = Streams::of(recording).inspect();
        let total = report.total();
        assert_eq!(report.configuration.machine.as_deref(), capture["machine"].as_str());
        assert_eq!(report.compression, Some(recording.compression));
        assert_eq!(report.channels.len(), recording.channels.len());
        assert_eq!(total.normal_pages, capture["normal_pages"], "{recording:?}");
        assert_eq!(total.zero_pages + report.main.zero_pages, capture["zero_pages"]);
        let older = recording.qemu.starts_with("7.2");
        let form = if older { SyncForm::EachSection } else { SyncForm::Flush };
        assert_eq!(report.main.sync, Some(form));
        let bitmaps = if recording.name.ends_with("dirty-bitmaps") { 32 } else { 0 };
        assert_eq!(report.main.early_state_bytes, bitmaps, "{recording:?}");
        assert!(!report.main.postcopy);
        assert_eq!(report.main.bytes, recording.main.len() as u64);
        assert!(report.channels.iter().all(|channel| channel.syncs == report.main.syncs));
    }
}

#[test]
fn rounds_and_channels_add_up_to_the_files() {
    for recording in recordings() {
        let report = Streams::of(recording).inspect();
        for (number, channel) in report.channels.iter().enumerate() {
            let bytes = recording.channels[number].len() as u64;
            assert_eq!(channel.counts.wire_bytes, bytes, "{recording:?}");
            let by_round = report.rounds.iter().filter_map(|round| round.channel_bytes.get(number));
            assert_eq!(by_round.sum::<u64>(), bytes, "{recording:?}");
            let last = channel.trace.points().last().unwrap();
            assert_eq!((last.offset, last.packets), (bytes, channel.counts.packets));
        }
        let rounds = report.rounds.iter().fold(Counts::default(), |mut sum, round| {
            sum += round.counts;
            sum
        });
        assert_eq!(rounds, report.total(), "{recording:?}");
        assert!(report.rounds[0].is_empty() && !report.rounds[1].is_empty(), "{recording:?}");
    }
}

#[test]
fn every_page_of_every_block_is_sent_once_by_a_paused_guest() {
    for recording in recordings() {
        let report = Streams::of(recording).inspect();
        assert!(report.blocks.iter().any(|block| block.name.as_str() == recording.ram_block));
        for block in &report.blocks {
            assert_eq!((block.sent, block.most_times), (block.pages, 1), "{recording:?} {block:?}");
            assert_eq!((block.sent_again, block.bytes), (0, block.pages * 4096));
        }
    }
}

#[test]
fn raw_and_compressed_pages_of_qpl_are_told_apart() {
    let report = Streams::named("qpl").inspect();
    let total = report.total();
    assert!(total.raw_pages > 0 && total.raw_pages < total.normal_pages, "{total:?}");
    let none = Streams::named("none").inspect().total();
    assert_eq!(none.raw_pages, none.normal_pages);
}

#[test]
fn the_device_state_is_found_by_its_devices() {
    for recording in recordings() {
        let report = Streams::of(recording).inspect();
        let state = report.main.device_state.unwrap();
        assert_eq!(state.sections.len(), 30, "{recording:?}");
        assert_eq!(state.offset, state.sections[0].offset);
        assert_eq!(state.offset + state.bytes, recording.main.len() as u64);
        for pair in state.sections.windows(2) {
            assert_eq!(pair[0].offset + pair[0].bytes, pair[1].offset, "{recording:?}");
        }
        let last = state.sections.last().unwrap();
        // EOF, the byte and the length of the VMDESCRIPTION.
        let end = last.offset + last.bytes + 6 + state.description_bytes.unwrap();
        assert_eq!(end, recording.main.len() as u64);
        assert!(state.sections.iter().any(|section| section.name == "cpu"));
    }
}
