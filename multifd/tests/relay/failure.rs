//! Either side going wrong: the relay says what and where, and the other side sees its connections
//! closed.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use multifd::core::wire::{BlockName, DeviceStatePacket};
use multifd::core::{Compression, ErrorKind, PeerError};
use multifd::relay::{RelayBuilder, Relayed};
use multifd::{Error, PageSet, Side, Unfinished};
use multifd_conformance::{Recording, recordings};

use crate::common::{cause, chain, guest, is_alone, receive, send, threads};
use crate::support::{Running, connect, listener, relay, replay};

/// More than any failure here may take.
const PROMPT: Duration = Duration::from_secs(5);

fn recording(name: &str) -> (&'static Recording, Vec<Vec<u8>>) {
    let recording = recordings().iter().find(|recording| recording.name == name).unwrap();
    (recording, recording.channels.iter().map(|channel| channel.to_vec()).collect())
}

/// The error of one side of a relay.
#[track_caller]
fn on(side: Side, relayed: Result<Relayed, Unfinished>) -> Error {
    match cause(relayed.expect_err("the relay fails")) {
        Error::Relay { side: found, error } if found == side => *error,
        other => panic!("not {side}: {other}"),
    }
}

#[track_caller]
fn peer_error(error: &Error) -> &PeerError {
    match error {
        Error::Channel(error) => match error.kind() {
            ErrorKind::Peer(error) => error,
            other => panic!("not the peer's fault: {other}"),
        },
        other => panic!("not of a channel: {other}"),
    }
}

/// Waits until a connection is closed from the other side, and not for long.
fn wait_for_close(connection: &mut TcpStream) {
    connection.set_read_timeout(Some(PROMPT)).unwrap();
    let mut buffer = vec![0; 64 << 10];
    loop {
        match connection.read(&mut buffer) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return,
            Err(error) => panic!("not closed: {error}"),
        }
    }
}

/// A destination of so many channels that reads everything, until the other side closes.
fn sink(connections: usize) -> (multifd::Uri, JoinHandle<()>) {
    let (listener, uri) = listener();
    let accept = move || {
        let mut readers = Vec::new();
        for _ in 0..connections {
            let (mut connection, _) = listener.accept().unwrap();
            readers.push(std::thread::spawn(move || wait_for_close(&mut connection)));
        }
        readers.into_iter().for_each(|reader| reader.join().unwrap());
    };
    (uri, std::thread::spawn(accept))
}

