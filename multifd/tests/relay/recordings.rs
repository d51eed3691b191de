//! Migrations out of real QEMUs, relayed.

use multifd::Destination;
use multifd::core::Compression;
use multifd_conformance::recordings;
use sha2::{Digest, Sha256};

use crate::common::{all_compressions, any_port, content, provide, registry};
use crate::support::{opens_return_path, read_all, relay, replay};

#[test]
fn every_recording_arrives_with_the_ram_that_the_guest_had_in_every_codec() {
    for recording in recordings() {
        for to in all_compressions() {
            let registry = registry();
            let destination = Destination::builder(&registry).compression(to).channels(3);
            let destination = destination.listen(&any_port()).unwrap();
            let running = relay(destination.uri(), |setup| {
                let channels = recording.channels.len() as u8;
                let setup = setup.from_compression(recording.compression).from_channels(channels);
                setup.to_compression(to).to_channels(3)
            });
            let channels: Vec<_> = recording.channels.iter().map(|bytes| bytes.to_vec()).collect();
            let source = replay(&running.uri, recording.main, &channels);
            let arrived = destination.receive(provide).unwrap();
            let digest = Sha256::digest(content(&arrived.ram, recording.ram_block));
            let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(digest, recording.ram_sha256, "{recording:?} to {to}");
            assert!(recording.main.ends_with(&arrived.vm.device_state), "{recording:?}");
            assert_eq!(arrived.missing_pages(), 0, "{recording:?}");
            arrived.confirm().unwrap();
            let relayed = running.join().unwrap();
            assert_eq!(relayed.confirmed, opens_return_path(recording.main), "{recording:?}");
            assert_eq!(relayed.from.main_bytes, recording.main.len() as u64);
            for connection in source {
                connection.join().unwrap();
            }
        }
    }
}

#[test]
fn the_main_channel_goes_through_byte_for_byte_and_a_sync_goes_out_for_each_that_came() {
    // Nobody confirms here.
    for recording in recordings().iter().filter(|recording| !opens_return_path(recording.main)) {
        let (listener, uri) = crate::support::listener();
        let running = relay(&uri, |setup| {
            let channels = recording.channels.len() as u8;
            setup.from_compression(recording.compression).from_channels(channels).to_channels(5)
        });
        let channels: Vec<_> = recording.channels.iter().map(|bytes| bytes.to_vec()).collect();
        let source = replay(&running.uri, recording.main, &channels);
        // The main channel is the first to connect.
        let streams = read_all(&listener, 6);
        assert!(streams[0] == recording.main, "{recording:?}");
        let syncs = |stream: &[u8]| packets(stream).iter().filter(|flags| **flags & 1 == 1).count();
        let came = recording.channels[0];
        let came = if recording.compression == Compression::None { syncs(came) } else { 0 };
        let relayed = running.join().unwrap();
        let mut numbers: Vec<_> = streams[1..].iter().map(|stream| stream[24]).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, [0, 1, 2, 3, 4]);
        for stream in &streams[1..] {
            assert_eq!(stream[8..24], recording.channels[0][8..24], "the UUID of the source");
            assert_eq!(syncs(stream) as u64, relayed.from.syncs, "{recording:?}");
            assert!(came == 0 || syncs(stream) == came, "{recording:?}");
        }
        let mut nums: Vec<_> = streams[1..].iter().flat_map(|stream| packet_nums(stream)).collect();
        nums.sort_unstable();
        assert!(nums.iter().copied().eq(0..nums.len() as u64), "one sequence over all channels");
        drop(source);
    }
}

/// The flags of each packet of a channel without compression, with 4 KiB pages.
fn packets(stream: &[u8]) -> Vec<u32> {
    headers(stream).map(|header| word(header, 8)).collect()
}

fn packet_nums(stream: &[u8]) -> Vec<u64> {
    headers(stream).map(|header| u64::from_be_bytes(header[24..32].try_into().unwrap())).collect()
}

fn headers(stream: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = &stream[64..];
    std::iter::from_fn(move || {
        let (header, payload) = rest.split_at_checked(1344)?;
        let normal_bytes = word(header, 16) as usize * 4096;
        rest = &payload[normal_bytes..];
        Some(header)
    })
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap())
}
