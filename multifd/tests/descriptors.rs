//! A program that has no descriptors left while connections come.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{any_port, assert_equal, guest, provide, registry, send};
use multifd::{Destination, PageSet, Threads, Uri};
use rustix::io::dup;
use rustix::net::{AddressFamily, SocketType, connect, socket};
use rustix::process::{Resource, getrlimit, setrlimit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// Says when a warning of accepting is logged.
struct Warnings(Mutex<Sender<()>>);

impl Subscriber for Warnings {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() == Level::WARN && metadata.target().starts_with("multifd::engine::accept")
    }

    fn event(&self, _: &Event<'_>) {
        _ = self.0.lock().unwrap().send(());
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// Limits the numbers that descriptors may have. Returns the limit before.
fn set_limit(descriptors: Option<u64>) -> Option<u64> {
    let mut limit = getrlimit(Resource::Nofile);
    let before = std::mem::replace(&mut limit.current, descriptors);
    setrlimit(Resource::Nofile, limit).unwrap();
    before
}

/// Connects to `uri` while this process can have no further descriptor, until it is said that the
/// connection cannot be accepted.
fn connect_without_descriptors(uri: &Uri, warned: &Receiver<()>, then: impl FnOnce()) -> OwnedFd {
    let Uri::Tcp { host, port } = uri else { panic!("{uri}") };
    let address = SocketAddr::new(host.parse().unwrap(), *port);
    let connecting = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    // The lowest number that is free.
    let free = dup(std::io::stdin()).unwrap().as_raw_fd();
    let before = set_limit(Some(free.try_into().unwrap()));
    let connected = connect(&connecting, &address);
    let warned = warned.recv_timeout(Duration::from_secs(60));
    then();
    set_limit(before);
    connected.unwrap();
    warned.unwrap();
    connecting
}

#[test]
fn a_migration_waits_for_descriptors_and_needs_none_when_it_has_its_channels() {
    let (warnings, warned) = channel();
    tracing::subscriber::set_global_default(Warnings(Mutex::new(warnings))).unwrap();
    let (began, begun) = channel();
    let began = Mutex::new(began);
    let threads = Threads::new().first(move |name| {
        if name == "multifd-recv" {
            began.lock().unwrap().send(()).unwrap();
        }
        Ok(())
    });
    let registry = registry();
    let destination = Destination::builder(&registry).threads(threads);
    let destination = destination.listen(&any_port()).unwrap();
    let uri = destination.uri().clone();
    // A silent stranger gives way to the next: that one is accepted though there are no more.
    let Uri::Tcp { host, port } = &uri else { panic!("{uri}") };
    let mut silent = TcpStream::connect((&host[..], *port)).unwrap();
    begun.recv().unwrap();
    drop(connect_without_descriptors(&uri, &warned, || {
        assert_eq!(silent.read(&mut [0]).unwrap_or(0), 0);
        begun.recv_timeout(Duration::from_secs(60)).unwrap();
        // It is said that it was refused.
        warned.recv_timeout(Duration::from_secs(60)).unwrap();
    }));
    // Before its source comes. It leaves, and is none of the migration's.
    drop(connect_without_descriptors(&uri, &warned, || {}));
    let received = std::thread::spawn(move || destination.receive(provide));
    let ram = guest();
    let source = send(&ram, &uri, |setup| setup).unwrap();
    let sending = Arc::clone(&ram);
    let sent = std::thread::spawn(move || source.finish(&PageSet::all(&sending), None));
    let arrived = received.join().unwrap().unwrap();
    assert_equal(&ram, &arrived.ram);
    // When it has arrived, and nobody else is expected.
    let _late = connect_without_descriptors(&uri, &warned, || {});
    arrived.confirm().unwrap();
    sent.join().unwrap().unwrap();
}