/// Replays streams through a relay to a sink. Both sides must see their connections closed.
fn replayed(
    main: &[u8],
    channels: &[Vec<u8>],
    setup: impl FnOnce(RelayBuilder<'_>) -> RelayBuilder<'_>,
) -> Result<Relayed, Unfinished> {
    let (uri, destination) = sink(3);
    let running = relay(&uri, |builder| {
        setup(builder.from_channels(channels.len() as u8)).channel_timeout(Duration::from_secs(1))
    });
    let connections = replay(&running.uri, main, channels);
    let relayed = running.join();
    for connection in connections {
        wait_for_close(&mut connection.join().unwrap());
    }
    destination.join().unwrap();
    relayed
}

#[test]
fn a_destination_that_cannot_be_reached_is_said_and_the_source_is_let_go() {
    let running = relay(&"tcp:127.0.0.1:1".parse().unwrap(), |setup| setup);
    let source_ram = guest();
    let sent = send(&source_ram, &running.uri, |setup| setup)
        .map_err(Unfinished::from)
        .and_then(|source| source.finish(&PageSet::all(&source_ram), None));
    sent.unwrap_err();
    let error = on(Side::To, running.join());
    assert!(error.to_string().starts_with("cannot connect to tcp:127.0.0.1:1 "), "{error}");
}

#[test]
fn another_codec_of_the_source_is_said_with_side_channel_and_packet() {
    let (recording, channels) = recording("zlib");
    let relayed =
        replayed(recording.main, &channels, |setup| setup.from_compression(Compression::Zstd));
    let text = chain(relayed.as_ref().unwrap_err().error());
    assert!(text.starts_with("from the source: channel ") && text.contains(", packet "), "{text}");
    let expected = PeerError::Method { expected: Compression::Zstd, found: Compression::Zlib };
    assert_eq!(*peer_error(&on(Side::From, relayed)), expected);
}

#[test]
fn another_codec_of_the_destination_fails_both_and_the_source_is_told_by_the_destination() {
    let source_ram = guest();
    let (uri, destination) = receive(|setup| setup.compression(Compression::Zstd));
    let running = relay(&uri, |setup| setup);
    let sent = send(&source_ram, &running.uri, |setup| setup)
        .map_err(Unfinished::from)
        .and_then(|source| source.finish(&PageSet::all(&source_ram), None));
    destination.join().unwrap().unwrap_err();
    assert!(matches!(sent, Err(Unfinished::Failed(Error::DestinationFailed(1)))), "{sent:?}");
    let error = running.join().unwrap_err();
    assert!(matches!(error, Unfinished::Failed(Error::DestinationRefused(1))), "{error}");
}

#[test]
fn another_number_of_channels_at_the_source_is_said() {
    let (recording, channels) = recording("zlib");
    let relayed = replayed(recording.main, &channels, |setup| {
        setup.from_compression(Compression::Zlib).from_channels(3)
    });
    let error = on(Side::From, relayed);
    assert!(matches!(error, Error::MissingChannels { connected: 2, channels: 3, .. }), "{error}");
    let relayed = replayed_to(3, recording.main, &channels, |setup| {
        setup.from_compression(Compression::Zlib).from_channels(1)
    });
    let error = on(Side::From, relayed);
    assert!(matches!(error, Error::LostPackets { .. }), "{error}");
    assert!(error.to_string().contains("only 1 channels are agreed"), "{error}");
}

/// As [`replayed`], where the destination may not get to see any connection.
fn replayed_to(
    connections: usize,
    main: &[u8],
    channels: &[Vec<u8>],
    setup: impl FnOnce(RelayBuilder<'_>) -> RelayBuilder<'_>,
) -> Result<Relayed, Unfinished> {
    let (uri, _destination) = sink(connections);
    let running = relay(&uri, |builder| setup(builder).channel_timeout(Duration::from_millis(500)));
    let connections = replay(&running.uri, main, channels);
    let relayed = running.join();
    for connection in connections {
        wait_for_close(&mut connection.join().unwrap());
    }
    relayed
}

#[test]
fn another_number_of_channels_at_the_destination_fails_both() {
    for (to, agreed) in [(3, 2), (2, 3)] {
        let source_ram = guest();
        let (uri, destination) =
            receive(|setup| setup.channels(agreed).channel_timeout(Duration::from_millis(500)));
        let running = relay(&uri, |setup| setup.to_channels(to));
        let sent = send(&source_ram, &running.uri, |setup| setup)
            .map_err(Unfinished::from)
            .and_then(|source| source.finish(&PageSet::all(&source_ram), None));
        sent.unwrap_err();
        destination.join().unwrap().unwrap_err();
        running.join().unwrap_err();
    }
}

#[test]
fn a_source_that_dies_in_any_phase_ends_the_destination() {
    let (recording, whole) = recording("none");
    // Before its channels, in the list of blocks, behind the first sync.
    for end in [60, 700, recording.main.len() / 2, recording.main.len() - 1] {
        let error = replayed_to(3, &recording.main[..end], &whole, |setup| setup);
        let error = on(Side::From, error);
        assert!(matches!(error, Error::Main(_)), "{end}: {error}");
    }
    // Without any channel.
    let error = on(Side::From, replayed_to(1, recording.main, &[], |setup| setup));
    let ended = matches!(error, Error::MissingChannels { connected: 0, main_ended: true, .. });
    assert!(ended, "{error}");
    // In a header, in a payload, before the last SYNC, in it.
    let length = whole[1].len();
    for end in [100, 64 + 1344, 64 + 1344 + 1344 + 5000, length - 1344, length - 1] {
        let mut cut = whole.clone();
        cut[1].truncate(end);
        let error = on(Side::From, replayed(recording.main, &cut, |setup| setup));
        let truncated = matches!(&error, Error::Channel(error)
            if matches!(error.kind(), ErrorKind::Peer(PeerError::Truncated)));
        assert!(truncated || matches!(error, Error::EndedEarly(1)), "{end}: {error}");
    }
    // In the initial packet, and behind it: it never was one of its channels.
    for end in [10, 64] {
        let mut cut = whole.clone();
        cut[1].truncate(end);
        let error = on(Side::From, replayed_to(3, recording.main, &cut, |setup| setup));
        assert!(matches!(error, Error::MissingChannels { connected: 1, .. }), "{end}: {error}");
        assert!(error.to_string().contains("1 connection was refused: 127.0.0.1:"), "{error}");
    }
}

#[test]
fn a_source_that_leaves_before_the_confirmation_is_seen_by_the_destination() {
    let source_ram = guest();
    let (uri, destination) = receive(|setup| setup);
    let running = relay(&uri, |setup| setup);
    let source = send(&source_ram, &running.uri, |setup| setup).unwrap();
    let (token, all) = (source.cancel_token(), PageSet::all(&source_ram));
    let sent = std::thread::spawn(move || source.finish(&all, None));
    let arrived = destination.join().unwrap().unwrap();
    token.cancel();
    assert!(matches!(sent.join().unwrap(), Err(Unfinished::Unclear(Error::Cancelled))));
    assert!(matches!(running.join(), Err(Unfinished::Unclear(Error::SourceLeft))));
    // Its guest goes on there, so it must not go on here.
    let error = arrived.confirm().unwrap_err();
    assert!(matches!(error, Error::SourceGone), "{error}");
}

/// A destination that closes everything once a channel has brought `after` bytes.
fn dying(after: usize) -> (multifd::Uri, JoinHandle<()>) {
    let (listener, uri) = listener();
    let die = move || {
        let main = listener.accept().unwrap();
        let mut channel = listener.accept().unwrap().0;
        let mut bytes = vec![0; after];
        _ = channel.read_exact(&mut bytes);
        drop((main, channel));
    };
    (uri, std::thread::spawn(die))
}

#[test]
fn a_destination_that_dies_in_any_phase_ends_the_source() {
    // At once, in the initial packet, at the first barrier, in a header, in a payload.
    for after in [0, 10, 64, 64 + 1344, 64 + 1344 + 100, 64 + 1344 + 300_000] {
        for return_path in [true, false] {
            let (uri, destination) = dying(after);
            let running = relay(&uri, |setup| setup);
            let source_ram = guest();
            let began = Instant::now();
            let sent = send(&source_ram, &running.uri, |setup| setup.return_path(return_path))
                .and_then(|mut source| {
                    // Without a return path only the broken connections tell.
                    while began.elapsed() < PROMPT {
                        source.round(&PageSet::all(&source_ram))?;
                    }
                    Ok(())
                });
            sent.expect_err("the source sees that nobody is there");
            assert!(began.elapsed() < PROMPT, "{after}");
            destination.join().unwrap();
            let error = cause(running.join().unwrap_err());
            let to = matches!(error, Error::Relay { side: Side::To, .. } | Error::DestinationLeft);
            assert!(to, "{after}: {error}");
        }
    }
}

#[test]
fn a_destination_that_says_why_only_after_it_has_closed_its_channels_is_heard_by_the_source() {
    let (listener, uri) = listener();
    let running = relay(&uri, |setup| setup);
    let failing = std::thread::spawn(move || {
        let (mut main, _) = listener.accept().unwrap();
        drop([(); 2].map(|()| listener.accept().unwrap()));
        std::thread::sleep(Duration::from_millis(150));
        main.write_all(&[0, 1, 0, 4, 0, 0, 0, 1]).unwrap();
        wait_for_close(&mut main);
    });
    let source_ram = guest();
    let sent = send(&source_ram, &running.uri, |setup| setup)
        .map_err(Unfinished::from)
        .and_then(|source| source.finish(&PageSet::all(&source_ram), None));
    assert!(matches!(sent, Err(Unfinished::Failed(Error::DestinationFailed(1)))), "{sent:?}");
    let relayed = running.join();
    assert!(
        matches!(relayed, Err(Unfinished::Failed(Error::DestinationRefused(1)))),
        "{relayed:?}"
    );
    failing.join().unwrap();
}

#[test]
fn a_destination_that_closes_before_it_confirms_has_not_confirmed() {
    let source_ram = guest();
    let (uri, destination) = receive(|setup| setup);
    let running = relay(&uri, |setup| setup);
    let source = send(&source_ram, &running.uri, |setup| setup).unwrap();
    let all = PageSet::all(&source_ram);
    let sent = std::thread::spawn(move || source.finish(&all, None));
    // It says that it has failed.
    drop(destination.join().unwrap().unwrap());
    assert!(matches!(sent.join().unwrap(), Err(Unfinished::Failed(Error::DestinationFailed(1)))));
    assert!(matches!(running.join(), Err(Unfinished::Failed(Error::DestinationRefused(1)))));
}

#[test]
fn a_relay_is_cancelled_in_any_phase_and_both_sides_end() {
    // Before anybody is there.
    let running = relay(&"tcp:127.0.0.1:1".parse().unwrap(), |setup| setup);
    running.token.cancel();
    assert!(matches!(running.join(), Err(Unfinished::Failed(Error::Cancelled))));

    for phase in 0..4 {
        let (uri, destination) = sink(if phase == 0 { 1 } else { 3 });
        let running = relay(&uri, |setup| setup);
        let began = Instant::now();
        let cancel = |running: Running, phase: u64| {
            std::thread::sleep(Duration::from_millis(phase * 40));
            running.token.cancel();
            assert!(matches!(cause(running.join().unwrap_err()), Error::Cancelled));
        };
        if phase == 0 {
            // A main channel without any multifd channel.
            let mut main = connect(&running.uri);
            main.write_all(b"QEVM\0\0\0\x03\x07\0\0\0\x02pc").unwrap();
            std::thread::sleep(Duration::from_millis(50));
            cancel(running, phase);
            wait_for_close(&mut main);
        } else {
            let source_ram = guest();
            let mut source = send(&source_ram, &running.uri, |setup| setup).unwrap();
            let sending = std::thread::spawn(move || {
                if phase == 3 {
                    // Everything is sent, and nobody confirms.
                    return source.finish(&PageSet::all(&source_ram), None).unwrap_err();
                }
                loop {
                    if let Err(error) = source.round(&PageSet::all(&source_ram)) {
                        return error.into();
                    }
                }
            });
            cancel(running, phase);
            sending.join().unwrap();
        }
        destination.join().unwrap();
        assert!(began.elapsed() < PROMPT, "{phase}");
    }
}

#[test]
fn garbage_from_the_destination_is_said() {
    let (listener, uri) = listener();
    let running = relay(&uri, |setup| setup);
    let source_ram = guest();
    let source_uri = running.uri.clone();
    let sending = std::thread::spawn(move || {
        send(&source_ram, &source_uri, |setup| setup)
            .map_err(Unfinished::from)
            .and_then(|source| source.finish(&PageSet::all(&source_ram), None))
    });
    let (mut main, _) = listener.accept().unwrap();
    main.write_all(&[0, 99, 0, 0, 1, 2, 3, 4]).unwrap();
    let error = on(Side::To, running.join());
    assert!(chain(&error).contains("message 99 of the return path"), "{error:?}");
    sending.join().unwrap().unwrap_err();
}

#[test]
fn device_state_on_a_channel_is_refused_by_the_device() {
    let (recording, mut channels) = recording("none");
    let device = BlockName::new("0000:00:05.0/vfio").unwrap();
    let packet = DeviceStatePacket { device, instance_id: 0, data_bytes: 5 };
    channels[0].splice(64 + 1344..64 + 1344, packet.to_bytes());
    let error = on(Side::From, replayed(recording.main, &channels, |setup| setup));
    assert!(matches!(peer_error(&error), PeerError::DeviceStateRefused { .. }), "{error}");
    assert!(error.to_string().contains("0000:00:05.0/vfio"), "{error}");
}

#[test]
fn pages_that_the_vm_does_not_have_are_refused() {
    let (recording, whole) = recording("none");
    // In the first packet with pages, behind the initial packet and the first SYNC.
    let packet = 64 + 1344;
    let mut channels = whole.clone();
    channels[0][packet + 64] = b'X';
    let error = on(Side::From, replayed(recording.main, &channels, |setup| setup));
    assert!(matches!(peer_error(&error), PeerError::UnknownBlock { .. }), "{error}");
    let mut channels = whole;
    channels[0][packet + 320] = 0x70;
    let error = on(Side::From, replayed(recording.main, &channels, |setup| setup));
    assert!(matches!(peer_error(&error), PeerError::OffsetPastEnd { .. }), "{error}");
    let Error::Channel(error) = error else { panic!() };
    assert_eq!(error.place().channel, Some(0));
    assert!(error.place().packet_num.is_some());
}

#[test]
fn packets_after_the_last_sync_are_refused() {
    let (recording, mut channels) = recording("zlib");
    let sync = channels[0][channels[0].len() - 1344..].to_vec();
    channels[0].extend(sync);
    let relayed =
        replayed(recording.main, &channels, |setup| setup.from_compression(Compression::Zlib));
    let error = on(Side::From, relayed);
    assert!(matches!(error, Error::AfterLastSync(0)), "{error}");
}

#[test]
fn flipped_bits_anywhere_end_the_relay_and_never_panic() {
    let names = ["none", "zlib", "qemu-7.2-zstd", "qpl"];
    let mut state = 1_u64;
    let mut next = |limit: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) as usize % limit
    };
    let mut errors = 0;
    for round in 0..60 {
        let (recording, mut channels) = recording(names[round / 2 % names.len()]);
        let mut main = recording.main.to_vec();
        // What is no main channel's greeting is refused, and the next is waited for.
        let greeting = 13 + u32::from_be_bytes(main[9..13].try_into().unwrap()) as usize;
        let bytes = channels.get_mut(next(3)).map_or(&mut main[greeting..], |bytes| &mut bytes[..]);
        let limit = if round % 2 == 0 { bytes.len() } else { bytes.len().min(3000) };
        bytes[next(limit)] ^= 1 << next(8);
        let relayed = replayed_to(3, &main, &channels, |setup| {
            setup.from_compression(recording.compression).to_compression(Compression::Qpl)
        });
        match relayed {
            Err(Unfinished::Failed(Error::Panicked) | Unfinished::Unclear(Error::Panicked)) => {
                panic!("round {round}: a thread panicked")
            }
            Err(_) => errors += 1,
            Ok(_) => {}
        }
    }
    assert!(errors > 10, "most flips in headers are noticed: {errors}");
}

