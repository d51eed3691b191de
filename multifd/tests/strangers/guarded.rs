//! Every kind of stranger at every moment, where the source's connections prove by a token that they are of
//! the migration: on their own, and inside of TLS, which a stranger may speak, with a certificate of the CA,
//! or not.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::LazyLock;
use std::thread::JoinHandle;

use multifd::relay::{Relay, Relayed};
use multifd::token::Token;
use multifd::{Arrived, Destination, Error, Progress, Uri};

use crate::authority::{Authority, Folder};
use crate::common::{any_port, assert_equal, provide};
use crate::hello::Hello;
use crate::kinds::{Kind, slowly};
use crate::peer;
use crate::play::{Streams, address, wait_for_channels, wait_until};
use crate::registry;

const SECRET: [u8; 32] = [7; 32];
const MIGRATION: [u8; 16] = [1; 16];

/// What is between a migration's two sides beside the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Plain,
    Tls,
}

/// When a stranger comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    Before,
    While,
    After,
}

/// What a stranger does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Does {
    /// As one where there is no token.
    As(Kind),
    /// Begins a hello, and says no more.
    Requests,
    RequestsAndLeaves,
    /// Says a whole hello, without the token.
    ProvesNothing,
}

static STREAMS: LazyLock<Streams> = LazyLock::new(|| Streams::of(2, |setup| setup));
static FOLDER: LazyLock<Folder> = LazyLock::new(|| Authority::new().folder());

/// A connection.
enum Wire {
    Plain(TcpStream),
    Tls(Box<peer::Client>),
}

impl Wire {
    fn connect(way: Way, uri: &Uri) -> Self {
        match way {
            Way::Plain => Self::Plain(TcpStream::connect(address(uri)).unwrap()),
            Way::Tls => Self::Tls(Box::new(peer::connect(uri, &FOLDER))),
        }
    }

    /// One of the source's, that has proven to be.
    fn of_source(way: Way, uri: &Uri, channel: Option<u8>) -> Self {
        let mut wire = Self::connect(way, uri);
        let binding = match &wire {
            Self::Plain(_) => None,
            Self::Tls(stream) => {
                let label = b"EXPORTER-Channel-Binding";
                Some(stream.conn.export_keying_material([0; 32], label, Some(b"")).unwrap())
            }
        };
        let hello = Hello { binding, ..Hello::new(SECRET, MIGRATION, channel) };
        hello.say(&mut wire).unwrap();
        wire
    }

    /// Nothing more is said.
    fn end(&mut self) {
        match self {
            Self::Plain(stream) => stream.shutdown(Shutdown::Write).unwrap(),
            Self::Tls(stream) => {
                stream.conn.send_close_notify();
                _ = stream.flush();
                _ = stream.sock.shutdown(Shutdown::Write);
            }
        }
    }
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}

impl Does {
    fn all() -> impl Iterator<Item = Self> {
        let own = [Self::Requests, Self::RequestsAndLeaves, Self::ProvesNothing];
        Kind::ALL.into_iter().map(Self::As).chain(own)
    }

    /// Whether it is refused as soon as it has been heard.
    fn is_refused_at_once(self) -> bool {
        use Kind::{AByteASecond, ClosesAtOnce, Resets, Silent, ThreeBytes};

        let waits = matches!(
            self,
            Self::As(ClosesAtOnce | Resets | Silent | ThreeBytes | AByteASecond) | Self::Requests
        );
        !waits
    }

    /// Connects and does what it does. What is returned keeps the connection.
    fn come(self, way: Way, uri: &Uri) -> Option<Wire> {
        if let (Self::As(Kind::Resets), Way::Plain) = (self, way) {
            return Kind::Resets.come(address(uri)).map(Wire::Plain);
        }
        let mut wire = Wire::connect(way, uri);
        let request = Hello::new(SECRET, MIGRATION, Some(0)).request();
        // It may be shut down in the middle.
        match self {
            Self::As(Kind::AByteASecond) => {
                slowly(wire);
                return None;
            }
            Self::As(kind) => {
                _ = wire.write_all(&kind.said()).and_then(|()| wire.flush());
                if kind.leaves() {
                    return None;
                }
                // A source hears what is missing, and goes. One stays.
                if kind.said().len() > 4 && kind.said().starts_with(b"QEVM") {
                    _ = wire.read_to_end(&mut Vec::new());
                    return None;
                }
            }
            Self::Requests => _ = wire.write_all(&request),
            Self::RequestsAndLeaves => {
                _ = wire.write_all(&request);
                return None;
            }
            Self::ProvesNothing => {
                _ = wire.write_all(&request);
                _ = wire.read_exact(&mut [0; 80]);
                _ = wire.write_all(&[&[0; 8][..], &[9; 32]].concat());
            }
        }
        _ = wire.flush();
        Some(wire)
    }
}

