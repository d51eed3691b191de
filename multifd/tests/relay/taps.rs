//! Taps see what goes over the connections, byte for byte.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use multifd::core::Compression;
use multifd::relay::{Tap, Wire};
use multifd::stream::{Limits, MainDecoder, MainEvent};
use multifd::{PageSet, Side};
use multifd_conformance::recordings;

use crate::common::{guest, receive, send};
use crate::support::{listener, opens_return_path, read_all, relay, replay};

/// Keeps everything.
#[derive(Debug, Default)]
struct Recorder(Mutex<HashMap<(Side, Wire), Vec<u8>>>);

impl Tap for Recorder {
    fn pass(&self, side: Side, wire: Wire, bytes: &[u8]) {
        self.0.lock().unwrap().entry((side, wire)).or_default().extend_from_slice(bytes);
    }
}

impl Recorder {
    fn take(&self, side: Side, wire: Wire) -> Vec<u8> {
        self.0.lock().unwrap().remove(&(side, wire)).unwrap_or_default()
    }
}

#[test]
fn every_byte_is_seen_as_it_is_on_the_wire_unused_ones_too() {
    // Nobody confirms here.
    for recording in recordings().iter().filter(|recording| !opens_return_path(recording.main)) {
        for to in [Compression::None, Compression::Zlib] {
            let (listener, uri) = listener();
            let tap = Arc::new(Recorder::default());
            let running = relay(&uri, |setup| {
                let channels = recording.channels.len() as u8;
                let setup = setup.from_compression(recording.compression).from_channels(channels);
                setup.to_compression(to).to_channels(3).tap(tap.clone())
            });
            let channels: Vec<_> = recording
                .channels
                .iter()
                .map(|bytes| {
                    let mut bytes = bytes.to_vec();
                    // Behind magic, version, UUID and number, an initial packet has no meaning.
                    bytes[25..64].fill(0xaa);
                    bytes
                })
                .collect();
            let source = replay(&running.uri, recording.main, &channels);
            let streams = read_all(&listener, 4);
            running.join().unwrap();
            drop(source);

            assert!(tap.take(Side::From, Wire::Main) == recording.main, "{recording:?}");
            assert!(tap.take(Side::To, Wire::Main) == recording.main, "{recording:?}");
            for bytes in channels {
                let seen = tap.take(Side::From, Wire::Channel(bytes[24]));
                assert!(seen == bytes, "{recording:?}: {} of {} bytes", seen.len(), bytes.len());
            }
            for bytes in &streams[1..] {
                let seen = tap.take(Side::To, Wire::Channel(bytes[24]));
                assert!(seen == *bytes, "{recording:?}: {} of {} bytes", seen.len(), bytes.len());
            }
            assert!(tap.0.lock().unwrap().is_empty(), "nothing else is said");
        }
    }
}

/// Keeps where each write to the destination's main channel ends.
#[derive(Debug, Default)]
struct Ends(Mutex<Vec<u64>>);

impl Tap for Ends {
    fn pass(&self, side: Side, wire: Wire, bytes: &[u8]) {
        if (side, wire) == (Side::To, Wire::Main) {
            let mut ends = self.0.lock().unwrap();
            let before = ends.last().copied().unwrap_or_default();
            ends.push(before + bytes.len() as u64);
        }
    }
}

#[test]
fn nothing_behind_an_event_is_passed_on_with_it_where_there_is_early_state() {
    let recording = recordings().iter().find(|recording| recording.name == "none").unwrap();
    // Behind the header and the machine's name.
    let at = 13 + u32::from_be_bytes(recording.main[9..13].try_into().unwrap()) as usize;
    let mut main = recording.main.to_vec();
    main.splice(at..at, *b"\x04\0\0\0\x63\x01d\0\0\0\0\0\0\0\x01state\x7e\0\0\0\x63");
    let mut decoder = MainDecoder::new(Limits::default());
    let mut rest = &main[..];
    while decoder.next(&mut rest).unwrap() != Some(MainEvent::BodyEnd { last: true }) {}

    let (listener, uri) = listener();
    let tap = Arc::new(Ends::default());
    let running = relay(&uri, |setup| setup.tap(tap.clone()));
    let channels: Vec<_> = recording.channels.iter().map(|bytes| bytes.to_vec()).collect();
    let source = replay(&running.uri, &main, &channels);
    let streams = read_all(&listener, 1 + channels.len());
    running.join().unwrap();
    drop(source);
    assert!(streams[0] == main);
    assert!(tap.0.lock().unwrap().contains(&decoder.offset()), "no write ends at END's end");
}

#[test]
fn what_comes_before_a_stream_breaks_off_is_seen() {
    let recording = recordings().iter().find(|recording| recording.name == "none").unwrap();
    // In a header, in a payload, between two packets.
    for end in [64 + 1344 + 100, 64 + 1344 + 1344 + 5001, 64 + 1344] {
        let (listener, uri) = listener();
        // It reads nothing, and what it gets fits into the sockets' buffers.
        let destination = std::thread::spawn(move || {
            let connections: Vec<_> = (0..3).map(|_| listener.accept().unwrap()).collect();
            connections
        });
        let tap = Arc::new(Recorder::default());
        let running = relay(&uri, |setup| setup.tap(tap.clone()));
        let mut channels: Vec<_> = recording.channels.iter().map(|bytes| bytes.to_vec()).collect();
        channels[1].truncate(end);
        let source = replay(&running.uri, recording.main, &channels);
        running.join().unwrap_err();
        assert!(tap.take(Side::From, Wire::Channel(1)) == channels[1], "{end}");
        drop((source, destination.join().unwrap()));
    }
}

#[test]
fn the_return_path_is_seen_on_both_sides() {
    let source_ram = guest();
    let (uri, destination) = receive(|setup| setup);
    let tap = Arc::new(Recorder::default());
    let running = relay(&uri, |setup| setup.tap(tap.clone()));
    let source = send(&source_ram, &running.uri, |setup| setup).unwrap();
    let all = PageSet::all(&source_ram);
    let sent = std::thread::spawn(move || source.finish(&all, None));
    destination.join().unwrap().unwrap().confirm().unwrap();
    sent.join().unwrap().unwrap();
    running.join().unwrap();
    for side in [Side::From, Side::To] {
        assert_eq!(tap.take(side, Wire::ReturnPath), [0, 1, 0, 4, 0, 0, 0, 0], "{side}");
    }
    assert!(tap.take(Side::From, Wire::Main) == tap.take(Side::To, Wire::Main));
}
