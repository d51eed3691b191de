//! Peers that do nothing, and cancellations.

use std::io::Read;
use std::time::Duration;

use multifd::{CancelToken, Error};

use crate::common::{chain, guest, receive, send};
use crate::hello::Hello;
use crate::{SECRET, arrives_behind, peer, token};

/// For peers that do nothing: soon over.
const LIMIT: Duration = Duration::from_millis(300);
/// More than anything here may take.
const LONG: Duration = Duration::from_secs(60);

#[test]
fn a_destination_that_never_answers_the_hello_ends_its_source_in_time() {
    let (listener, uri) = peer::listener();
    let sent = send(&guest(), &uri, |setup| setup.connect_timeout(LIMIT).token(token()));
    let text = chain(&sent.unwrap_err());
    assert!(text.contains("no answer to the token's hello in time"), "{text}");
    drop(listener);
}

#[test]
fn a_source_is_cancelled_while_its_hello_hangs() {
    let (listener, uri) = peer::listener();
    let cancel = CancelToken::new();
    let cancelling = cancel.clone();
    let cancelled = std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        // It has begun.
        socket.read_exact(&mut [0; 64]).unwrap();
        cancelling.cancel();
        socket
    });
    let sent = send(&guest(), &uri, |setup| {
        setup.connect_timeout(LONG).cancelled_by(&cancel).token(token())
    });
    let error = sent.unwrap_err();
    assert!(matches!(error, Error::Cancelled), "{}", chain(&error));
    drop(cancelled.join().unwrap());
}

#[test]
fn a_destination_is_cancelled_while_a_hello_hangs_and_while_a_channel_waits_for_its_main_channel() {
    for whole in [false, true] {
        let cancel = CancelToken::new();
        let (uri, received) =
            receive(|setup| setup.channel_timeout(LONG).cancelled_by(&cancel).token(token()));
        let mut channel = peer::plain(&uri);
        let hello = Hello::new(SECRET, [1; 16], Some(0));
        match whole {
            true => hello.say(&mut channel).unwrap(),
            false => std::io::Write::write_all(&mut channel, &hello.request()).unwrap(),
        }
        cancel.cancel();
        let error = received.join().unwrap().unwrap_err();
        assert!(matches!(error, Error::Cancelled), "{error}");
    }
}

#[test]
fn whoever_stops_within_the_hello_is_cut_off_and_the_next_is_taken() {
    let limit = Duration::from_secs(2);
    let (uri, received) = receive(|setup| setup.channel_timeout(limit).token(token()));
    let mut stopped = Vec::new();
    let request = Hello::new(SECRET, [1; 16], None).request();
    for bytes in [0, 3, 4, 8, 63, 64] {
        let mut stranger = peer::plain(&uri);
        std::io::Write::write_all(&mut stranger, &request[..bytes]).unwrap();
        stopped.push(stranger);
    }
    // And a channel whose main channel never comes.
    let mut channel = peer::plain(&uri);
    Hello::new(SECRET, [1; 16], Some(0)).say(&mut channel).unwrap();
    stopped.push(channel);
    for stranger in &mut stopped {
        // To the end, or a reset.
        _ = stranger.read_to_end(&mut Vec::new());
    }
    let refused = arrives_behind(7, &uri, received, |setup| setup.token(token()));
    assert_eq!(refused.connections, 7, "{refused:?}");
}
