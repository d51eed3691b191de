//! Migrations out of real QEMUs, whole and damaged.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::time::Duration;

use common::{content, provide, registry};
use multifd::core::{ErrorKind, PeerError};
use multifd::driver::MainChannelError;
use multifd::stream::{StreamErrorKind, SyncForm};
use multifd::{Arrived, Destination, Error};
use multifd_conformance::{Recording, recordings};
use sha2::{Digest, Sha256};

/// A recording whose bytes can be changed.
struct Streams {
    recording: &'static Recording,
    main: Vec<u8>,
    channels: Vec<Vec<u8>>,
}

impl Streams {
    fn of(recording: &'static Recording) -> Self {
        let channels = recording.channels.iter().map(|channel| channel.to_vec()).collect();
        Self { recording, main: recording.main.to_vec(), channels }
    }

    fn named(name: &str) -> Self {
        Self::of(recordings().iter().find(|recording| recording.name == name).unwrap())
    }

    fn decode(&self) -> Result<Arrived, Error> {
        let channels = self.channels.iter().map(|bytes| std::io::Cursor::new(bytes.clone()));
        Destination::builder(&registry())
            .compression(self.recording.compression)
            .channel_timeout(Duration::from_millis(500))
            .decode(&self.main[..], channels.collect(), provide)
    }

    /// The start of the last packet of a channel: a SYNC without payload.
    fn last_sync(&self, channel: usize) -> usize {
        self.channels[channel].len() - 1344
    }
}

