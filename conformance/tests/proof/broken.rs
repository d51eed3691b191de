//! Each codec that is broken in one way is caught, by the group that is meant for it.

use std::sync::Arc;
use std::time::Duration;

use multifd_conformance::{CaseReport, Group, Outcome, cases};
use multifd_core::{
    Availability, ChannelConfig, Error, Levels, MethodDescriptor, MultiFdMethods, RecvMethod,
    SendMethod, async_trait,
};

use crate::prefixed::Prefixed;
use crate::rle::{Fault, rle};
use crate::{qpl, zlib, zstd};

type Codec = Arc<dyn MultiFdMethods>;

fn faulty(fault: Fault) -> Codec {
    Arc::new(rle(fault))
}

/// The cases of `group` that fail for the codec.
fn failures(group: Group, codec: &Codec) -> Vec<CaseReport> {
    let of_group = cases().iter().filter(|case| case.group() == group);
    of_group
        .map(|case| case.run_within(Duration::from_secs(30), codec))
        .filter(|case| matches!(case.outcome(), Outcome::Failed(_)))
        .collect()
}

/// Asserts that a case called like `name` fails and says `message`.
#[track_caller]
fn caught(group: Group, codec: &Codec, name: &str, message: &str) {
    let failures = failures(group, codec);
    let texts: Vec<_> = failures.iter().map(ToString::to_string).collect();
    let meant = failures.iter().find(|case| case.name() == name);
    let Some(meant) = meant else { panic!("{name} lets it pass; caught by {texts:#?}") };
    let text = meant.outcome().to_string();
    assert!(text.contains(message), "{text}");
}

/// Asserts that no case of `group` fails: only the group that is meant for it sees the fault.
#[track_caller]
fn unseen(group: Group, codec: &Codec) {
    let texts: Vec<_> = failures(group, codec).iter().map(ToString::to_string).collect();
    assert!(texts.is_empty(), "{texts:#?}");
}

/// What works on its own packets is not seen by a round trip: that is what the other groups are
/// for.
#[track_caller]
fn caught_though_pages_come_back(group: Group, codec: &Codec, name: &str, message: &str) {
    unseen(Group::RoundTrip, codec);
    caught(group, codec, name, message);
}

/// Asserts that of the group only the cases called like `names` fail, though pages come back.
#[track_caller]
fn caught_by_only(group: Group, codec: &Codec, names: &[&str], message: &str) {
    unseen(Group::RoundTrip, codec);
    let failures = failures(group, codec);
    let texts: Vec<_> = failures.iter().map(ToString::to_string).collect();
    assert_eq!(failures.iter().map(CaseReport::name).collect::<Vec<_>>(), names, "{texts:#?}");
    assert!(texts.iter().all(|text| text.contains(message)), "{texts:#?}");
}

/// A right codec that says something else of itself.
#[derive(Debug)]
struct Described(Codec, MethodDescriptor);

#[async_trait]
impl MultiFdMethods for Described {
    fn descriptor(&self) -> MethodDescriptor {
        self.1
    }

    fn probe(&self) -> Availability {
        self.0.probe()
    }

    async fn send_setup(&self, config: &ChannelConfig) -> Result<Box<dyn SendMethod>, Error> {
        self.0.send_setup(config).await
    }

    async fn recv_setup(&self, config: &ChannelConfig) -> Result<Box<dyn RecvMethod>, Error> {
        self.0.recv_setup(config).await
    }
}

fn described(codec: Codec, change: impl FnOnce(&mut MethodDescriptor)) -> Codec {
    let mut descriptor = codec.descriptor();
    change(&mut descriptor);
    Arc::new(Described(codec, descriptor))
}

#[test]
fn a_default_level_that_is_none_of_the_levels() {
    let codec = described(Arc::new(zlib::RIGHT.methods()), |descriptor| {
        descriptor.levels = Some(Levels::new(1, 3, 6));
    });
    let case = "the_default_level_is_one_of_the_levels";
    caught(Group::Descriptor, &codec, case, "the default level is 6");
}

#[test]
fn a_name_that_is_not_qemus() {
    let case = "a_codec_of_qemus_bears_qemus_name";
    let codec = described(Arc::new(zlib::RIGHT.methods()), |it| it.name = "gzip");
    caught(Group::Descriptor, &codec, case, "gzip");
    let codec = described(faulty(Fault::None), |it| it.name = "zstd");
    caught(Group::Descriptor, &codec, case, "zstd");
}

#[test]
fn a_codec_that_refuses_everything() {
    let codec = faulty(Fault::RefusesEverything);
    let case = "packets_of_every_number_of_pages_come_back";
    caught(Group::RoundTrip, &codec, case, "it is not liked");
}

