//! Migrations over connections that the program brings.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use multifd::core::Compression;
use multifd::relay::Relay;
use multifd::{Connection, Destination, Error, Outgoing, PageSet, Source, Threads, Unfinished};

use crate::common::{any_port, assert_equal, guest, is_alone, provide, threads};
use crate::registry;
use crate::toy::{Ends, Kind};

/// A destination whose connections are handed in, the channels first or last.
fn destination(ends: Ends, compression: Compression, main_first: bool) -> Destination {
    let destination = Destination::builder(registry())
        .compression(compression)
        .channels(ends.1.len() as u8)
        .without_listener()
        .unwrap();
    let entrance = destination.entrance();
    let (main, mut connections) = ends;
    let at = if main_first { 0 } else { connections.len() };
    connections.insert(at, main);
    connections.into_iter().for_each(|connection| entrance.add(connection).unwrap());
    destination
}

/// A source over these connections, after a round and with the rest to be sent, by a thread.
fn send(
    (main, channels): Ends,
    compression: Compression,
) -> (Arc<multifd::core::ram::Ram>, std::thread::JoinHandle<Result<multifd::Stats, Unfinished>>) {
    let ram = guest();
    let sending = Arc::clone(&ram);
    let send = move || {
        let source = Source::builder(registry(), Arc::clone(&sending)).compression(compression);
        let mut source = source.connect_over(main, channels)?;
        source.round(&PageSet::all(&sending))?;
        source.finish(&PageSet::all(&sending), None)
    };
    (ram, std::thread::spawn(send))
}

#[test]
fn a_migration_goes_over_connections_of_any_kind() {
    for kind in Kind::ALL {
        for compression in [Compression::None, Compression::Zstd] {
            for main_first in [true, false] {
                let (from, to) = kind.pairs(3);
                let destination = destination(to, compression, main_first);
                let (ram, sent) = send(from, compression);
                let arrived = destination.receive(provide).unwrap();
                assert_equal(&ram, &arrived.ram);
                arrived.confirm().unwrap();
                let stats = sent.join().unwrap().unwrap();
                assert_eq!(stats.channels.len(), 3, "{kind:?}");
            }
        }
    }
}

#[test]
fn a_relay_takes_connections_of_any_kind_on_both_sides() {
    for kind in Kind::ALL {
        let (from, to_relay) = kind.pairs(2);
        let (from_relay, to) = kind.pairs(3);
        let destination = destination(to, Compression::Zstd, true);
        let relay = Relay::builder(registry())
            .to_compression(Compression::Zstd)
            .without_listener(Outgoing::over(from_relay.0, from_relay.1))
            .unwrap();
        let entrance = relay.entrance();
        entrance.add(to_relay.0).unwrap();
        to_relay.1.into_iter().for_each(|channel| entrance.add(channel).unwrap());
        let relayed = std::thread::spawn(move || relay.run());
        let (ram, sent) = send(from, Compression::None);
        let arrived = destination.receive(provide).unwrap();
        assert_equal(&ram, &arrived.ram);
        arrived.confirm().unwrap();
        sent.join().unwrap().unwrap();
        let relayed = relayed.join().unwrap().unwrap();
        assert!(relayed.confirmed, "{kind:?}");
        assert_eq!((relayed.from.channels.len(), relayed.to.channels.len()), (2, 3));
    }
}

#[test]
fn without_a_return_path_everything_arrives_too() {
    for kind in Kind::ALL {
        let (from, to) = kind.pairs(2);
        let destination = destination(to, Compression::None, true);
        let ram = guest();
        let sending = Arc::clone(&ram);
        let sent = std::thread::spawn(move || {
            let source = Source::builder(registry(), Arc::clone(&sending)).return_path(false);
            source.connect_over(from.0, from.1)?.finish(&PageSet::all(&sending), None)
        });
        let arrived = destination.receive(provide).unwrap();
        assert_equal(&ram, &arrived.ram);
        arrived.confirm().unwrap();
        sent.join().unwrap().unwrap();
    }
}

#[test]
fn a_destination_that_fails_tells_its_source_over_any_kind() {
    for kind in Kind::ALL {
        let (from, to) = kind.pairs(2);
        let destination = destination(to, Compression::None, true);
        let (_, sent) = send(from, Compression::None);
        destination.receive(|_| Err(Error::caller("no memory left"))).unwrap_err();
        let sent = sent.join().unwrap();
        assert!(
            matches!(sent, Err(Unfinished::Failed(Error::DestinationFailed(1)))),
            "{kind:?}: {sent:?}"
        );
    }
}