fn sha256(arrived: &Arrived, block: &str) -> String {
    let digest = Sha256::digest(content(&arrived.ram, block));
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn every_recording_gives_the_ram_that_the_guest_had() {
    for recording in recordings() {
        let arrived = Streams::of(recording).decode().unwrap();
        assert_eq!(sha256(&arrived, recording.ram_block), recording.ram_sha256, "{recording:?}");
        assert_eq!(arrived.missing_pages(), 0, "{recording:?}");
        let older = recording.qemu.starts_with("7.2");
        let form = if older { SyncForm::EachSection } else { SyncForm::Flush };
        assert_eq!(arrived.vm.sync_form, form, "{recording:?}");
        assert!(arrived.vm.device_state.len() > 4096, "{recording:?}");
        assert!(recording.main.ends_with(&arrived.vm.device_state), "{recording:?}");
        arrived.confirm().unwrap();
    }
}

#[test]
fn a_channel_that_is_cut_off_is_never_a_whole_vm() {
    let whole = Streams::named("zstd");
    let length = whole.channels[1].len();
    for end in [0, 3, 63, 64, 1000, length / 2, length - 1345, length - 1344, length - 1] {
        let mut cut = Streams::named("zstd");
        cut.channels[1].truncate(end);
        let error = cut.decode().expect_err("a channel is cut off");
        let truncated = matches!(&error, Error::Channel(error)
            if matches!(error.kind(), ErrorKind::Peer(PeerError::Truncated)));
        // Cut between two packets, the channel just ends too early.
        assert!(truncated || matches!(error, Error::EndedEarly(1)), "{end}: {error}");
    }
}

#[test]
fn a_main_channel_that_is_cut_off_is_never_a_whole_vm() {
    let length = Streams::named("none").main.len();
    for end in (0..length).step_by(length / 50) {
        let mut cut = Streams::named("none");
        cut.main.truncate(end);
        let error = cut.decode().expect_err("the main channel is cut off");
        assert!(matches!(error, Error::Main(_)), "{end}: {error}");
    }
}

#[test]
fn packets_after_the_last_sync_are_refused() {
    let mut streams = Streams::named("zlib");
    let sync = streams.channels[0][streams.last_sync(0)..].to_vec();
    streams.channels[0].extend(sync);
    let error = streams.decode().unwrap_err();
    assert!(matches!(error, Error::AfterLastSync(0)), "{error}");
    let end = streams.channels[0].len() - 1344;
    streams.channels[0].truncate(end);
    streams.decode().unwrap().confirm().unwrap();
    // What looked like the end may have been a device's own state.
    streams.main.push(0);
    let error = streams.decode().unwrap_err();
    let Error::Main(MainChannelError::Stream(error)) = error else { panic!("{error}") };
    assert_eq!(error.kind, StreamErrorKind::Trailing { bytes: 1 });
}

#[test]
fn bytes_behind_the_end_are_refused_where_there_is_early_state_too() {
    let mut streams = Streams::named("zlib");
    let early = b"\x04\0\0\0\x63\x01d\0\0\0\0\0\0\0\x01state\x7e\0\0\0\x63";
    // Behind the header and the machine's name.
    let at = 13 + u32::from_be_bytes(streams.main[9..13].try_into().unwrap()) as usize;
    let open_return_path = b"\x08\0\x01\0\0";
    streams.main.splice(at..at, [&open_return_path[..], early].concat());
    let arrived = streams.decode().unwrap();
    assert_eq!(arrived.vm.early_state.before_start, early);
    arrived.confirm().unwrap();
    streams.main.push(b'}');
    let error = streams.decode().unwrap_err();
    let Error::Main(MainChannelError::Stream(error)) = error else { panic!("{error}") };
    assert_eq!(error.kind, StreamErrorKind::Trailing { bytes: 1 });
}

#[test]
fn pages_after_the_last_sync_are_refused_whichever_thread_is_first() {
    let mut streams = Streams::named("none");
    // The packet behind the first SYNC, with its pages.
    let packet = &streams.channels[1][64 + 1344..];
    let pages = u32::from_be_bytes(packet[16..20].try_into().unwrap()) as usize;
    let late = packet[..1344 + pages * 4096].to_vec();
    streams.channels[1].extend(late);
    for run in 0..80 {
        let error = streams.decode().unwrap_err();
        assert!(matches!(error, Error::AfterLastSync(1)), "run {run}: {error}");
    }
}

#[test]
fn a_return_path_in_a_recording_leaves_no_check_out() {
    let mut streams = Streams::named("zlib");
    // Behind the header and the CONFIGURATION: a command that opens the return path.
    let machine = u32::from_be_bytes(streams.main[9..13].try_into().unwrap()) as usize;
    streams.main.splice(13 + machine..13 + machine, [8, 0, 1, 0, 0]);
    streams.decode().unwrap().confirm().unwrap();
    let sync = streams.channels[0][streams.last_sync(0)..].to_vec();
    streams.channels[0].extend(sync);
    let error = streams.decode().unwrap_err();
    assert!(matches!(error, Error::AfterLastSync(0)), "{error}");
}

#[test]
fn an_empty_packet_after_the_last_sync_says_nothing() {
    // As QEMU 7.2 sends it where the last SYNC came in a packet with pages.
    let mut streams = Streams::named("zlib");
    let mut empty = streams.channels[0][streams.last_sync(0)..].to_vec();
    empty[11] = 0;
    streams.channels[0].extend(empty);
    let arrived = streams.decode().unwrap();
    assert_eq!(sha256(&arrived, "pc.ram"), streams.recording.ram_sha256);
}

#[test]
fn a_sync_that_is_missing_on_one_channel_is_an_error() {
    let mut streams = Streams::named("zlib");
    let end = streams.last_sync(1);
    streams.channels[1].truncate(end);
    let error = streams.decode().unwrap_err();
    assert!(matches!(error, Error::EndedEarly(1)), "{error}");
}

#[test]
fn a_channel_that_is_lost_shows_whichever_it_is() {
    for recording in recordings() {
        for lost in 0..recording.channels.len() {
            let mut streams = Streams::of(recording);
            streams.channels.remove(lost);
            for (number, channel) in (0..).zip(&mut streams.channels) {
                channel[24] = number;
            }
            // The recording does not say how many channels there were.
            let error = streams.decode().unwrap_err();
            assert!(matches!(error, Error::LostPackets { .. }), "{recording:?}: {error}");
        }
    }
}

#[test]
fn two_streams_of_one_channel_are_refused() {
    let mut streams = Streams::named("zlib");
    streams.channels[1] = streams.channels[0].clone();
    let Error::Channel(error) = streams.decode().unwrap_err() else { panic!() };
    assert!(
        matches!(error.kind(), ErrorKind::Peer(PeerError::DuplicateChannel { id: 0 })),
        "{error}"
    );
}

#[test]
fn flipped_bits_anywhere_end_in_an_error_or_in_a_whole_stream_but_never_in_a_panic() {
    let names = ["none", "zlib", "qemu-7.2-zstd", "qpl"];
    let mut state = 1_u64;
    let mut next = |limit: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) as usize % limit
    };
    let mut errors = 0;
    for round in 0..120 {
        let mut streams = Streams::named(names[round / 2 % names.len()]);
        let target = next(3);
        // Flips anywhere are mostly in payloads; half go to the first headers.
        let bytes = streams.channels.get_mut(target).unwrap_or(&mut streams.main);
        let limit = if round % 2 == 0 { bytes.len() } else { bytes.len().min(3000) };
        bytes[next(limit)] ^= 1 << next(8);
        match streams.decode() {
            Err(Error::Panicked) => panic!("round {round}: a thread panicked"),
            Err(_) => errors += 1,
            Ok(_) => {}
        }
    }
    assert!(errors > 20, "most flips in headers are noticed: {errors}");
}
