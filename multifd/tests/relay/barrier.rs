//! No page overtakes one of the round before.

use std::io::Read;
use std::net::TcpStream;
use std::time::Duration;

use multifd::PageSet;
use multifd::core::wire::RamPacket;
use multifd::core::{Compression, PageSize};

use crate::common::{ram, send};
use crate::support::{listener, relay};

const PAGES: u64 = 1024;
const ROUNDS: u8 = 8;

/// Reads a connection to its end, slowly where `pause` says so.
fn read_all(mut connection: TcpStream, pause: Duration) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        match connection.read(&mut buffer).unwrap() {
            0 => return bytes,
            count => bytes.extend_from_slice(&buffer[..count]),
        }
        std::thread::sleep(pause);
    }
}

/// The pages of a channel without compression, as pairs of SYNCs before it and first byte.
fn pages(stream: &[u8]) -> Vec<(usize, u8)> {
    let mut rest = &stream[64..];
    let (mut syncs, mut pages) = (0, Vec::new());
    while !rest.is_empty() {
        let (header, payload) = rest.split_at(1344);
        let packet = RamPacket::parse(header, PageSize::Kib4).unwrap();
        let (payload, after) = payload.split_at(packet.payload_bytes);
        pages.extend(payload.chunks(4096).map(|page| (syncs, page[0])));
        syncs += usize::from(packet.is_sync());
        rest = after;
    }
    pages
}

#[test]
fn every_page_of_a_round_is_before_the_sync_of_its_round_however_slow_a_channel_is() {
    for (from, compression) in [(1, Compression::None), (4, Compression::Zstd)] {
        let (listener, uri) = listener();
        let running = relay(&uri, |setup| {
            setup.from_channels(from).from_compression(compression).to_channels(3)
        });
        let destination = std::thread::spawn(move || {
            let streams: Vec<_> = (0..4)
                .map(|number| {
                    let (connection, _) = listener.accept().unwrap();
                    // The second to connect is channel 0.
                    let pause = if number == 1 { 4 } else { 0 };
                    std::thread::spawn(move || read_all(connection, Duration::from_millis(pause)))
                })
                .collect();
            streams.into_iter().map(|stream| stream.join().unwrap()).collect::<Vec<_>>()
        });
        let source_ram = ram(&[("pc.ram", PAGES as usize * 4096)]);
        let mut source = send(&source_ram, &running.uri, |setup| {
            setup.channels(from).compression(compression).return_path(false)
        })
        .unwrap();
        let all = PageSet::all(&source_ram);
        for round in 1..ROUNDS {
            for page in 0..PAGES {
                source_ram.blocks()[0].write(page * 4096, &[round; 4096]);
            }
            source.round(&all).unwrap();
        }
        source.finish(&PageSet::none(&source_ram), None).unwrap();
        let streams = destination.join().unwrap();
        running.join().unwrap();
        let pages: Vec<_> = streams[1..].iter().flat_map(|stream| pages(stream)).collect();
        assert_eq!(pages.len(), PAGES as usize * usize::from(ROUNDS - 1));
        // The first SYNC is that of the set-up.
        let late = pages.iter().find(|(syncs, content)| *syncs != usize::from(*content));
        assert_eq!(late, None, "a page of another round");
        let used = streams[1..].iter().filter(|stream| stream.len() > 1 << 20).count();
        assert!(used > 1, "the round is spread over channels");
    }
}
