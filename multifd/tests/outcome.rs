//! Whose the guest is when a migration ends, at the source and at a relay: what was written and what
//! was heard decide it, not which thread came first.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread::JoinHandle;

use common::{any_port, ram, registry};
use multifd::core::PageSize;
use multifd::relay::{Relay, Relayed};
use multifd::stream::FullSection;
use multifd::{CancelToken, Error, PageSet, Source, Stats, Unfinished, Uri};

/// Often enough for every order of threads.
const TIMES: usize = 100;

const CONFIRMED: [u8; 8] = [0, 1, 0, 4, 0, 0, 0, 0];
const REFUSED: [u8; 8] = [0, 1, 0, 4, 0, 0, 0, 1];

/// A destination that reads everything and says what a test has it say.
struct Peer {
    main: TcpStream,
    channels: Vec<JoinHandle<()>>,
}

impl Peer {
    fn accept(listener: &TcpListener) -> Self {
        let main = listener.accept().unwrap().0;
        let read = |_| {
            let mut channel = listener.accept().unwrap().0;
            std::thread::spawn(move || _ = channel.read_to_end(&mut Vec::new()))
        };
        Self { main, channels: (0..2).map(read).collect() }
    }

    /// Reads the main channel up to behind `mark`.
    fn read_to(&mut self, mark: &[u8]) {
        let mut last = vec![0; mark.len()];
        while last != mark {
            last.rotate_left(1);
            self.main.read_exact(last.last_mut().map(std::slice::from_mut).unwrap()).unwrap();
        }
    }

    fn close(self) {
        drop(self.main);
        self.channels.into_iter().for_each(|channel| channel.join().unwrap());
    }
}

/// What the last bytes of the device state are, and some at its start.
const END: &[u8] = b"]}";
const BEGIN: &[u8] = b"the first registers";

fn device_state(bytes: usize) -> Vec<u8> {
    let body = [BEGIN, &vec![7; bytes]].concat();
    FullSection { name: "vcpu", version: 1, body: &body }.to_device_state(PageSize::Kib4).unwrap()
}

/// More than the sockets hold.
const LARGE: usize = 32 << 20;

fn listener() -> (TcpListener, Uri) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let uri = format!("tcp:{}", listener.local_addr().unwrap()).parse().unwrap();
    (listener, uri)
}

type Sent = JoinHandle<Result<Stats, Unfinished>>;

fn source(
    to: Uri,
    return_path: bool,
    state: usize,
) -> (std::sync::mpsc::Receiver<CancelToken>, Sent) {
    let (give, token) = std::sync::mpsc::channel();
    let sent = std::thread::spawn(move || {
        let ram = ram(&[("pc.ram", 64 << 10)]);
        let setup =
            Source::builder(&registry(), ram.clone()).return_path(return_path).connect(&to)?;
        give.send(setup.cancel_token()).unwrap();
        setup.finish(&PageSet::all(&ram), Some(&device_state(state)))
    });
    (token, sent)
}

/// A migration of which everything has been sent, and nothing been answered; and what becomes of it
/// by `then`.
fn everything_sent(then: impl FnOnce(&mut Peer, &CancelToken)) -> Result<Stats, Unfinished> {
    let (listener, uri) = listener();
    let (token, sent) = source(uri, true, 100);
    let mut peer = Peer::accept(&listener);
    peer.read_to(END);
    then(&mut peer, &token.recv().unwrap());
    peer.main.shutdown(std::net::Shutdown::Write).unwrap();
    let sent = sent.join().unwrap();
    peer.close();
    sent
}

#[test]
fn a_cancelled_source_that_has_sent_everything_does_not_know() {
    for _ in 0..TIMES {
        let sent = everything_sent(|_, token| token.cancel());
        assert!(matches!(sent, Err(Unfinished::Unclear(Error::Cancelled))), "{sent:?}");
    }
}

#[test]
fn a_source_whose_destination_goes_without_a_word_does_not_know() {
    for _ in 0..TIMES {
        let sent = everything_sent(|_, _| ());
        assert!(matches!(sent, Err(Unfinished::Unclear(Error::DestinationGone))), "{sent:?}");
    }
}

#[test]
fn a_word_that_came_before_the_cancellation_counts() {
    for _ in 0..TIMES {
        let sent = everything_sent(|peer, token| {
            peer.main.write_all(&CONFIRMED).unwrap();
            token.cancel();
        });
        assert!(sent.is_ok(), "{sent:?}");
        let sent = everything_sent(|peer, token| {
            peer.main.write_all(&REFUSED).unwrap();
            token.cancel();
        });
        assert!(matches!(sent, Err(Unfinished::Failed(_))), "{sent:?}");
    }
}

/// A confirmation of which a bit or a byte has changed, so that it reads as a refusal.
const CHANGED: [[u8; 8]; 2] = [[0, 1, 0, 4, 0, 8, 0, 0], [0, 1, 0, 4, 4, 0, 0, 0]];

