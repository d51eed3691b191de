//! What happens when something goes wrong: one clear error on each side, and nothing left behind.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::io::{ErrorKind as IoErrorKind, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use common::{any_port, cause, chain, guest, is_alone, provide, ram, receive, send, threads};
use multifd::core::wire::{InitialPacket, Uuid};
use multifd::core::{Compression, ErrorKind, PeerError};
use multifd::{Destination, Error, PageSet, Source, Unfinished, Uri};

/// Both sides' errors of a migration that fails.
fn both_errors(
    at_source: impl FnOnce(multifd::SourceBuilder<'_>) -> multifd::SourceBuilder<'_>,
    at_destination: impl FnOnce(multifd::DestinationBuilder<'_>) -> multifd::DestinationBuilder<'_>,
) -> (Error, Error) {
    let source_ram = guest();
    let (uri, destination) =
        receive(|setup| at_destination(setup).channel_timeout(Duration::from_secs(2)));
    let sent = send(&source_ram, &uri, at_source)
        .map_err(Unfinished::from)
        .and_then(|source| source.finish(&PageSet::all(&source_ram), None));
    let sent = cause(sent.expect_err("the source fails"));
    (sent, destination.join().unwrap().expect_err("so does this"))
}

fn peer_error(error: &Error) -> &PeerError {
    match error {
        Error::Channel(error) => match error.kind() {
            ErrorKind::Peer(error) => error,
            other => panic!("not the peer's fault: {other}"),
        },
        other => panic!("not of a channel: {other}"),
    }
}

#[test]
fn another_codec_on_the_other_side_is_said_by_name() {
    let (at_source, at_destination) =
        both_errors(|setup| setup, |setup| setup.compression(Compression::Zstd));
    assert_eq!(
        *peer_error(&at_destination),
        PeerError::Method { expected: Compression::Zstd, found: Compression::None }
    );
    assert!(at_destination.to_string().contains("same compression"), "{at_destination}");
    assert!(matches!(at_source, Error::DestinationFailed(1)), "{at_source}");
}

#[test]
fn fewer_channels_than_agreed_are_counted() {
    let (at_source, at_destination) =
        both_errors(|setup| setup.channels(2), |setup| setup.channels(4));
    let Error::MissingChannels { connected: 2, channels: 4, .. } = at_destination else {
        panic!("{at_destination}");
    };
    assert!(matches!(at_source, Error::DestinationFailed(1)), "{at_source}");
}

#[test]
fn more_channels_than_agreed_are_refused() {
    let (_, at_destination) = both_errors(|setup| setup.channels(3), |setup| setup.channels(2));
    assert_eq!(*peer_error(&at_destination), PeerError::ChannelId { id: 2, channels: 2 });
}

#[test]
fn another_vm_is_refused_by_its_uuid() {
    let expected = Uuid([1; 16]);
    let (_, at_destination) = both_errors(|setup| setup, |setup| setup.uuid(Some(expected)));
    assert_eq!(*peer_error(&at_destination), PeerError::Uuid { expected, found: Uuid::default() });
}

#[test]
fn a_second_channel_with_one_number_is_refused() {
    let (uri, destination) = receive(|setup| setup);
    let Uri::Tcp { host, port } = &uri else { panic!("{uri}") };
    let initial = InitialPacket::new(Uuid::default(), 1).to_bytes();
    let connections: Vec<_> = (0..2)
        .map(|_| {
            let mut connection = TcpStream::connect((&host[..], *port)).unwrap();
            connection.write_all(&initial).unwrap();
            connection
        })
        .collect();
    // The main channel never comes: the error does not wait for it.
    let error = destination.join().unwrap().unwrap_err();
    assert_eq!(*peer_error(&error), PeerError::DuplicateChannel { id: 1 });
    drop(connections);
}

#[test]
fn a_connection_that_is_no_channel_is_an_error_and_a_silent_one_is_not() {
    let (uri, destination) = receive(|setup| setup);
    let Uri::Tcp { host, port } = &uri else { panic!("{uri}") };
    drop(TcpStream::connect((&host[..], *port)).unwrap());
    let mut stray = TcpStream::connect((&host[..], *port)).unwrap();
    stray.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let error = destination.join().unwrap().unwrap_err();
    assert_eq!(*peer_error(&error), PeerError::NotAMigration { first: *b"GET " });
}

#[test]
fn a_destination_without_room_says_so_and_the_source_is_told() {
    let registry = common::registry();
    let destination = Destination::builder(&registry).listen(&any_port()).unwrap();
    let uri = destination.uri().clone();
    let source_ram = guest();
    let sent = std::thread::spawn(move || {
        let source = send(&source_ram, &uri, |setup| setup)?;
        source.finish(&PageSet::all(&source_ram), None)
    });
    let refused = destination.receive(|_| Err(Error::caller("no memory left")));
    assert!(chain(&refused.unwrap_err()).ends_with(": no memory left"));
    assert!(matches!(sent.join().unwrap(), Err(Unfinished::Failed(Error::DestinationFailed(1)))));
}

#[test]
fn a_block_of_another_size_is_refused_by_name() {
    let registry = common::registry();
    let destination = Destination::builder(&registry).listen(&any_port()).unwrap();
    let uri = destination.uri().clone();
    let source_ram = ram(&[("pc.ram", 1 << 20)]);
    let sent = std::thread::spawn(move || {
        let source = send(&source_ram, &uri, |setup| setup)?;
        source.finish(&PageSet::all(&source_ram), None)
    });
    let refused = destination.receive(|_| Ok(ram(&[("pc.ram", 2 << 20)]))).unwrap_err();
    assert!(refused.to_string().contains("'pc.ram' has 1048576 bytes"), "{refused}");
    sent.join().unwrap().unwrap_err();
}

#[test]
fn a_source_that_goes_away_is_no_migration() {
    let source_ram = guest();
    for rounds in 0..2 {
        let (uri, destination) = receive(|setup| setup);
        let mut source = send(&source_ram, &uri, |setup| setup).unwrap();
        for _ in 0..rounds {
            source.round(&PageSet::all(&source_ram)).unwrap();
        }
        drop(source);
        destination.join().unwrap().expect_err("what arrived is not whole");
    }
}

#[test]
fn a_destination_that_closes_its_connections_without_a_word_is_said_to_have() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let uri = format!("tcp:{}", listener.local_addr().unwrap()).parse().unwrap();
    let source_ram = guest();
    let source = send(&source_ram, &uri, |setup| setup.channels(2)).unwrap();
    let [main, channels @ ..] = [(); 3].map(|()| listener.accept().unwrap().0);
    drop(channels);
    // Its main channel stays open, and silent.
    let error = source.finish(&PageSet::all(&source_ram), None).unwrap_err();
    let error = cause(error);
    assert!(matches!(error, Error::DestinationClosed(_)), "{error}");
    assert!(chain(&error).contains(": channel "), "{error:?}");
    drop(main);
}

#[test]
fn a_destination_that_says_why_only_after_it_has_closed_its_channels_is_heard() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let uri = format!("tcp:{}", listener.local_addr().unwrap()).parse().unwrap();
    let source_ram = guest();
    let source = send(&source_ram, &uri, |setup| setup.channels(2)).unwrap();
    let [mut main, channels @ ..] = [(); 3].map(|()| listener.accept().unwrap().0);
    let failing = std::thread::spawn(move || {
        drop(channels);
        std::thread::sleep(Duration::from_millis(150));
        main.write_all(&[0, 1, 0, 4, 0, 0, 0, 1]).unwrap();
        main
    });
    // The broken pipe is noticed at once.
    let error = source.finish(&PageSet::all(&source_ram), None).unwrap_err();
    assert!(matches!(error, Unfinished::Failed(Error::DestinationFailed(1))), "{error:?}");
    failing.join().unwrap();
}

