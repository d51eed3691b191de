//! Migrations whose connections prove by a token that they are of them.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[path = "../tls/authority.rs"]
#[allow(dead_code, reason = "the tests of TLS use all of it")]
mod authority;
#[path = "../common/mod.rs"]
mod common;
#[path = "../common/hello.rs"]
mod hello;
#[path = "../tls/peer.rs"]
#[allow(dead_code, reason = "the tests of TLS use all of it")]
mod peer;

mod attempts;
mod hanging;
mod migrate;
mod refused;
mod tls;

use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use multifd::token::Token;
use multifd::{Arrived, Error, PageSet, Refused, SourceBuilder, Unfinished, Uri};

use common::{assert_equal, cause, guest, send};

const SECRET: [u8; 32] = *b"the secret of both of the sides!";

fn token() -> Token {
    Token::new(&SECRET).unwrap()
}

fn other() -> Token {
    Token::new(b"another secret, of somebody else!").unwrap()
}

/// Sends a guest in two rounds. Everything arrives; what was refused before is returned.
fn arrives(
    uri: &Uri,
    received: JoinHandle<Result<Arrived, Error>>,
    setup: impl FnOnce(SourceBuilder<'_>) -> SourceBuilder<'_>,
) -> Refused {
    arrives_behind(0, uri, received, setup)
}

/// As [`arrives`], where so many connections have been refused or are about to be: a source may be done before what it
/// met is written down.
fn arrives_behind(
    connections: u64,
    uri: &Uri,
    received: JoinHandle<Result<Arrived, Error>>,
    setup: impl FnOnce(SourceBuilder<'_>) -> SourceBuilder<'_>,
) -> Refused {
    let ram = guest();
    let mut source = send(&ram, uri, setup).unwrap();
    source.round(&PageSet::all(&ram)).unwrap();
    let last = PageSet::all(&ram);
    let sent = std::thread::spawn(move || source.finish(&last, None));
    let arrived = received.join().unwrap().unwrap();
    assert_equal(&ram, &arrived.ram);
    let began = Instant::now();
    while arrived.refused().connections < connections {
        assert!(began.elapsed() < Duration::from_secs(60), "{:?}", arrived.refused());
        std::thread::sleep(Duration::from_millis(1));
    }
    let refused = arrived.refused();
    arrived.confirm().unwrap();
    sent.join().unwrap().unwrap();
    refused
}

/// The error of a source of a whole VM, whichever step it fails in. Its guest goes on.
fn fails(uri: &Uri, setup: impl FnOnce(SourceBuilder<'_>) -> SourceBuilder<'_>) -> Error {
    let ram = guest();
    let sent = send(&ram, uri, setup).map_err(Unfinished::from);
    let failed = sent.and_then(|source| source.finish(&PageSet::all(&ram), None)).unwrap_err();
    assert!(matches!(failed, Unfinished::Failed(_)), "{}", common::chain(&failed));
    cause(failed)
}