/// A migration's receiving side.
struct Receiving {
    uri: Uri,
    progress: Progress,
    received: JoinHandle<Result<Arrived, Error>>,
    relayed: Option<JoinHandle<Relayed>>,
}

fn token() -> Token {
    Token::new(&SECRET).unwrap()
}

fn destination(way: Way) -> Receiving {
    let setup = Destination::builder(registry()).token(token());
    let setup = if way == Way::Tls { setup.tls(FOLDER.server()) } else { setup };
    let destination = setup.listen(&any_port()).unwrap();
    let (uri, progress) = (destination.uri().clone(), destination.progress());
    let received = std::thread::spawn(move || destination.receive(provide));
    Receiving { uri, progress, received, relayed: None }
}

fn relay(way: Way) -> Receiving {
    let behind = destination(Way::Plain);
    let setup = Relay::builder(registry()).from_token(token()).to_token(token());
    let setup = if way == Way::Tls { setup.from_tls(FOLDER.server()) } else { setup };
    let relay = setup.listen(&any_port(), &behind.uri).unwrap();
    let (uri, progress) = (relay.uri().clone(), relay.progress().from);
    let relayed = Some(std::thread::spawn(move || relay.run().unwrap()));
    Receiving { uri, progress, received: behind.received, relayed }
}

/// A migration over `way`, to which a stranger comes who speaks `speaks`. It goes through.
fn migrate(receiving: Receiving, (way, speaks): (Way, Way), does: Does, moment: Moment) {
    let (streams, Receiving { uri, progress, .. }) = (&*STREAMS, &receiving);
    let comes = |now: Moment| {
        if moment != now {
            return None;
        }
        let stranger = does.come(speaks, uri);
        if does.is_refused_at_once() {
            let what = format!("{does:?} {moment:?} is refused");
            wait_until(progress, &what, |stats| stats.refused_connections == 1);
        }
        stranger
    };
    let before = comes(Moment::Before);
    let mut main = Wire::of_source(way, uri, None);
    main.write_all(&streams.main).unwrap();
    main.end();
    wait_until(progress, "the main channel is there", |stats| stats.main_bytes > 0);
    let between = comes(Moment::While);
    let begin = |(number, bytes): (usize, &Vec<u8>)| {
        let mut channel = Wire::of_source(way, uri, Some(number as u8));
        channel.write_all(&bytes[..Streams::FIRST]).and_then(|()| channel.flush()).unwrap();
        channel
    };
    let channels: Vec<_> = streams.channels.iter().enumerate().map(begin).collect();
    wait_for_channels(progress, &format!("{does:?} {moment:?}"));
    let after = comes(Moment::After);
    let end = |(mut channel, bytes): (Wire, &Vec<u8>)| {
        let rest = bytes[Streams::FIRST..].to_vec();
        std::thread::spawn(move || {
            channel.write_all(&rest).unwrap();
            channel.end();
            channel
        })
    };
    let sent: Vec<_> = channels.into_iter().zip(&streams.channels).map(end).collect();
    let arrived = receiving.received.join().unwrap();
    let arrived = arrived.unwrap_or_else(|error| panic!("{does:?} {moment:?}: {error}"));
    assert_equal(&streams.ram, &arrived.ram);
    arrived.confirm().unwrap();
    sent.into_iter().for_each(|sent| drop(sent.join().unwrap()));
    if let Some(relayed) = receiving.relayed {
        relayed.join().unwrap();
    }
    drop((main, before, between, after));
}

/// Strangers of every kind, those that are main channels among them: none is the first.
fn all_come(receiving: fn(Way) -> Receiving, ways: (Way, Way), moments: &[Moment]) {
    for does in Does::all() {
        for &moment in moments {
            migrate(receiving(ways.0), ways, does, moment);
        }
    }
}

const ALL: [Moment; 3] = [Moment::Before, Moment::While, Moment::After];

#[test]
fn whoever_comes_to_a_destination_with_a_token_the_migration_goes_through() {
    all_come(destination, (Way::Plain, Way::Plain), &ALL);
}

#[test]
fn whoever_comes_to_a_relay_with_a_token_the_migration_goes_through() {
    all_come(relay, (Way::Plain, Way::Plain), &ALL);
}

#[test]
fn whoever_comes_without_tls_to_a_destination_with_tls_and_a_token_the_migration_goes_through() {
    all_come(destination, (Way::Tls, Way::Plain), &ALL);
}

#[test]
fn whoever_comes_with_a_certificate_and_without_the_token_the_migration_goes_through() {
    all_come(destination, (Way::Tls, Way::Tls), &ALL);
}

#[test]
fn whoever_comes_with_a_certificate_to_a_relay_and_without_the_token_the_migration_goes_through() {
    all_come(relay, (Way::Tls, Way::Tls), &ALL);
}