#[test]
fn no_thread_outlives_a_relay() {
    // The threads of other tests are in the same process.
    if !is_alone("failure::no_thread_outlives_a_relay") {
        return;
    }
    let before = threads();
    a_relay_is_cancelled_in_any_phase_and_both_sides_end();
    a_destination_that_dies_in_any_phase_ends_the_source();
    another_codec_of_the_source_is_said_with_side_channel_and_packet();
    a_source_that_leaves_before_the_confirmation_is_seen_by_the_destination();
    assert_eq!(threads(), before);
    // Dropped before it has run.
    let relay = multifd::relay::Relay::builder(&crate::common::registry())
        .listen(&crate::common::any_port(), &"tcp:127.0.0.1:1".parse().unwrap())
        .unwrap();
    assert!(threads() > before);
    drop(relay);
    assert_eq!(threads(), before);
}

#[test]
fn a_source_that_half_closes_its_main_channel_early_is_no_migration() {
    let (uri, destination) = sink(3);
    let running = relay(&uri, |setup| setup);
    let (recording, channels) = recording("none");
    let mut main = connect(&running.uri);
    main.write_all(&recording.main[..recording.main.len() - 300]).unwrap();
    let connections: Vec<_> = channels
        .iter()
        .map(|bytes| {
            let mut connection = connect(&running.uri);
            connection.write_all(bytes).unwrap();
            connection
        })
        .collect();
    main.shutdown(Shutdown::Write).unwrap();
    let error = on(Side::From, running.join());
    assert!(matches!(error, Error::Main(_)), "{error}");
    destination.join().unwrap();
    drop(connections);
}

#[test]
fn pages_before_the_first_sync_of_their_channel_are_refused_and_not_passed_on() {
    let (recording, mut channels) = recording("none");
    // The set-up's SYNC, without its flag.
    channels[1][64 + 8..64 + 12].fill(0);
    let failed = replayed(recording.main, &channels, |setup| setup);
    assert!(matches!(on(Side::From, failed), Error::BeforeFirstSync(1)));
}