#[test]
fn a_source_that_hears_a_status_that_no_destination_says_does_not_know() {
    for word in CHANGED {
        let sent = everything_sent(|peer, _| peer.main.write_all(&word).unwrap());
        assert!(
            matches!(sent, Err(Unfinished::Unclear(Error::DestinationFailed(2..)))),
            "{sent:?}"
        );
        let text = std::error::Error::source(&sent.unwrap_err()).unwrap().to_string();
        assert!(text.contains(", which may have changed on its way)"), "{text}");
    }
}

#[test]
fn a_relay_that_passes_such_a_status_on_does_not_know_nor_does_its_source() {
    for word in CHANGED {
        let (relayed, sent) = everything_relayed(|peer, _| peer.main.write_all(&word).unwrap());
        assert!(matches!(relayed, Err(Unfinished::Unclear(Error::DestinationRefused(2..)))));
        assert!(
            matches!(sent, Err(Unfinished::Unclear(Error::DestinationFailed(2..)))),
            "{sent:?}"
        );
    }
}

#[test]
fn an_unclear_end_says_what_to_do_and_why() {
    let error = everything_sent(|_, token| token.cancel()).unwrap_err();
    assert!(error.to_string().contains("look there before the guest goes on"), "{error}");
    assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "cancelled");
}

#[test]
fn a_source_cancelled_in_its_device_state_still_has_the_guest() {
    for return_path in [true, false] {
        for _ in 0..10 {
            let (listener, uri) = listener();
            let (token, sent) = source(uri, return_path, LARGE);
            let mut peer = Peer::accept(&listener);
            peer.read_to(BEGIN);
            token.recv().unwrap().cancel();
            let sent = sent.join().unwrap();
            assert!(matches!(sent, Err(Unfinished::Failed(Error::Cancelled))), "{sent:?}");
            peer.close();
        }
    }
}

#[test]
fn a_confirmation_in_the_middle_of_the_device_state_is_too_early() {
    for _ in 0..10 {
        let (listener, uri) = listener();
        let (_token, sent) = source(uri, true, LARGE);
        let mut peer = Peer::accept(&listener);
        peer.read_to(BEGIN);
        peer.main.write_all(&CONFIRMED).unwrap();
        let sent = sent.join().unwrap();
        assert!(matches!(sent, Err(Unfinished::Failed(Error::EarlyConfirmation))), "{sent:?}");
        peer.close();
    }
}

#[test]
fn without_a_return_path_a_source_is_done_when_everything_is_written() {
    for _ in 0..TIMES {
        let (listener, uri) = listener();
        let (token, sent) = source(uri, false, 100);
        let mut peer = Peer::accept(&listener);
        peer.read_to(END);
        sent.join().unwrap().unwrap();
        token.recv().unwrap().cancel();
        peer.close();
    }
}

/// A relayed migration of which everything has been sent, and nothing been answered; and what
/// becomes of it by `then`: for the relay and for the source.
fn everything_relayed(
    then: impl FnOnce(&mut Peer, &CancelToken),
) -> (Result<Relayed, Unfinished>, Result<Stats, Unfinished>) {
    let (listener, uri) = listener();
    let relay = Relay::builder(&registry()).listen(&any_port(), &uri).unwrap();
    let (from, token) = (relay.uri().clone(), relay.cancel_token());
    let relayed = std::thread::spawn(move || relay.run());
    let (_token, sent) = source(from, true, 100);
    let mut peer = Peer::accept(&listener);
    peer.read_to(END);
    then(&mut peer, &token);
    peer.main.shutdown(std::net::Shutdown::Write).unwrap();
    let ended = (relayed.join().unwrap(), sent.join().unwrap());
    peer.close();
    ended
}

#[test]
fn a_cancelled_relay_that_has_passed_on_everything_does_not_know_nor_does_its_source() {
    for _ in 0..TIMES {
        let (relayed, sent) = everything_relayed(|_, token| token.cancel());
        assert!(matches!(relayed, Err(Unfinished::Unclear(Error::Cancelled))), "{relayed:?}");
        assert!(matches!(sent, Err(Unfinished::Unclear(_))), "{sent:?}");
    }
}

#[test]
fn a_relay_whose_destination_goes_without_a_word_does_not_know() {
    for _ in 0..TIMES {
        let (relayed, sent) = everything_relayed(|_, _| ());
        assert!(matches!(relayed, Err(Unfinished::Unclear(Error::DestinationLeft))), "{relayed:?}");
        assert!(matches!(sent, Err(Unfinished::Unclear(_))), "{sent:?}");
    }
}

#[test]
fn a_word_that_came_before_the_relay_was_cancelled_counts() {
    for _ in 0..TIMES {
        let (relayed, sent) = everything_relayed(|peer, token| {
            peer.main.write_all(&CONFIRMED).unwrap();
            token.cancel();
        });
        // The word is heard, but passing it on may come too late.
        match relayed {
            Ok(relayed) => assert!(relayed.confirmed && sent.is_ok(), "{relayed:?}, {sent:?}"),
            Err(error) => assert!(matches!(error, Unfinished::Unclear(_)), "{error:?}"),
        }
        let (relayed, _) = everything_relayed(|peer, token| {
            peer.main.write_all(&REFUSED).unwrap();
            token.cancel();
        });
        assert!(matches!(relayed, Err(Unfinished::Failed(_))), "{relayed:?}");
    }
}