/// Waits until there is no thread of this name: it has done what it is for.
fn wait_for_end_of(name: &str) {
    let is_there = || {
        let threads = std::fs::read_dir("/proc/self/task").unwrap();
        let names = threads
            .filter_map(|thread| std::fs::read_to_string(thread.unwrap().path().join("comm")).ok());
        names.into_iter().any(|other| other.trim_end() == name)
    };
    let deadline = Instant::now() + Duration::from_secs(60);
    while is_there() {
        assert!(Instant::now() < deadline, "{name} is still there");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_source_that_leaves_before_the_confirmation_is_not_confirmed_over_any_kind() {
    for kind in Kind::ALL {
        let (from, to) = kind.pairs(2);
        let destination = Destination::builder(registry());
        let destination = destination.threads(Threads::new().prefix("gone-"));
        let destination = destination.without_listener().unwrap();
        let connections = std::iter::once(to.0).chain(to.1);
        connections.for_each(|connection| destination.entrance().add(connection).unwrap());
        let ram = guest();
        let source = Source::builder(registry(), Arc::clone(&ram));
        let received = std::thread::spawn(move || destination.receive(provide));
        let source = source.connect_over(from.0, from.1).unwrap();
        let token = source.cancel_token();
        let sent = std::thread::spawn(move || source.finish(&PageSet::all(&ram), None));
        let arrived = received.join().unwrap().unwrap();
        token.cancel();
        sent.join().unwrap().unwrap_err();
        // Of a stream that cannot be looked at, a thread has to have read the end.
        wait_for_end_of("gone-after");
        let error = arrived.confirm().unwrap_err();
        assert!(matches!(error, Error::SourceGone), "{kind:?}: {error}");
    }
}

/// Passes everything on, but fails when the confirmation is written or when it is flushed.
struct Breaking {
    stream: UnixStream,
    in_flush: bool,
    has_failed: bool,
    /// What is written behind that.
    behind: Sender<Vec<u8>>,
}

const CONFIRMATION: [u8; 8] = [0, 1, 0, 4, 0, 0, 0, 0];

impl Write for Breaking {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.has_failed {
            self.behind.send(bytes.to_vec()).unwrap();
        } else if bytes == CONFIRMATION {
            self.has_failed = true;
            if !self.in_flush {
                return Err(io::Error::other("a test's"));
            }
        }
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        match self.has_failed && self.in_flush {
            true => Err(io::Error::other("a test's")),
            false => Ok(()),
        }
    }
}

#[test]
fn nothing_is_said_behind_a_confirmation_that_may_have_been_heard() {
    for in_flush in [true, false] {
        let (near, far) = UnixStream::pair().unwrap();
        let (said, behind) = channel();
        let stream = far.try_clone().unwrap();
        let writer = Breaking { stream, in_flush, behind: said, has_failed: false };
        let reader = far.try_clone().unwrap();
        let far = Connection::from_stream(reader, writer, move |how| far.shutdown(how));
        let (from, to) = Kind::Unix.pairs(2);
        let destination = destination((far, to.1), Compression::None, true);
        let (_, sent) = send((Connection::from_socket(near).unwrap(), from.1), Compression::None);
        let error = destination.receive(provide).unwrap().confirm().unwrap_err();
        let (sent, behind) = (sent.join().unwrap(), behind.iter().collect::<Vec<_>>().concat());
        if in_flush {
            assert!(matches!(error, Error::Unconfirmed(_)), "{error}");
            assert!(sent.is_ok() && behind.is_empty(), "{sent:?} {behind:?}");
        } else {
            // It has not left, and the source can be told.
            assert!(matches!(error, Error::System { .. }), "{error}");
            assert!(matches!(sent, Err(Unfinished::Failed(Error::DestinationFailed(1)))));
        }
    }
}

#[test]
fn a_confirmation_of_what_was_not_sent_is_refused_over_any_kind() {
    for kind in Kind::ALL {
        let ((main, channels), (mut answering, _far)) = kind.pairs(2);
        answering.write_all(&[0, 1, 0, 4, 0, 0, 0, 0]).unwrap();
        answering.flush().unwrap();
        let ram = guest();
        let source = Source::builder(registry(), Arc::clone(&ram));
        let source = source.threads(Threads::new().prefix("early-"));
        let sent = source.connect_over(main, channels).map_err(Unfinished::from);
        let sent = sent.and_then(|source| {
            // Without polling it has to have been read.
            wait_for_end_of("early-return");
            source.finish(&PageSet::all(&ram), None)
        });
        assert!(
            matches!(sent, Err(Unfinished::Failed(Error::EarlyConfirmation))),
            "{kind:?}: {sent:?}"
        );
    }
}

#[test]
fn connections_can_be_handed_in_beside_those_that_are_accepted() {
    let destination = Destination::builder(registry()).listen(&any_port()).unwrap();
    let (uri, entrance) = (destination.uri().clone(), destination.entrance());
    let multifd::Uri::Tcp { host, port } = uri else { panic!() };
    let (main, to) = Kind::Masked.pair();
    entrance.add(to).unwrap();
    let connect = || std::net::TcpStream::connect((&host[..], port)).unwrap();
    let channels = [connect(), connect()].map(Connection::from_socket);
    let channels = channels.map(Result::unwrap).to_vec();
    let (ram, sent) = send((main, channels), Compression::None);
    let arrived = destination.receive(provide).unwrap();
    assert_equal(&ram, &arrived.ram);
    arrived.confirm().unwrap();
    sent.join().unwrap().unwrap();
}

#[test]
fn the_number_of_connections_is_that_of_the_channels() {
    for (channels, refused) in [(0, 0), (256, 256)] {
        let (main, _far) = Kind::Unix.pair();
        let (connections, _peers): (Vec<_>, Vec<_>) =
            (0..channels).map(|_| Kind::Unix.pair()).unzip();
        let source = Source::builder(registry(), guest()).channels(2);
        let error = source.connect_over(main, connections).unwrap_err();
        assert!(matches!(error, Error::ChannelCount(count) if count == refused), "{error}");
    }
}

#[test]
fn an_entrance_of_a_migration_that_is_over_refuses_and_shuts_what_comes() {
    let destination = Destination::builder(registry()).without_listener().unwrap();
    let entrance = destination.entrance();
    drop(destination);
    let (near, mut far) = Kind::Unix.pair();
    assert!(matches!(entrance.add(near), Err(Error::Over)));
    assert_eq!(far.read(&mut [0]).unwrap(), 0);
}

#[test]
fn an_entrance_says_what_it_does_not_take_in() {
    let (from, to) = Kind::Unix.pairs(2);
    let destination = Destination::builder(registry()).listen(&any_port()).unwrap();
    let entrance = destination.entrance();
    let connections = std::iter::once(to.0).chain(to.1);
    connections.for_each(|connection| entrance.add(connection).unwrap());
    let (_, sent) = send(from, Compression::None);
    let arrived = destination.receive(provide).unwrap();
    // It has its channels.
    let (near, mut far) = Kind::Unix.pair();
    let refused = entrance.add(near);
    assert!(matches!(refused, Err(Error::NotTakenIn)), "{refused:?}");
    assert_eq!(far.read(&mut [0]).unwrap(), 0);
    arrived.confirm().unwrap();
    sent.join().unwrap().unwrap();
}

#[test]
fn an_entrance_says_why_it_has_no_thread_for_a_connection() {
    let first = |name: &str| match name.ends_with("recv") {
        true => Err(io::Error::other("a test's")),
        false => Ok(()),
    };
    let destination = Destination::builder(registry()).threads(Threads::new().first(first));
    let destination = destination.without_listener().unwrap();
    let refused = destination.entrance().add(Kind::Unix.pair().0).unwrap_err();
    let error = destination.receive(provide).unwrap_err();
    for error in [refused, error] {
        let Error::Thread { name, source } = error else { panic!("{error}") };
        assert_eq!((&name[..], &source.to_string()[..]), ("multifd-recv", "a test's"));
    }
}

#[test]
fn given_connections_are_shut_down_though_they_never_came_to_be_used() {
    let (mut far, near) = Kind::Unix.pair();
    let (main, _far_main) = Kind::Unix.pair();
    let held = near.clone();
    let relay = Relay::builder(registry()).without_listener(Outgoing::over(main, [near])).unwrap();
    relay.cancel_token().cancel();
    relay.run().unwrap_err();
    assert_eq!(far.read(&mut [0]).unwrap(), 0);
    drop(held);
}

#[test]
fn no_thread_outlives_a_migration_over_given_connections() {
    // The threads of other tests are in the same process.
    if !is_alone("given::no_thread_outlives_a_migration_over_given_connections") {
        return;
    }
    let before = threads();
    a_migration_goes_over_connections_of_any_kind();
    a_relay_takes_connections_of_any_kind_on_both_sides();
    a_destination_that_fails_tells_its_source_over_any_kind();
    a_source_that_leaves_before_the_confirmation_is_not_confirmed_over_any_kind();
    assert_eq!(threads(), before);
    // And of one that never began.
    let destination = Destination::builder(registry()).without_listener().unwrap();
    assert!(threads() > before);
    drop(destination);
    assert_eq!(threads(), before);
}
