//! How long a peer may do nothing.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use multifd::core::wire::{InitialPacket, Uuid};
use multifd::relay::Relay;
use multifd::{Connection, Destination, Error, Outgoing, PageSet, Source};

use crate::common::{
    announcement, announcement_with_return_path, any_port, cause, chain, guest, provide, receive,
    send,
};
use crate::registry;
use crate::toy::Kind;

/// For peers that do nothing: soon over.
const LIMIT: Duration = Duration::from_millis(300);
/// For peers that do something: longer than any thread here is kept from running.
const PATIENT: Duration = Duration::from_secs(2);

#[test]
fn a_destination_that_reads_nothing_ends_its_source_with_what_was_waited_for() {
    for kind in Kind::ALL {
        let ((main, channels), _silent) = kind.pairs(2);
        let ram = guest();
        let source = Source::builder(registry(), Arc::clone(&ram)).progress_timeout(Some(LIMIT));
        let sent = source.connect_over(main, channels).and_then(|mut source| {
            loop {
                source.round(&PageSet::all(&ram))?;
            }
            #[allow(unreachable_code, reason = "it says the type")]
            Ok(())
        });
        let error = sent.unwrap_err();
        assert!(matches!(error, Error::Stalled { .. }), "{kind:?}: {error}");
        assert!(error.to_string().contains("the destination"), "{error}");
        let Error::Stalled { waiting_for, channels, .. } = &error else { panic!("{error}") };
        // Room for a batch is any channel's.
        assert_eq!(channels.is_empty(), *waiting_for == "room for a batch", "{error}");
    }
}

#[test]
fn a_source_that_says_nothing_more_ends_its_destination_with_what_was_waited_for() {
    for kind in Kind::ALL {
        for after in [&b"QEVM\0\0\0\x03\x07\0\0\0\x02pc"[..], b"QEVM\0\0\0\x03\x01"] {
            let ((mut main, _channels), (to_main, _to)) = kind.pairs(1);
            let destination = Destination::builder(registry()).progress_timeout(Some(LIMIT));
            let destination = destination.without_listener().unwrap();
            destination.entrance().add(to_main).unwrap();
            main.write_all(after).unwrap();
            main.flush().unwrap();
            let error = destination.receive(provide).unwrap_err();
            let Error::Stalled { waiting_for, peer, .. } = &error else { panic!("{error}") };
            assert_eq!((*waiting_for, &peer[..10]), ("more of the main channel", "the source"));
        }
    }
}

/// Sends the initial packets of two channels, and so much of a SYNC without pages.
fn begin(channels: &[Connection], bytes: [usize; 2]) {
    let mut sync = vec![0; 1344];
    sync[..12].copy_from_slice(&[0x11, 0x22, 0x33, 0x44, 0, 0, 0, 1, 0, 0, 0, 1]);
    for ((number, channel), bytes) in (0..).zip(channels).zip(bytes) {
        let mut channel = channel.clone();
        sync[31] = number;
        channel.write_all(&InitialPacket::new(Uuid::default(), number).to_bytes()).unwrap();
        channel.write_all(&sync[..bytes]).unwrap();
    }
}

#[test]
fn a_channel_that_stalls_before_its_sync_is_said_by_its_number() {
    let ((mut main, channels), (to_main, to)) = Kind::Unix.pairs(2);
    let destination = Destination::builder(registry()).progress_timeout(Some(LIMIT));
    let destination = destination.without_listener().unwrap();
    [to_main].into_iter().chain(to).for_each(|end| destination.entrance().add(end).unwrap());
    main.write_all(&announcement(&guest())).unwrap();
    // The second channel has a part.
    begin(&channels, [1344, 1343]);
    let error = destination.receive(provide).unwrap_err();
    assert!(matches!(&error, Error::Stalled { channels, .. } if channels[..] == [1]), "{error:?}");
    let text = error.to_string();
    assert!(
        text.contains("every channel at its SYNC was waited for (missing: channel 1)"),
        "{text}"
    );
}