#[test]
fn pages_written_in_ascending_order_instead_of_the_packets() {
    let codec = faulty(Fault::WritesInAscendingOrder);
    let case = "pages_in_any_order_of_offsets_land_at_their_own";
    caught(Group::RoundTrip, &codec, case, "differs from byte 0 on");
}

#[test]
fn a_stream_without_its_header() {
    let codec: Codec = Arc::new(zlib::WITHOUT_HEADER.methods());
    let case = "recordings_of_qemu_10_decode_to_the_ram_that_was_sent";
    caught_though_pages_come_back(Group::Golden, &codec, case, "recording 'zlib'");
    let case = "another_decoder_reads_the_stream_of_every_page_size";
    caught(Group::Independent, &codec, case, "refused");
}

#[test]
fn a_stream_that_starts_anew_in_each_packet() {
    let codec: Codec = Arc::new(zlib::STARTS_ANEW.methods());
    let case = "another_decoder_has_every_page_at_the_end_of_each_packet";
    caught_though_pages_come_back(Group::Independent, &codec, case, "after 2 packets: refused");
    let case = "recordings_of_qemu_7_2_decode_to_the_ram_that_was_sent";
    caught(Group::Golden, &codec, case, "recording 'qemu-7.2-zlib'");
}

#[test]
fn a_frame_that_ends_with_each_packet() {
    let codec: Codec = Arc::new(zstd::ENDS_FRAMES.methods());
    let case = "another_decoder_reads_the_stream_of_every_page_size";
    caught_though_pages_come_back(Group::Independent, &codec, case, "the frame ends");
    unseen(Group::Golden, &codec);
}

#[test]
fn distances_that_no_accelerator_has() {
    let case = "another_decoder_reads_the_stream_of_every_page_size";
    let message = "pages of 16 KiB: refused: chunk";
    let codec: Codec = Arc::new(qpl::WIDE.methods());
    caught_though_pages_come_back(Group::Independent, &codec, case, message);
}

#[test]
fn streams_of_pages_with_a_header() {
    let codec: Codec = Arc::new(qpl::WITH_HEADER.methods());
    let case = "another_decoder_reads_the_stream_one_byte_at_a_time";
    caught_though_pages_come_back(Group::Independent, &codec, case, "refused: chunk");
    let case = "recordings_of_qemu_10_decode_to_the_ram_that_was_sent";
    caught(Group::Golden, &codec, case, "recording 'qpl'");
}

#[test]
fn payloads_that_no_receiver_has_room_for() {
    let codec = faulty(Fault::Expands);
    let case = "incompressible_pages_stay_within_the_bounds_at_every_level";
    caught(Group::PayloadBounds, &codec, case, "");
}

#[test]
fn zero_pages_that_are_left_unwritten() {
    let codec = faulty(Fault::LeavesZeroPagesUnwritten);
    let case = "zero_pages_sent_as_normal_pages_clear_the_memory";
    caught(Group::ZeroPages, &codec, case, "differs from byte 0 on");
}

#[test]
fn a_codec_that_accepts_everything() {
    let codec = faulty(Fault::AcceptsEverything);
    let case = "a_payload_of_noise_is_refused";
    caught_though_pages_come_back(Group::Hostile, &codec, case, "were taken");
}

#[test]
fn bytes_behind_the_payload_that_are_ignored() {
    let codec = faulty(Fault::IgnoresTrailingBytes);
    let case = "bytes_behind_the_payload_are_not_ignored";
    caught_though_pages_come_back(Group::Hostile, &codec, case, "were ignored");
}

#[test]
fn bytes_behind_a_chunk_that_are_ignored() {
    let codec: Codec = Arc::new(qpl::IGNORES_TAILS.methods());
    let names = ["bytes_behind_the_payload_are_not_ignored"];
    caught_by_only(Group::Hostile, &codec, &names, "behind a chunk were ignored");
}

#[test]
fn pages_that_come_short_without_an_error() {
    let codec = faulty(Fault::TakesShortPages);
    let case = "a_payload_that_is_cut_short_is_refused";
    caught_though_pages_come_back(Group::Hostile, &codec, case, "keeps what memory held before");
}

#[test]
fn a_panic_on_a_bad_length() {
    let codec = faulty(Fault::PanicsOnABadLength);
    let case = "a_changed_word_of_payload_gives_an_error_or_a_whole_packet";
    caught_though_pages_come_back(Group::Hostile, &codec, case, "panicked: a chunk of");
}

#[test]
fn a_panic_is_told_with_its_place() {
    let codec = faulty(Fault::PanicsOnABadLength);
    let case = "a_flipped_bit_gives_an_error_or_a_whole_packet";
    let failures = failures(Group::Hostile, &codec);
    let report = failures.iter().find(|report| report.name() == case).unwrap().to_string();
    let parts = [
        "rle, hostile: a flipped bit gives",
        " of byte ",
        " of a packet flipped: packet 7000000001, page ",
        " of 3 not yet written): panicked: a chunk of",
    ];
    let mut rest = &report[..];
    for part in parts {
        let Some((_, behind)) = rest.split_once(part) else { panic!("no {part:?}: {report}") };
        rest = behind;
    }
}

