//! Connections of other attempts, all of which have the token.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use multifd::core::wire::InitialPacket;
use multifd::{Destination, PageSet, Progress, Unfinished, Uri};

use crate::common::{
    announcement_with_return_path, any_port, assert_equal, cause, chain, guest, provide, receive,
    registry, send,
};
use crate::hello::Hello;
use crate::{SECRET, arrives, peer, token};

const OTHER: [u8; 16] = [9; 16];

/// A connection of the migration [`OTHER`], which has proven that.
fn come(uri: &Uri, channel: Option<u8>) -> TcpStream {
    let mut stream = peer::plain(uri);
    Hello::new(SECRET, OTHER, channel).say(&mut stream).unwrap();
    stream
}

/// As [`come`], of a channel that sends its initial packet and more.
fn channel(uri: &Uri, number: u8) -> TcpStream {
    let mut stream = come(uri, Some(number));
    let initial = InitialPacket::new(Default::default(), number).to_bytes();
    stream.write_all(&[&initial[..], &[0; 100]].concat()).unwrap();
    stream
}

fn reads_to_the_end(stream: &mut TcpStream) -> Vec<u8> {
    let mut said = Vec::new();
    // Or a reset.
    _ = stream.read_to_end(&mut said);
    said
}

/// Waits until as many connections have been refused.
fn refused(progress: &Progress, connections: u64) {
    let began = Instant::now();
    while progress.snapshot().refused_connections < connections {
        assert!(began.elapsed() < Duration::from_secs(60), "{:?}", progress.snapshot());
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_second_source_hears_that_it_is_one_and_its_channels_get_nowhere() {
    let ram = guest();
    let registry = registry();
    let destination = Destination::builder(&registry).token(token());
    let destination = destination.listen(&any_port()).unwrap();
    let (uri, progress) = (destination.uri().clone(), destination.progress());
    let received = std::thread::spawn(move || destination.receive(provide));
    let mut source = send(&ram, &uri, |setup| setup.token(token())).unwrap();
    let mut second = come(&uri, None);
    second.write_all(&announcement_with_return_path(&guest())).unwrap();
    let mut channels = [channel(&uri, 0), channel(&uri, 1)];
    let said = reads_to_the_end(&mut second);
    assert_eq!(said, [0, 1, 0, 4, 0, 0, 0, 1], "SHUT(1)");
    for channel in &mut channels {
        assert!(reads_to_the_end(channel).is_empty());
    }
    drop(second);
    refused(&progress, 3);
    source.round(&PageSet::all(&ram)).unwrap();
    let last = PageSet::all(&ram);
    let sent = std::thread::spawn(move || source.finish(&last, None));
    let arrived = received.join().unwrap().unwrap();
    assert_equal(&ram, &arrived.ram);
    assert_eq!(arrived.refused().connections, 3);
    assert_eq!(arrived.refused().channels, 0);
    let last = arrived.refused().last.clone().unwrap();
    assert!(last.contains("another migration is under way here"), "{last}");
    arrived.confirm().unwrap();
    sent.join().unwrap().unwrap();
}

#[test]
fn two_sources_that_come_while_neither_is_there_never_share_a_destination() {
    // The channels of both have the same numbers and the same VM: only their attempt tells them apart.
    for _ in 0..20 {
        let ram = guest();
        let (uri, received) = receive(|setup| setup.token(token()));
        let sources: Vec<_> = (0..2)
            .map(|_| {
                let (ram, uri) = (ram.clone(), uri.clone());
                std::thread::spawn(move || {
                    let source = send(&ram, &uri, |setup| setup.token(token()))?;
                    source.finish(&PageSet::all(&ram), None).map(drop)
                })
            })
            .collect();
        let arrived = received.join().unwrap().unwrap_or_else(|error| panic!("{}", chain(&error)));
        assert_equal(&ram, &arrived.ram);
        arrived.confirm().unwrap();
        let sent: Vec<Result<(), Unfinished>> =
            sources.into_iter().map(|source| source.join().unwrap()).collect();
        let failed: Vec<_> = sent.into_iter().filter_map(Result::err).collect();
        assert_eq!(failed.len(), 1, "{failed:?}");
        for unfinished in failed {
            assert!(matches!(unfinished, Unfinished::Failed(_)), "{}", chain(&cause(unfinished)));
        }
    }
}

#[test]
fn channels_of_an_attempt_that_was_given_up_leave_their_places_to_the_next() {
    let (uri, received) = receive(|setup| setup.token(token()));
    // Its main channel has gone before it has said that it is one.
    drop(come(&uri, None));
    let mut channels = [channel(&uri, 0), channel(&uri, 1)];
    let refused = arrives(&uri, received, |setup| setup.token(token()));
    for channel in &mut channels {
        assert!(reads_to_the_end(channel).is_empty());
    }
    assert_eq!(refused.channels, 0, "{refused:?}");
}

#[test]
fn what_a_connection_has_proven_to_be_it_must_be() {
    let announced = announcement_with_return_path(&guest());
    let initial = InitialPacket::new(Default::default(), 1).to_bytes();
    for (role, says, words) in [
        (
            None,
            &initial[..],
            "it has proven that it is the main channel, and says that it is channel 1",
        ),
        (
            Some(1),
            &announced,
            "it has proven that it is channel 1, and says that it is the main channel",
        ),
        (Some(0), &initial, "it has proven that it is channel 0, and says that it is channel 1"),
    ] {
        let limit = Duration::from_secs(5);
        let (uri, received) = receive(|setup| setup.channel_timeout(limit).token(token()));
        // A channel is looked at when the main channel of its own migration is there. Its last byte
        // comes when the stranger has been refused: only then is more waited for.
        let mut main = come(&uri, None);
        let (last, before) = announced.split_last().unwrap();
        main.write_all(before).unwrap();
        let mut stranger = come(&uri, role);
        stranger.write_all(says).unwrap();
        assert!(reads_to_the_end(&mut stranger).is_empty(), "{words}");
        main.write_all(&[*last]).unwrap();
        let error = chain(&received.join().unwrap().unwrap_err());
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn a_main_channel_that_leaves_behind_its_hello_is_no_migration() {
    let (uri, received) = receive(|setup| setup.token(token()));
    for _ in 0..3 {
        come(&uri, None).shutdown(Shutdown::Write).unwrap();
    }
    arrives(&uri, received, |setup| setup.token(token()));
}