#[test]
fn a_relay_ends_when_either_side_does_nothing() {
    let ((mut main, _channels), (to_main, _to)) = Kind::Unix.pairs(1);
    let (out, _far) = Kind::Unix.pairs(1);
    let relay = Relay::builder(registry()).progress_timeout(Some(LIMIT));
    let relay = relay.without_listener(Outgoing::over(out.0, out.1)).unwrap();
    relay.entrance().add(to_main).unwrap();
    main.write_all(b"QEVM\0\0\0\x03\x07\0\0\0\x02pc").unwrap();
    let error = relay.run().unwrap_err();
    assert!(chain(&error).contains("more of the main channel"), "{error}");

    // The destination takes nothing, so the source cannot go on.
    let (out, _far) = Kind::Unix.pairs(2);
    let relay = Relay::builder(registry()).progress_timeout(Some(LIMIT));
    let listening = multifd::Listener::bind(&any_port()).unwrap();
    let relay = relay.listen_on(listening, Outgoing::over(out.0, out.1)).unwrap();
    let uri = relay.uri().clone();
    let relayed = std::thread::spawn(move || relay.run());
    let ram = guest();
    let mut source = send(&ram, &uri, |setup| setup).unwrap();
    while source.round(&PageSet::all(&ram)).is_ok() {}
    let error = relayed.join().unwrap().unwrap_err();
    assert!(chain(&error).contains("no byte has"), "{error}");
}

#[test]
fn a_relay_whose_source_closed_its_main_channel_early_says_so() {
    let ((main, channels), (to_main, to)) = Kind::Unix.pairs(2);
    let (out, _far) = Kind::Unix.pairs(2);
    let relay = Relay::builder(registry()).progress_timeout(Some(LIMIT));
    let relay = relay.without_listener(Outgoing::over(out.0, out.1)).unwrap();
    let entrance = relay.entrance();
    entrance.add(to_main).unwrap();
    to.into_iter().for_each(|channel| entrance.add(channel).unwrap());
    let mut main = main;
    main.write_all(&announcement(&guest())).unwrap();
    for (number, channel) in (0..).zip(&channels) {
        channel.clone().write_all(&InitialPacket::new(Uuid::default(), number).to_bytes()).unwrap();
        // The first of a packet.
        channel.clone().write_all(&[0x11]).unwrap();
    }
    drop(main);
    let error = relay.run().unwrap_err();
    assert!(chain(&error).contains("closed the main channel"), "{error}");
    drop(channels);
}

#[test]
fn a_byte_now_and_then_is_progress() {
    for kind in [Kind::Tcp, Kind::Masked] {
        let ((mut main, _channels), (to_main, _to)) = kind.pairs(1);
        let destination = Destination::builder(registry()).progress_timeout(Some(PATIENT));
        let destination = destination.without_listener().unwrap();
        destination.entrance().add(to_main).unwrap();
        let (ended, end) = channel();
        let received = std::thread::spawn(move || {
            let received = destination.receive(provide);
            ended.send(Instant::now()).unwrap();
            received
        });
        main.write_all(b"QEVM\0\0\0\x03\x07\0\0\0\x02pc\x04\0\0\0\x01\x20").unwrap();
        let began = Instant::now();
        // A section's name of 32 bytes, over more than the limit.
        for _ in 0..8 {
            std::thread::sleep(PATIENT / 4);
            main.write_all(b"x").unwrap();
        }
        assert!(end.try_recv().is_err(), "it goes on after {:?}", began.elapsed());
        let error = received.join().unwrap().unwrap_err();
        assert!(matches!(error, Error::Stalled { .. }), "{error}");
    }
}

#[test]
fn nobody_is_hurried_while_nothing_is_waited_for() {
    let limit = Some(PATIENT);
    let destination = Destination::builder(registry()).progress_timeout(limit);
    let destination = destination.listen(&any_port()).unwrap();
    let uri = destination.uri().clone();
    // Before there is a source.
    let received = std::thread::spawn(move || {
        destination.receive(|incoming| {
            // While the caller provides.
            std::thread::sleep(2 * PATIENT);
            provide(incoming)
        })
    });
    std::thread::sleep(2 * PATIENT);
    let ram = guest();
    let source = send(&ram, &uri, |setup| setup.progress_timeout(limit)).unwrap();
    let all = PageSet::all(&ram);
    let sent = std::thread::spawn(move || source.finish(&all, None));
    let arrived = received.join().unwrap().unwrap();
    // While what arrived is stored, at both sides.
    std::thread::sleep(2 * PATIENT);
    arrived.confirm().unwrap();
    sent.join().unwrap().unwrap();
}

