//! The same bytes have the same verdict, whichever thread is first: what is refused once is refused
//! always, and for the same reason.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::collections::BTreeSet;
use std::io::{self, Cursor, Read};
use std::time::Duration;

use common::{again_with_delays, provide, registry};
use multifd::{Destination, Error};
use multifd_conformance::{Recording, recordings};

/// A stream that comes in pieces, with delays before some of them.
struct Delayed {
    stream: Cursor<Vec<u8>>,
    state: u64,
}

impl Read for Delayed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.state = self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let random = self.state >> 33;
        match random % 16 {
            0 => std::thread::sleep(Duration::from_micros(random % 500)),
            1..=3 => std::thread::yield_now(),
            _ => {}
        }
        // Headers come in pieces, and payloads in large ones.
        let most = if random % 8 == 0 { 100 } else { 1 << 20 };
        let room = buffer.len().min(most);
        self.stream.read(&mut buffer[..room])
    }
}

/// A recording whose bytes are changed.
#[derive(Clone)]
struct Streams {
    recording: &'static Recording,
    main: Vec<u8>,
    channels: Vec<Vec<u8>>,
}

const SYNC: usize = 1344;

impl Streams {
    fn of(name: &str) -> Self {
        let recording = recordings().iter().find(|recording| recording.name == name).unwrap();
        let channels = recording.channels.iter().map(|channel| channel.to_vec()).collect();
        Self { recording, main: recording.main.to_vec(), channels }
    }

    /// The verdict, where the threads are delayed as `seed` says.
    fn decode(&self, seed: u64) -> Result<(), Error> {
        let delayed = |(number, bytes): (u64, &Vec<u8>)| Delayed {
            stream: Cursor::new(bytes.clone()),
            state: seed * 1000 + number,
        };
        let channels = (1..).zip(&self.channels).map(delayed).collect();
        Destination::builder(&registry())
            .compression(self.recording.compression)
            .channel_timeout(Duration::from_secs(60))
            .decode(delayed((0, &self.main)), channels, provide)
            .map(drop)
    }

    fn last_sync(&self, channel: usize) -> Vec<u8> {
        self.channels[channel][self.channels[channel].len() - SYNC..].to_vec()
    }
}

/// Decodes `streams` 100 times, and gives the only verdict.
fn verdict(streams: &Streams) -> String {
    let verdicts: BTreeSet<_> = (0..100)
        .map(|seed| match streams.decode(seed) {
            Ok(()) => "whole".to_owned(),
            Err(error) => common::chain(&error),
        })
        .collect();
    assert_eq!(verdicts.len(), 1, "{verdicts:#?}");
    verdicts.into_iter().next().unwrap()
}

#[test]
fn a_whole_recording_is_whole() {
    for name in ["none", "qemu-7.2-zlib", "zstd"] {
        assert_eq!(verdict(&Streams::of(name)), "whole");
    }
}

#[test]
fn pages_behind_the_last_sync_are_refused() {
    let mut streams = Streams::of("none");
    // The packet behind the first SYNC, with its pages, under a number of its own and under the old.
    let packet = &streams.channels[1][64 + SYNC..];
    let pages = u32::from_be_bytes(packet[16..20].try_into().unwrap()) as usize;
    let mut late = packet[..SYNC + pages * 4096].to_vec();
    for number in [None, Some(1000_u64)] {
        if let Some(number) = number {
            late[24..32].copy_from_slice(&number.to_be_bytes());
        }
        let mut streams = streams.clone();
        streams.channels[1].extend(&late);
        assert!(
            verdict(&streams).starts_with("channel 1 carries pages or a SYNC after the last sync")
        );
    }
    // And where a channel has ended before.
    streams.channels[0].extend(&late);
    assert!(verdict(&streams).starts_with("channel 0 carries pages or a SYNC after the last sync"));
}

#[test]
fn a_sync_too_many_or_too_few_is_refused() {
    for channel in [0, 1] {
        let mut streams = Streams::of("zlib");
        let sync = streams.last_sync(channel);
        streams.channels[channel].extend(&sync);
        let expected = format!("channel {channel} carries pages or a SYNC after the last sync");
        assert!(verdict(&streams).starts_with(&expected));
        let mut streams = Streams::of("zlib");
        let end = streams.channels[channel].len() - SYNC;
        streams.channels[channel].truncate(end);
        assert!(verdict(&streams).starts_with(&format!("channel {channel} ended before")));
    }
}

#[test]
fn a_lost_channel_is_refused_whichever_it_is() {
    for lost in 0..3 {
        let mut streams = Streams::of("zstd");
        streams.channels.remove(lost);
        for (number, channel) in (0..).zip(&mut streams.channels) {
            channel[24] = number;
        }
        let verdict = verdict(&streams);
        assert!(verdict.contains("packets were sent on a channel that is not here"), "{verdict}");
    }
}

#[test]
fn a_packet_that_came_before_is_refused_on_either_channel() {
    for (of, at) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        let mut streams = Streams::of("none");
        // A packet of the first round, again behind itself or on the other channel.
        let packet = &streams.channels[of][64 + SYNC..];
        let pages = u32::from_be_bytes(packet[16..20].try_into().unwrap()) as usize;
        let again = packet[..SYNC + pages * 4096].to_vec();
        let place = if of == at { 64 + SYNC + again.len() } else { 64 + SYNC };
        streams.channels[at].splice(place..place, again);
        let verdict = verdict(&streams);
        assert!(verdict.contains("came twice, behind a later one"), "{of} {at}: {verdict}");
    }
}

#[test]
fn all_of_it_holds_where_threads_are_delayed_between_each_other() {
    again_with_delays("");
}
