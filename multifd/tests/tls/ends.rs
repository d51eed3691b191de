//! How connections end.

use std::io::Read;
use std::thread::JoinHandle;
use std::time::Duration;

use multifd::{Arrived, Error, PageSet, Uri};
use multifd_conformance::{Recording, recordings};

use crate::authority::{Authority, Folder};
use crate::common::{announcement_with_return_path, chain, guest, ram, receive, send};
use crate::peer::{self, Client, End};

/// What a QEMU without a return path has sent.
fn recording() -> &'static Recording {
    recordings().iter().find(|recording| recording.name == "none").unwrap()
}

/// A destination of that.
fn destination(folder: &Folder) -> (Uri, JoinHandle<Result<Arrived, Error>>) {
    let recording = recording();
    receive(|setup| {
        let setup = setup.compression(recording.compression).tls(folder.server());
        setup.channels(recording.channels.len() as u8).channel_timeout(Duration::from_secs(60))
    })
}

/// Plays the source: each stream, without its last `cut` bytes, and how each ends.
fn play(uri: &Uri, folder: &Folder, cut: [usize; 3], ends: [End; 3]) -> Vec<JoinHandle<()>> {
    let streams = [recording().main, recording().channels[0], recording().channels[1]];
    // The main channel first.
    let connections: Vec<Client> = streams.iter().map(|_| peer::connect(uri, folder)).collect();
    let plays = connections.into_iter().zip(streams).zip(cut.into_iter().zip(ends));
    plays
        .map(|((mut connection, stream), (cut, end))| {
            std::thread::spawn(move || {
                // A destination that has failed takes no more.
                _ = peer::finish(&mut connection, &stream[..stream.len() - cut], end);
                _ = connection.sock.read_to_end(&mut Vec::new());
            })
        })
        .collect()
}

#[test]
fn a_connection_may_end_without_close_notify_at_the_end_of_a_packet() {
    let folder = Authority::new().folder();
    for end in [End::CloseNotify, End::Silent] {
        let (uri, received) = destination(&folder);
        let played = play(&uri, &folder, [0; 3], [end; 3]);
        let arrived = received.join().unwrap().unwrap();
        assert_eq!(arrived.missing_pages(), 0, "{end:?}");
        arrived.confirm().unwrap();
        played.into_iter().for_each(|thread| thread.join().unwrap());
    }
}

#[test]
fn a_channel_that_ends_within_a_packet_has_failed_whatever_tls_says() {
    let folder = Authority::new().folder();
    for end in [End::CloseNotify, End::Silent] {
        let (uri, received) = destination(&folder);
        let ends = [End::CloseNotify, end, End::CloseNotify];
        let played = play(&uri, &folder, [0, 1, 0], ends);
        let text = chain(&received.join().unwrap().unwrap_err());
        assert!(text.contains("channel 0") && text.contains("ended"), "{end:?}: {text}");
        played.into_iter().for_each(|thread| thread.join().unwrap());
    }
}

#[test]
fn a_connection_that_ends_within_a_record_has_failed_wherever_a_packet_ends() {
    let folder = Authority::new().folder();
    for which in 0..3 {
        let (uri, received) = destination(&folder);
        let mut ends = [End::CloseNotify; 3];
        ends[which] = End::WithinRecord;
        let played = play(&uri, &folder, [0; 3], ends);
        let text = chain(&received.join().unwrap().unwrap_err());
        // A kernel that is short of room takes the part of the record out of sight.
        let is_kernels = std::env::var_os("MULTIFD_KERNEL_TLS").is_some();
        assert!(is_kernels || text.contains("ended within a TLS record"), "{which}: {text}");
        played.into_iter().for_each(|thread| thread.join().unwrap());
    }
}

#[test]
fn a_source_says_close_notify_on_every_connection() {
    let folder = Authority::new().folder();
    for versions in [peer::TLS12, peer::TLS13] {
        let (listener, uri) = peer::listener();
        let config = peer::server(&folder, versions);
        let client = folder.client();
        let sent = std::thread::spawn(move || {
            let ram = guest();
            let source = send(&ram, &uri, |setup| setup.return_path(false).tls(client)).unwrap();
            source.finish(&PageSet::all(&ram), None)
        });
        let read: Vec<_> = (0..3)
            .map(|_| {
                let connection = peer::accept(&listener, &config);
                std::thread::spawn(|| peer::read_to_end(connection))
            })
            .collect();
        // Without close_notify this is an error.
        let streams: Vec<_> =
            read.into_iter().map(|thread| thread.join().unwrap().unwrap()).collect();
        assert!(streams[0].starts_with(b"QEVM"));
        sent.join().unwrap().unwrap();
    }
}

#[test]
fn a_destination_says_close_notify_behind_its_last_word() {
    let folder = Authority::new().folder();
    let (uri, received) = receive(|setup| {
        setup.channels(1).channel_timeout(Duration::from_secs(2)).tls(folder.server())
    });
    let announced = announcement_with_return_path(&ram(&[("pc.ram", 4096)]));
    let mut connection = peer::connect(&uri, &folder);
    // The main channel ends before the migration is complete: the destination refuses.
    peer::finish(&mut connection, &announced, End::CloseNotify).unwrap();
    let said = peer::read_to_end(connection).unwrap();
    assert_eq!(said, [0, 1, 0, 4, 0, 0, 0, 1], "SHUT(1), then close_notify");
    received.join().unwrap().unwrap_err();
}