#[test]
fn a_source_may_take_its_time_between_rounds() {
    let (uri, received) = receive(|setup| setup);
    let ram = guest();
    let mut source = send(&ram, &uri, |setup| setup.progress_timeout(Some(PATIENT))).unwrap();
    source.round(&PageSet::all(&ram)).unwrap();
    std::thread::sleep(2 * PATIENT);
    let all = PageSet::all(&ram);
    let sent = std::thread::spawn(move || source.finish(&all, None));
    received.join().unwrap().unwrap().confirm().unwrap();
    sent.join().unwrap().unwrap();
}

#[test]
fn a_source_that_stops_reading_answers_does_not_hold_a_destination_over_any_kind() {
    for kind in [Kind::Unix, Kind::Masked, Kind::Memory] {
        let ((main, _channels), (to_main, _to)) = kind.pairs(1);
        let destination = Destination::builder(registry()).without_listener().unwrap();
        destination.entrance().add(to_main).unwrap();
        let pinging = std::thread::spawn(move || ping_for_ever(main));
        let error = destination.receive(provide).unwrap_err();
        assert!(error.to_string().starts_with("answering the source failed"), "{kind:?}: {error}");
        pinging.join().unwrap();
    }
}

/// Asks for answers, and reads none.
fn ping_for_ever(mut main: Connection) {
    let pings = b"\x08\0\x02\0\x04\0\0\0\x01".repeat(1 << 12);
    let opened = main.write_all(b"QEVM\0\0\0\x03\x07\0\0\0\x02pc\x08\0\x01\0\0");
    if opened.is_ok() {
        while main.write_all(&pings).and_then(|()| main.flush()).is_ok() {}
    }
}

#[test]
fn what_stalls_after_the_end_of_a_wait_is_not_blamed_on_it() {
    // A connection that stays open and silent is no reason to end one that has ended well.
    let ((main, channels), (to_main, to)) = Kind::Tcp.pairs(2);
    let destination = Destination::builder(registry()).progress_timeout(Some(PATIENT));
    let destination = destination.without_listener().unwrap();
    let entrance = destination.entrance();
    entrance.add(to_main).unwrap();
    to.into_iter().for_each(|channel| entrance.add(channel).unwrap());
    let received = std::thread::spawn(move || destination.receive(provide));
    let ram = guest();
    let source = Source::builder(registry(), Arc::clone(&ram)).connect_over(main.clone(), channels);
    let source = source.unwrap();
    let sent = std::thread::spawn(move || source.finish(&PageSet::all(&ram), None));
    let arrived = received.join().unwrap().unwrap();
    std::thread::sleep(2 * PATIENT);
    arrived.confirm().unwrap();
    sent.join().unwrap().unwrap();
    let mut main = main;
    assert!(matches!(main.read(&mut [0]), Ok(0)), "it is shut down though it is still held");
}

/// A channel to a destination that hangs: it takes the initial packet, and no more until it is shut down.
fn hanging() -> Connection {
    struct Hangs(usize, Receiver<()>);
    impl Write for Hangs {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let taken = bytes.len().min(self.0);
            if taken == 0 {
                _ = self.1.recv();
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            self.0 -= taken;
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let (over, shut_down) = channel();
    let shut_down_it = move |_| {
        _ = over.send(());
        Ok(())
    };
    Connection::from_stream(io::empty(), Hangs(InitialPacket::BYTES, shut_down), shut_down_it)
}

#[test]
fn a_source_that_leaves_while_a_destination_hangs_is_blamed_only_where_it_would_have_stayed() {
    for return_path in [true, false] {
        let ((mut main, channels), (to_main, to)) = Kind::Unix.pairs(2);
        let (to_destination, _destination) = Kind::Unix.pair();
        let relay = Relay::builder(registry()).channel_timeout(PATIENT);
        let relay = relay.progress_timeout((!return_path).then_some(PATIENT));
        let relay = relay
            .without_listener(Outgoing::over(to_destination, vec![hanging(), hanging()]))
            .unwrap();
        [to_main].into_iter().chain(to).for_each(|end| relay.entrance().add(end).unwrap());
        let announcement = if return_path { announcement_with_return_path } else { announcement };
        main.write_all(&announcement(&guest())).unwrap();
        begin(&channels, [1344; 2]);
        drop(main);
        let error = cause(relay.run().unwrap_err());
        match &error {
            Error::MainEnded { waiting_for } if return_path => {
                assert_eq!(*waiting_for, "every channel to send its SYNC");
            }
            Error::Stalled { channels, .. } if !return_path => assert_eq!(channels[..], [0, 1]),
            _ => panic!("{return_path}: {error}"),
        }
    }
}
