//! Many migrations at one address.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[path = "../common/mod.rs"]
mod common;

mod at_once;
mod strangers;
mod taking;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use multifd::core::ram::Ram;
use multifd::core::wire::Uuid;
use multifd::server::{Newcomer, Server};
use multifd::{Connection, Destination, PageSet, Source, SourceBuilder, Stats, Unfinished, Uri};
use socket2::{Domain, Socket, Type};

use common::{assert_equal, guest, provide, registry};

/// Guests by their UUIDs, each of which differs from the others.
type Guests = Arc<Mutex<HashMap<[u8; 16], Arc<Ram>>>>;

/// A guest of its own, with its UUID.
fn new_guest(guests: &Guests, number: u8) -> (Uuid, Arc<Ram>) {
    let (uuid, ram) = (Uuid([number; 16]), guest());
    for page in 0..64 {
        common::fill(&ram, "pc.ram", page, number);
    }
    guests.lock().unwrap().insert(uuid.0, Arc::clone(&ram));
    (uuid, ram)
}

/// Takes a migration in, and confirms it if its RAM is that of the guest with its UUID.
fn take(newcomer: Newcomer, guests: &Guests) -> Stats {
    let sent = Arc::clone(&guests.lock().unwrap()[&newcomer.uuid().0]);
    let registry = registry();
    let destination = Destination::builder(&registry).serve(newcomer).unwrap();
    let arrived = destination.receive(provide).unwrap();
    assert_equal(&sent, &arrived.ram);
    arrived.confirm().unwrap()
}

/// The next migration, which is to come soon.
fn next(server: &Server) -> Newcomer {
    let (token, (came, waits)) = (server.cancel_token(), mpsc::channel::<()>());
    std::thread::spawn(move || {
        if waits.recv_timeout(Duration::from_secs(60)) == Err(RecvTimeoutError::Timeout) {
            token.cancel();
        }
    });
    let newcomer = server.next().unwrap();
    drop(came);
    newcomer
}

/// Takes `count` migrations in, each in a thread of its own.
fn take_all(server: &Server, guests: &Guests, count: usize) {
    let taken: Vec<_> = (0..count)
        .map(|_| {
            let (newcomer, guests) = (next(server), Arc::clone(guests));
            std::thread::spawn(move || take(newcomer, &guests))
        })
        .collect();
    taken.into_iter().for_each(|taken| drop(taken.join().unwrap()));
}

/// Sends a guest in two rounds.
fn migrate(source: Result<Source, multifd::Error>, ram: &Ram) -> Result<Stats, Unfinished> {
    let mut source = source?;
    source.round(&PageSet::all(ram))?;
    source.finish(&PageSet::all(ram), None)
}

/// Sends a guest from a thread of its own.
fn send(
    uri: &Uri,
    (uuid, ram): (Uuid, Arc<Ram>),
    setup: impl FnOnce(SourceBuilder<'_>) -> SourceBuilder<'_> + Send + 'static,
) -> JoinHandle<Result<Stats, Unfinished>> {
    let uri = uri.clone();
    std::thread::spawn(move || {
        let registry = registry();
        let source = setup(Source::builder(&registry, Arc::clone(&ram)).uuid(uuid)).connect(&uri);
        migrate(source, &ram)
    })
}

/// A connection to `uri` from the address 127.0.0.`host`.
fn connect_from(uri: &Uri, host: u8) -> Socket {
    let Uri::Tcp { port, .. } = uri else { panic!("{uri}") };
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, host], 0)).into()).unwrap();
    socket.connect(&SocketAddr::from(([127, 0, 0, 1], *port)).into()).unwrap();
    socket
}

/// As [`send`], from the address 127.0.0.`host`.
fn send_from(
    host: u8,
    uri: &Uri,
    (uuid, ram): (Uuid, Arc<Ram>),
) -> JoinHandle<Result<Stats, Unfinished>> {
    let uri = uri.clone();
    std::thread::spawn(move || {
        let connect = || Connection::from_socket(connect_from(&uri, host)).unwrap();
        let main = connect();
        let channels = [connect(), connect()];
        let registry = registry();
        let source = Source::builder(&registry, Arc::clone(&ram)).uuid(uuid);
        migrate(source.connect_over(main, channels), &ram)
    })
}