#[test]
fn nobody_listening_is_said_with_the_address() {
    let registry = common::registry();
    let uri = "tcp:127.0.0.1:1".parse().unwrap();
    let error = Source::builder(&registry, guest()).connect(&uri).unwrap_err();
    assert!(error.to_string().starts_with("cannot connect to tcp:127.0.0.1:1"), "{error}");
}

#[test]
fn an_address_in_use_is_said_with_what_to_do() {
    let registry = common::registry();
    let first = Destination::builder(&registry).listen(&any_port()).unwrap();
    let error = Destination::builder(&registry).listen(first.uri()).unwrap_err();
    assert!(error.to_string().contains("pick another"), "{error}");
}

#[test]
fn a_waiting_destination_is_cancelled_at_once() {
    let registry = common::registry();
    let destination = Destination::builder(&registry).listen(&any_port()).unwrap();
    let token = destination.cancel_token();
    let Uri::Tcp { host, port } = destination.uri().clone() else { panic!() };
    let waiting = std::thread::spawn(move || destination.receive(provide));
    // Not even a connection that has not said what it is holds it up.
    let _silent = TcpStream::connect((&host[..], port)).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    let began = Instant::now();
    token.cancel();
    assert!(matches!(waiting.join().unwrap(), Err(Error::Cancelled)));
    assert!(began.elapsed() < Duration::from_secs(2));
}