#[test]
fn former_bytes_that_a_short_page_keeps() {
    let case = "a_flipped_bit_gives_an_error_or_a_whole_packet";
    let codecs: [Codec; 3] = [
        Arc::new(zlib::SHORT.methods()),
        Arc::new(qpl::SHORT.methods()),
        faulty(Fault::LeavesFormerBytes),
    ];
    for codec in codecs {
        let message = "keeps what memory held before";
        caught_though_pages_come_back(Group::Hostile, &codec, case, message);
    }
}

#[test]
fn a_codec_that_never_returns() {
    let codec = faulty(Fault::HangsOnABadLength);
    let case = cases().iter().find(|case| case.name().starts_with("a_changed_word")).unwrap();
    let report = case.run_within(Duration::from_secs(2), &codec);
    let Outcome::Failed(message) = report.outcome() else { panic!("{report}") };
    assert_eq!(message, "not done after 2 s: the codec does not return");
    assert!(report.duration() < Duration::from_secs(10));
}

#[test]
fn a_peers_bytes_that_are_called_the_codecs_own_fault() {
    let codec = faulty(Fault::BlamesItself);
    let case = "a_payload_of_noise_is_refused";
    caught_though_pages_come_back(Group::Hostile, &codec, case, "not called the peer's fault");
}

#[test]
fn bytes_written_beside_the_packets_pages() {
    let codec = faulty(Fault::WritesBesideItsPages);
    let case = "a_packet_cut_short_at_any_byte_is_refused";
    caught(Group::Hostile, &codec, case, "was written, which no packet names");
}

#[test]
fn memory_by_a_length_that_a_peer_claims() {
    let codec = faulty(Fault::AllocatesByClaimedLength);
    unseen(Group::Hostile, &codec);
    let case = "no_hostile_packet_takes_more_memory_than_the_bound";
    caught_though_pages_come_back(Group::Memory, &codec, case, "MiB of heap, the bound is 160");
}

#[test]
fn memory_by_a_length_that_a_page_begins_with() {
    let codec: Codec = Arc::new(Prefixed.methods());
    unseen(Group::Hostile, &codec);
    let case = "no_hostile_packet_takes_more_memory_than_the_bound";
    let message = "at byte 12 of the payload: that took 25";
    caught_though_pages_come_back(Group::Memory, &codec, case, message);
}

#[test]
fn memory_that_is_lost_with_each_error() {
    let codec = faulty(Fault::LeaksAfterAnError);
    let case = "channels_that_end_in_errors_leave_no_memory_behind";
    caught_though_pages_come_back(Group::Memory, &codec, case, "KiB behind");
}

#[test]
fn guest_memory_that_is_read_twice() {
    let codec = faulty(Fault::ReadsGuestMemoryTwice);
    let case = "a_page_that_changes_between_any_two_reads_arrives_as_one_read_of_it";
    caught_though_pages_come_back(Group::ChangingPages, &codec, case, "receiving a valid packet");
}

#[test]
fn counts_that_go_backwards() {
    let codec = faulty(Fault::CountsBackwards);
    let case = "a_channel_ends_cleanly_and_says_what_it_counted";
    caught_though_pages_come_back(Group::Cleanup, &codec, case, "the codec counted");
}

#[test]
fn a_codec_that_cannot_be_cleaned_up_after_an_error() {
    let codec = faulty(Fault::CannotBeCleanedUpAfterAnError);
    let case = "a_receiver_that_failed_can_be_cleaned_up_and_set_up_anew";
    caught_though_pages_come_back(Group::Cleanup, &codec, case, "does not answer");
}

#[test]
fn a_codec_that_no_longer_works_after_an_error() {
    let codec = faulty(Fault::PoisonedByAnError);
    let case = "a_receiver_that_failed_can_be_dropped_and_set_up_anew";
    caught_though_pages_come_back(Group::Cleanup, &codec, case, "the device is gone");
}

#[test]
fn a_codec_of_pages_that_no_longer_works_after_an_error() {
    let codec: Codec = Arc::new(qpl::PoisonedByAnError::methods());
    let names = [
        "a_receiver_that_failed_can_be_cleaned_up_and_set_up_anew",
        "a_receiver_that_failed_can_be_dropped_and_set_up_anew",
    ];
    caught_by_only(Group::Cleanup, &codec, &names, "the device is gone");
}

#[test]
fn state_that_channels_share() {
    let codec = faulty(Fault::SharesStateOverChannels);
    let case = "two_channels_that_interleave_do_not_share_state";
    caught_though_pages_come_back(Group::Channels, &codec, case, "it has the number");
}
