//! Many strangers, and strangers from elsewhere.

use std::io::Read;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use multifd::{Destination, DestinationBuilder, Error, Listener, Network, PageSet, SourceBuilder};
use rustix::process::{Resource, getrlimit, setrlimit};

use crate::common::{any_port, complete, guest, is_alone, provide, send, threads};
use crate::play::{address, wait_until};
use crate::registry;

/// Raises the limit of descriptors to what is allowed, and says what it is.
pub(crate) fn descriptors() -> u64 {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    _ = setrlimit(Resource::Nofile, limit);
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

#[test]
fn of_3000_that_are_silent_none_keeps_the_source_out() {
    if is_alone("crowd::of_3000_that_are_silent_none_keeps_the_source_out") {
        gets_through_a_crowd(|setup| setup, |setup| setup);
    }
}

#[cfg(feature = "token")]
#[test]
fn of_3000_that_are_silent_none_keeps_a_source_with_a_token_out() {
    let token = || multifd::token::Token::new(&[7; 32]).unwrap();
    if is_alone("crowd::of_3000_that_are_silent_none_keeps_a_source_with_a_token_out") {
        gets_through_a_crowd(|setup| setup.token(token()), |setup| setup.token(token()));
    }
}

/// A source gets through, whose destination 3000 that are silent have connected to.
fn gets_through_a_crowd(
    destination: impl FnOnce(DestinationBuilder<'static>) -> DestinationBuilder<'static>,
    source: impl FnOnce(SourceBuilder<'_>) -> SourceBuilder<'_>,
) {
    // Both ends are of this process.
    let most = descriptors().saturating_sub(400);
    let crowd = 3000.min(most * 4 / 5) as usize;
    if crowd < 600 {
        // Not by eprintln, which is captured: it is to be seen.
        _ = std::io::Write::write_fmt(
            &mut std::io::stderr(),
            format_args!("skipped: a crowd, for which there are too few descriptors\n"),
        );
        return;
    }
    let before = threads();
    let destination = destination(Destination::builder(registry())).listen(&any_port()).unwrap();
    let (uri, progress) = (destination.uri().clone(), destination.progress());
    let received = std::thread::spawn(move || destination.receive(provide));
    let silent: Vec<_> = (0..crowd).map(|_| TcpStream::connect(address(&uri)).unwrap()).collect();
    let began = Instant::now();
    let ram = guest();
    let source = send(&ram, &uri, source).unwrap();
    wait_until(&progress, "the source is through", |stats| {
        stats.channels.iter().all(|channel| channel.wire_bytes > 0)
    });
    let through = began.elapsed();
    // 2 s, were it not for other tests that this machine runs.
    assert!(through < Duration::from_secs(20), "{through:?}");
    // 256 and as many as there are channels, the migration's own and those of the test.
    assert!(threads() < before + 300, "{}", threads());
    let stats = complete(source, PageSet::all(&ram), &ram, received);
    assert_eq!(stats.refused_connections, 0, "those of the source");
    assert!(progress.snapshot().refused_connections >= (crowd - 300) as u64);
    drop(silent);
}

#[test]
fn the_oldest_that_is_silent_gives_way_and_sees_it() {
    let destination = Destination::builder(registry()).channels(1).waiting_connections(4);
    let destination = destination.listen(&any_port()).unwrap();
    let (uri, progress) = (destination.uri().clone(), destination.progress());
    let received = std::thread::spawn(move || destination.receive(provide));
    let mut silent: Vec<_> = (0..6).map(|_| TcpStream::connect(address(&uri)).unwrap()).collect();
    wait_until(&progress, "one has given way", |stats| stats.refused_connections == 1);
    assert_eq!(silent[0].read(&mut [0]).unwrap_or(0), 0);
    let ram = guest();
    let source = send(&ram, &uri, |setup| setup.channels(1)).unwrap();
    complete(source, PageSet::all(&ram), &ram, received);
}

#[test]
fn a_silent_one_has_its_time_and_the_destination_goes_on_waiting() {
    let destination = Destination::builder(registry()).channel_timeout(Duration::from_secs(2));
    let destination = destination.listen(&any_port()).unwrap();
    let (uri, progress) = (destination.uri().clone(), destination.progress());
    let received = std::thread::spawn(move || destination.receive(provide));
    let mut silent = TcpStream::connect(address(&uri)).unwrap();
    let mut channel = TcpStream::connect(address(&uri)).unwrap();
    let initial = multifd::core::wire::InitialPacket::new(Default::default(), 0);
    std::io::Write::write_all(&mut channel, &initial.to_bytes()).unwrap();
    wait_until(&progress, "both have had their time", |stats| stats.refused_connections == 2);
    for stream in [&mut silent, &mut channel] {
        assert_eq!(stream.read(&mut [0]).unwrap_or(0), 0);
    }
    let ram = guest();
    let source = send(&ram, &uri, |setup| setup).unwrap();
    complete(source, PageSet::all(&ram), &ram, received);
}

#[test]
fn a_connection_that_was_reset_before_it_was_accepted_is_of_the_network_that_it_came_from() {
    let listener = Listener::bind(&any_port()).unwrap();
    let uri = listener.uri().clone();
    let mut stranger = TcpStream::connect(address(&uri)).unwrap();
    // All that a main channel says before it counts as one, and then a reset.
    std::io::Write::write_all(&mut stranger, b"QEVM\0\0\0\x03\x01").unwrap();
    let stranger = socket2::Socket::from(stranger);
    stranger.set_linger(Some(Duration::ZERO)).unwrap();
    drop(stranger);
    let destination =
        Destination::builder(registry()).allow_from(["192.0.2.0/24".parse().unwrap()]);
    let destination = destination.listen_on(listener).unwrap();
    let (progress, token) = (destination.progress(), destination.cancel_token());
    let received = std::thread::spawn(move || destination.receive(provide));
    wait_until(&progress, "it is counted", |stats| stats.refused_connections == 1);
    token.cancel();
    assert!(matches!(received.join().unwrap(), Err(Error::Cancelled)));
}

#[test]
fn connections_from_networks_that_are_not_allowed_are_refused_and_others_are_not() {
    let networks = |texts: &[&str]| -> Vec<Network> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    };
    let ram = guest();
    let destination = Destination::builder(registry()).allow_from(networks(&["192.0.2.0/24"]));
    let destination = destination.listen(&any_port()).unwrap();
    let (uri, progress, token) =
        (destination.uri().clone(), destination.progress(), destination.cancel_token());
    let received = std::thread::spawn(move || destination.receive(provide));
    let mut stranger = TcpStream::connect(address(&uri)).unwrap();
    assert_eq!(stranger.read(&mut [0]).unwrap_or(0), 0);
    wait_until(&progress, "it is counted", |stats| stats.refused_connections == 1);
    token.cancel();
    assert!(matches!(received.join().unwrap(), Err(Error::Cancelled)));

    let allowed = networks(&["192.0.2.0/24", "127.0.0.0/8", "::1"]);
    let destination = Destination::builder(registry()).allow_from(allowed);
    let destination = destination.listen(&"tcp::0".parse().unwrap()).unwrap();
    let uri = destination.uri().clone();
    let received = std::thread::spawn(move || destination.receive(provide));
    let source = send(&ram, &uri, |setup| setup).unwrap();
    complete(source, PageSet::all(&ram), &ram, received);

    // Of a Unix socket nothing is said.
    let folder = tempfile::tempdir().unwrap();
    let uri = multifd::Uri::Unix(folder.path().join("sock"));
    let destination = Destination::builder(registry()).allow_from(networks(&["192.0.2.0/24"]));
    let destination = destination.listen(&uri).unwrap();
    let received = std::thread::spawn(move || destination.receive(provide));
    let source = send(&ram, &uri, |setup| setup).unwrap();
    complete(source, PageSet::all(&ram), &ram, received);
}