#[test]
fn a_dropped_destination_frees_its_address() {
    let registry = common::registry();
    let destination = Destination::builder(&registry).listen(&any_port()).unwrap();
    let uri = destination.uri().clone();
    drop(destination);
    Destination::builder(&registry).listen(&uri).unwrap();
}

#[test]
fn either_side_cancels_in_the_middle_and_both_end() {
    for at_source in [true, false] {
        let source_ram = guest();
        let registry = common::registry();
        let destination = Destination::builder(&registry).listen(&any_port()).unwrap();
        let uri = destination.uri().clone();
        let destination_token = destination.cancel_token();
        let received = std::thread::spawn(move || destination.receive(provide));
        let mut source = send(&source_ram, &uri, |setup| setup).unwrap();
        source.round(&PageSet::all(&source_ram)).unwrap();
        let token = if at_source { source.cancel_token() } else { destination_token };
        let canceller = std::thread::spawn(move || token.cancel());
        let sent = loop {
            if let Err(error) = source.round(&PageSet::all(&source_ram)) {
                break error;
            }
        };
        canceller.join().unwrap();
        let received = received.join().unwrap().unwrap_err();
        let cancelled = if at_source { &sent } else { &received };
        assert!(matches!(cancelled, Error::Cancelled), "{sent} / {received}");
    }
}

#[test]
fn a_source_that_gave_up_while_its_vm_was_stored_is_not_confirmed() {
    let source_ram = guest();
    let (uri, destination) = receive(|setup| setup);
    let source = send(&source_ram, &uri, |setup| setup).unwrap();
    let (token, all) = (source.cancel_token(), PageSet::all(&source_ram));
    let sent = std::thread::spawn(move || source.finish(&all, None));
    let arrived = destination.join().unwrap().unwrap();
    token.cancel();
    assert!(matches!(sent.join().unwrap(), Err(Unfinished::Unclear(Error::Cancelled))));
    // Its guest goes on there, so it must not go on here.
    let error = arrived.confirm().unwrap_err();
    assert!(matches!(error, Error::SourceGone), "{error}");
}

#[test]
fn what_connects_when_all_channels_are_there_does_not_disturb_them() {
    let source_ram = guest();
    let registry = common::registry();
    let destination = Destination::builder(&registry).listen(&any_port()).unwrap();
    let (uri, progress) = (destination.uri().clone(), destination.progress());
    let destination = std::thread::spawn(move || destination.receive(provide));
    let mut source = send(&source_ram, &uri, |setup| setup).unwrap();
    source.round(&PageSet::all(&source_ram)).unwrap();
    // At its second sync it has passed the first, for which it waits for all channels.
    while progress.snapshot().syncs < 2 {
        std::thread::sleep(Duration::from_millis(1));
    }
    let Uri::Tcp { host, port } = &uri else { panic!("{uri}") };
    let strays: Vec<_> = (0..3)
        .filter_map(|_| {
            let mut stray = TcpStream::connect((&host[..], *port)).ok()?;
            _ = stray.write_all(b"GET / HTTP/1.1\r\n\r\n");
            Some(stray)
        })
        .collect();
    source.round(&PageSet::all(&source_ram)).unwrap();
    let all = PageSet::all(&source_ram);
    let sent = std::thread::spawn(move || source.finish(&all, None));
    destination.join().unwrap().unwrap().confirm().unwrap();
    sent.join().unwrap().unwrap();
    drop(strays);
}

#[test]
fn a_connection_has_a_time_in_total_to_say_what_it_is_however_many_bytes_it_sends() {
    let (uri, destination) = receive(|setup| setup.channel_timeout(Duration::from_millis(600)));
    let Uri::Tcp { host, port } = &uri else { panic!("{uri}") };
    let mut silent = TcpStream::connect((&host[..], *port)).unwrap();
    // Three bytes say nothing yet; each comes in time for a limit on a single read.
    let trickling = std::thread::spawn(move || {
        for _ in 0..3 {
            _ = silent.write_all(&[0]);
            std::thread::sleep(Duration::from_millis(400));
        }
        silent
    });
    let source_ram = guest();
    let source = send(&source_ram, &uri, |setup| setup).unwrap();
    let all = PageSet::all(&source_ram);
    let sent = std::thread::spawn(move || source.finish(&all, None));
    // It may be a channel too many, and is waited for: until it has had its time.
    let arrived = destination.join().unwrap().unwrap();
    arrived.confirm().unwrap();
    sent.join().unwrap().unwrap();
    let mut silent = trickling.join().unwrap();
    silent.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let end = std::io::Read::read(&mut silent, &mut [0]);
    assert!(
        matches!(&end, Ok(0)) || end.is_err_and(|error| error.kind() != IoErrorKind::WouldBlock)
    );
}

