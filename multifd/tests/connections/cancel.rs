//! Cancelling before there is a migration.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use multifd::relay::Relay;
use multifd::{CancelToken, Destination, Error, Source, Unfinished, Uri};
use socket2::{Domain, Socket, Type};

use crate::common::{any_port, guest, provide};
use crate::registry;
use crate::toy::Kind;

/// Far less than a connection may take, and more than a cancellation does.
const PROMPT: Duration = Duration::from_secs(10);
const LONG: Duration = Duration::from_secs(600);

/// A listener that answers nobody any more, and what it takes for that.
fn deaf() -> (Uri, (Socket, Vec<Socket>)) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let listener = Socket::from(OwnedFd::from(listener));
    listener.listen(0).unwrap();
    let waiting = (0..4).map(|_| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_nonblocking(true).unwrap();
        _ = socket.connect(&address.into());
        socket
    });
    let waiting = waiting.collect();
    (format!("tcp:{address}").parse().unwrap(), (listener, waiting))
}

#[test]
fn a_source_that_connects_is_cancelled_at_once() {
    let (uri, _deaf) = deaf();
    let token = CancelToken::new();
    let cancelling = {
        let token = token.clone();
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(100));
            token.cancel();
            Instant::now()
        })
    };
    let source = Source::builder(registry(), guest()).connect_timeout(LONG).cancelled_by(&token);
    let error = source.connect(&uri).unwrap_err();
    assert!(matches!(error, Error::Cancelled), "{error}");
    assert!(cancelling.join().unwrap().elapsed() < PROMPT);
    // And whatever it is given to later.
    let error =
        Source::builder(registry(), guest()).cancelled_by(&token).connect(&uri).unwrap_err();
    assert!(matches!(error, Error::Cancelled), "{error}");
    assert!(token.is_cancelled());
}

#[test]
fn a_relay_that_connects_to_its_destination_is_cancelled_at_once() {
    let (to, _deaf) = deaf();
    let relay = Relay::builder(registry()).connect_timeout(LONG).listen(&any_port(), &to).unwrap();
    let (uri, token) = (relay.uri().clone(), relay.cancel_token());
    let relayed = std::thread::spawn(move || relay.run());
    let Uri::Tcp { host, port } = uri else { panic!() };
    let mut main = std::net::TcpStream::connect((&host[..], port)).unwrap();
    std::io::Write::write_all(&mut main, b"QEVM\0\0\0\x03\x07\0\0\0\x02pc").unwrap();
    std::thread::sleep(Duration::from_millis(100));
    token.cancel();
    let cancelled = Instant::now();
    assert!(matches!(relayed.join().unwrap(), Err(Unfinished::Failed(Error::Cancelled))));
    assert!(cancelled.elapsed() < PROMPT);
}

#[test]
fn one_token_cancels_all_that_it_is_given_to() {
    let token = CancelToken::new();
    let builder = || Destination::builder(registry()).cancelled_by(&token);
    let destinations = [builder(), builder()].map(|setup| setup.listen(&any_port()).unwrap());
    let waiting =
        destinations.map(|destination| std::thread::spawn(move || destination.receive(provide)));
    token.cancel();
    for waiting in waiting {
        assert!(matches!(waiting.join().unwrap(), Err(Error::Cancelled)));
    }
    let late = builder().listen(&any_port()).unwrap();
    assert!(matches!(late.receive(provide), Err(Error::Cancelled)));
}

#[test]
fn a_migration_over_any_kind_of_connection_is_cancelled_in_the_middle() {
    for kind in Kind::ALL {
        for at_source in [true, false] {
            let ((main, channels), (to_main, to_channels)) = kind.pairs(2);
            let destination = Destination::builder(registry()).without_listener().unwrap();
            let entrance = destination.entrance();
            entrance.add(to_main).unwrap();
            to_channels.into_iter().for_each(|channel| entrance.add(channel).unwrap());
            let destination_token = destination.cancel_token();
            let received = std::thread::spawn(move || destination.receive(provide));
            let ram = guest();
            let source = Source::builder(registry(), Arc::clone(&ram));
            let mut source = source.connect_over(main, channels).unwrap();
            source.round(&multifd::PageSet::all(&ram)).unwrap();
            let token = if at_source { source.cancel_token() } else { destination_token };
            token.cancel();
            let sent = loop {
                if let Err(error) = source.round(&multifd::PageSet::all(&ram)) {
                    break error;
                }
            };
            let received = received.join().unwrap().unwrap_err();
            let cancelled = if at_source { &sent } else { &received };
            assert!(matches!(cancelled, Error::Cancelled), "{kind:?}: {sent} / {received}");
        }
    }
}
