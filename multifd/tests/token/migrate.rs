//! Migrations that go through.

use std::io;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use multifd::core::Compression;
use multifd::relay::Relay;
use multifd::{Connection, Destination, Outgoing, PageSet, Source};

use crate::authority::Authority;
use crate::common::{any_port, complete, guest, handed_in, provide, receive, registry};
use crate::{arrives, other, token};

#[test]
fn a_guest_arrives_over_connections_that_have_the_token_with_tls_and_without() {
    let (uri, received) = receive(|setup| setup.channels(4).token(token()));
    let refused = arrives(&uri, received, |setup| setup.channels(4).token(token()));
    assert_eq!(refused.connections, 0, "{refused:?}");

    let folder = Authority::new().folder();
    let (uri, received) = receive(|setup| setup.tls(folder.server()).token(token()));
    let refused = arrives(&uri, received, |setup| setup.tls(folder.client()).token(token()));
    assert_eq!(refused.connections, 0, "{refused:?}");
}

#[test]
fn without_a_return_path_everything_arrives_too() {
    let (uri, received) = receive(|setup| setup.token(token()));
    arrives(&uri, received, |setup| setup.return_path(false).token(token()));
}

/// A stream of the program's own making.
fn stream(socket: UnixStream) -> Connection {
    let (reader, writer) = (socket.try_clone().unwrap(), socket.try_clone().unwrap());
    Connection::from_stream(reader, writer, move |how: Shutdown| -> io::Result<()> {
        socket.shutdown(how)
    })
}

#[test]
fn connections_that_the_program_brings_have_the_token_too_sockets_or_not() {
    let registry = registry();
    let socket = |socket: UnixStream| Connection::from_socket(socket).unwrap();
    for make in [socket, stream] {
        let destination = Destination::builder(&registry).token(token());
        let destination = destination.without_listener().unwrap();
        let pair = || {
            let (near, far) = UnixStream::pair().unwrap();
            destination.entrance().add(make(far)).unwrap();
            make(near)
        };
        let (main, channels) = (pair(), [pair(), pair()]);
        let ram = guest();
        let received = std::thread::spawn(move || destination.receive(provide));
        let source = Source::builder(&registry, Arc::clone(&ram)).token(token());
        let source = source.connect_over(main, channels).unwrap();
        complete(source, PageSet::all(&ram), &ram, received);
    }
}

#[test]
fn a_relay_has_a_token_on_either_side_and_on_both_each_its_own() {
    for (from, to) in [(true, true), (true, false), (false, true)] {
        let registry = registry();
        let (uri, received) = receive(|setup| match to {
            true => setup.channels(3).token(other()),
            false => setup.channels(3),
        });
        let mut relay = Relay::builder(&registry).to_channels(3);
        if from {
            relay = relay.from_token(token());
        }
        if to {
            relay = relay.to_token(other());
        }
        let relay = relay.listen(&any_port(), &uri).unwrap();
        let at = relay.uri().clone();
        let relayed = std::thread::spawn(move || relay.run());
        arrives(&at, received, |setup| match from {
            true => setup.token(token()),
            false => setup,
        });
        assert!(relayed.join().unwrap().unwrap().confirmed, "{from} {to}");
    }
}

#[test]
fn a_relay_has_a_token_over_connections_to_the_destination_that_the_program_brings() {
    let registry = registry();
    let destination = Destination::builder(&registry).channels(1).token(token());
    let destination = destination.compression(Compression::Zlib).without_listener().unwrap();
    let pair = || handed_in(&destination);
    let to = Outgoing::over(pair(), [pair()]);
    let received = std::thread::spawn(move || destination.receive(provide));
    let relay = Relay::builder(&registry).to_compression(Compression::Zlib).to_token(token());
    let listener = multifd::Listener::bind(&any_port()).unwrap();
    let relay = relay.listen_on(listener, to).unwrap();
    let at = relay.uri().clone();
    let relayed = std::thread::spawn(move || relay.run());
    arrives(&at, received, |setup| setup);
    assert!(relayed.join().unwrap().unwrap().confirmed);
}
