//! Listening: on several addresses, on an inherited socket.

use std::net::TcpListener;
use std::os::unix::net::UnixListener;

use multifd::core::{Compression, PrivateMethod};
use multifd::relay::Relay;
use multifd::{Destination, Error, Listener, PageSet, Uri};

use crate::common::{complete, guest, provide, receive, send};
use crate::registry;

/// A migration to `destination` at `uri`.
fn migrate(destination: Destination, uri: &Uri) {
    let ram = guest();
    let received = std::thread::spawn(move || destination.receive(provide));
    let source = send(&ram, uri, |setup| setup).unwrap();
    complete(source, PageSet::all(&ram), &ram, received);
}

#[test]
fn every_address_and_localhost_take_a_migration_on_either_family() {
    for listen in ["tcp::0", "tcp:localhost:0", "tcp://localhost:0"] {
        for connect in ["", "localhost", "127.0.0.1", "::1"] {
            if connect == "::1" && TcpListener::bind("[::1]:0").is_err() {
                // Not by eprintln, which is captured: it is to be seen.
                _ = std::io::Write::write_fmt(
                    &mut std::io::stderr(),
                    format_args!("skipped: IPv6, which this machine does not have\n"),
                );
                continue;
            }
            let destination =
                Destination::builder(registry()).listen(&listen.parse().unwrap()).unwrap();
            let Uri::Tcp { port, .. } = *destination.uri() else { panic!() };
            migrate(destination, &Uri::Tcp { host: connect.to_owned(), port });
        }
    }
}

#[test]
fn an_inherited_listener_takes_a_migration() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("sock");
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap().into();
    let unix = UnixListener::bind(&path).unwrap().into();
    for inherited in [tcp, unix] {
        let listener = Listener::from_fd(inherited).unwrap();
        let uri = listener.uri().clone();
        migrate(Destination::builder(registry()).listen_on(listener).unwrap(), &uri);
    }
    assert!(path.exists(), "the file is not the library's");
}

#[test]
fn a_relay_takes_an_inherited_listener() {
    let (to, received) = receive(|setup| setup);
    let listener = Listener::from_fd(TcpListener::bind("127.0.0.1:0").unwrap().into()).unwrap();
    let uri = listener.uri().clone();
    let relay = Relay::builder(registry()).listen_on(listener, &to).unwrap();
    let relayed = std::thread::spawn(move || relay.run());
    let ram = guest();
    let source = send(&ram, &uri, |setup| setup).unwrap();
    let all = PageSet::all(&ram);
    let sent = std::thread::spawn(move || source.finish(&all, None));
    received.join().unwrap().unwrap().confirm().unwrap();
    sent.join().unwrap().unwrap();
    relayed.join().unwrap().unwrap();
}

#[test]
fn vsock_takes_a_migration_where_this_machine_has_its_loopback() {
    let uri = Uri::Vsock { cid: 1, port: 0x4d46_0001 };
    // No vsock, or not with this address: EAFNOSUPPORT, EADDRNOTAVAIL, ENODEV, EHOSTUNREACH, ENETUNREACH.
    let absent =
        |source: &std::io::Error| [97, 99, 19, 113, 101].map(Some).contains(&source.raw_os_error());
    let destination = match Destination::builder(registry()).listen(&uri) {
        Ok(destination) => destination,
        Err(error) => {
            let Error::Listen { source, .. } = &error else { panic!("{error}") };
            assert!(absent(source), "{source:?}");
            // Not by eprintln, which is captured: it is to be seen.
            _ = std::io::Write::write_fmt(
                &mut std::io::stderr(),
                format_args!("skipped: {error}: {}\n", std::error::Error::source(&error).unwrap()),
            );
            return;
        }
    };
    let reachable = multifd::Source::builder(registry(), guest())
        .connect_timeout(std::time::Duration::from_secs(1))
        .return_path(false);
    if let Err(Error::Connect { source, .. }) = reachable.connect(&uri) {
        assert!(absent(&source), "{source:?}");
        // Not by eprintln, which is captured: it is to be seen.
        _ = std::io::Write::write_fmt(
            &mut std::io::stderr(),
            format_args!("skipped: vsock's loopback (vsock_loopback) is not there: {source}\n"),
        );
        return;
    }
    drop(destination);
    let uri = Uri::Vsock { cid: 1, port: 0x4d46_0002 };
    migrate(Destination::builder(registry()).listen(&uri).unwrap(), &uri);
}

#[test]
fn a_unix_socket_leaves_no_file_whatever_fails() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("sock");
    let uri = Uri::Unix(path.clone());
    let unregistered = Compression::Private(PrivateMethod::new(0x0e).unwrap());
    Destination::builder(registry()).compression(unregistered).listen(&uri).unwrap_err();
    assert!(!path.exists());
    let fails = multifd::Threads::new().first(|_| Err(std::io::Error::other("no")));
    let destination = Destination::builder(registry()).threads(fails).listen(&uri);
    let failed = destination.and_then(|destination| destination.receive(provide).map(drop));
    failed.unwrap_err();
    assert!(!path.exists());
    let relay = Relay::builder(registry()).listen(&uri, &uri).unwrap();
    assert!(path.exists());
    drop(relay);
    assert!(!path.exists());
}