#[test]
fn many_connections_that_say_nothing_take_nothing() {
    let (uri, destination) = receive(|setup| setup);
    let Uri::Tcp { host, port } = &uri else { panic!("{uri}") };
    let mappings = || std::fs::read_to_string("/proc/self/maps").unwrap().lines().count();
    let before = mappings();
    for _ in 0..30 {
        (0..100).for_each(|_| drop(TcpStream::connect((&host[..], *port)).unwrap()));
        // More at once than the backlog holds would wait a second for its next try.
        std::thread::sleep(Duration::from_millis(20));
    }
    // A thread that is never joined keeps two mappings.
    assert!(mappings() < before + 1000, "{before} mappings became {}", mappings());
    let source_ram = guest();
    let source = send(&source_ram, &uri, |setup| setup).unwrap();
    let all = PageSet::all(&source_ram);
    let sent = std::thread::spawn(move || source.finish(&all, None));
    destination.join().unwrap().unwrap().confirm().unwrap();
    sent.join().unwrap().unwrap();
}

#[test]
fn a_source_that_pings_and_never_listens_does_not_hold_a_destination() {
    let (uri, destination) = receive(|setup| setup);
    let Uri::Tcp { host, port } = &uri else { panic!("{uri}") };
    let mut main = TcpStream::connect((&host[..], *port)).unwrap();
    main.write_all(b"QEVM\0\0\0\x03\x07\0\0\0\x02pc\x08\0\x01\0\0").unwrap();
    let pings = b"\x08\0\x02\0\x04\0\0\0\x01".repeat(1 << 16);
    let pinging = std::thread::spawn(move || while main.write_all(&pings).is_ok() {});
    let began = Instant::now();
    let error = destination.join().unwrap().unwrap_err();
    assert!(error.to_string().starts_with("answering the source failed"), "{error}");
    assert!(began.elapsed() < Duration::from_secs(60));
    pinging.join().unwrap();
}

#[test]
fn a_confirmation_of_what_was_not_sent_is_always_refused() {
    use std::io::Read;

    let source_ram = guest();
    // Whichever thread hears it first.
    for _ in 0..100 {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let uri = format!("tcp:{}", listener.local_addr().unwrap()).parse().unwrap();
        let (said, heard) = std::sync::mpsc::channel();
        // Not joined: how many channels still connect depends on when the answer is heard.
        std::thread::spawn(move || {
            let (mut main, _) = listener.accept().unwrap();
            main.write_all(&[0, 1, 0, 4, 0, 0, 0, 0]).unwrap();
            said.send(()).unwrap();
            let channels: Vec<_> = (0..2).map(|_| listener.accept().unwrap().0).collect();
            for mut connection in channels.into_iter().chain([main]) {
                _ = connection.read_to_end(&mut Vec::new());
            }
        });
        let sent = send(&source_ram, &uri, |setup| setup).map_err(Unfinished::from);
        let sent = sent.and_then(|source| {
            heard.recv().unwrap();
            source.finish(&PageSet::all(&source_ram), None)
        });
        assert!(matches!(sent, Err(Unfinished::Failed(Error::EarlyConfirmation))), "{sent:?}");
    }
}

#[test]
fn a_token_does_not_keep_a_migration_alive() {
    let source_ram = guest();
    let registry = common::registry();
    let destination = Destination::builder(&registry).listen(&any_port()).unwrap();
    let (uri, token) = (destination.uri().clone(), destination.cancel_token());
    let received = std::thread::spawn(move || destination.receive(provide));
    let source = send(&source_ram, &uri, |setup| setup).unwrap();
    let all = PageSet::all(&source_ram);
    let sent = std::thread::spawn(move || source.finish(&all, None));
    let arrived = received.join().unwrap().unwrap();
    let ram = std::sync::Arc::downgrade(&arrived.ram);
    arrived.confirm().unwrap();
    sent.join().unwrap().unwrap();
    assert!(ram.upgrade().is_none(), "the RAM is still mapped");
    token.cancel();
}

#[test]
fn no_thread_outlives_a_migration() {
    // The threads of other tests are in the same process.
    if !is_alone("no_thread_outlives_a_migration") {
        return;
    }
    let before = threads();
    both_errors(|setup| setup, |setup| setup.compression(Compression::Zstd));
    let source_ram = guest();
    let (uri, destination) = receive(|setup| setup);
    let source = send(&source_ram, &uri, |setup| setup).unwrap();
    let all = PageSet::all(&source_ram);
    let sent = std::thread::spawn(move || source.finish(&all, None));
    destination.join().unwrap().unwrap().confirm().unwrap();
    sent.join().unwrap().unwrap();
    assert_eq!(threads(), before);
}
