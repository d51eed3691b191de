//! Peers that do nothing, and cancellations.

use std::io::Read;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use multifd::{CancelToken, Error, PageSet};

use crate::authority::Authority;
use crate::common::{chain, complete, guest, receive, send};
use crate::peer;

/// For peers that do nothing: soon over.
const LIMIT: Duration = Duration::from_millis(300);
/// More than anything here may take.
const LONG: Duration = Duration::from_secs(60);

#[test]
fn a_destination_that_never_answers_the_handshake_ends_its_source_in_time() {
    let folder = Authority::new().folder();
    let (listener, uri) = peer::listener();
    let sent = send(&guest(), &uri, |setup| setup.connect_timeout(LIMIT).tls(folder.client()));
    let text = chain(&sent.unwrap_err());
    assert!(
        text.contains("no answer to the TLS handshake in time: the destination may not speak TLS"),
        "{text}"
    );
    drop(listener);
}

#[test]
fn a_channel_whose_handshake_is_never_answered_is_said_by_its_number() {
    let folder = Authority::new().folder();
    let (listener, uri) = peer::listener();
    let config = peer::server(&folder, peer::BOTH);
    let (done, over) = channel();
    let accepting = std::thread::spawn(move || {
        let main = peer::accept(&listener, &config);
        let silent = listener.accept().unwrap();
        over.recv().unwrap();
        drop((main, silent));
    });
    let limit = Duration::from_secs(3);
    let sent = send(&guest(), &uri, |setup| setup.connect_timeout(limit).tls(folder.client()));
    let error = sent.unwrap_err();
    assert!(matches!(error, Error::Connect { channel: Some(0), .. }), "{}", chain(&error));
    assert!(chain(&error).starts_with("cannot connect channel 0 to tcp:"), "{}", chain(&error));
    done.send(()).unwrap();
    accepting.join().unwrap();
}

#[test]
fn a_source_is_cancelled_while_its_handshake_hangs() {
    let folder = Authority::new().folder();
    let (listener, uri) = peer::listener();
    let token = CancelToken::new();
    let cancelling = token.clone();
    let cancel = std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        // It has begun.
        socket.read_exact(&mut [0; 5]).unwrap();
        cancelling.cancel();
        socket
    });
    let sent = send(&guest(), &uri, |setup| {
        setup.connect_timeout(LONG).cancelled_by(&token).tls(folder.client())
    });
    let error = sent.unwrap_err();
    assert!(matches!(error, Error::Cancelled), "{}", chain(&error));
    drop(cancel.join().unwrap());
}

#[test]
fn a_client_that_says_nothing_is_cut_off_and_the_next_is_taken() {
    let folder = Authority::new().folder();
    let (uri, received) =
        receive(|setup| setup.channel_timeout(Duration::from_secs(5)).tls(folder.server()));
    let mut silent = peer::plain(&uri);
    let began = Instant::now();
    // The end, or a reset.
    _ = silent.read(&mut [0]);
    assert!(began.elapsed() < LONG);
    let ram = guest();
    let source = send(&ram, &uri, |setup| setup.tls(folder.client())).unwrap();
    complete(source, PageSet::all(&ram), &ram, received);
}

#[test]
fn a_destination_is_cancelled_while_a_handshake_hangs() {
    let folder = Authority::new().folder();
    let token = CancelToken::new();
    let (uri, received) =
        receive(|setup| setup.channel_timeout(LONG).cancelled_by(&token).tls(folder.server()));
    let _silent = peer::plain(&uri);
    token.cancel();
    let error = received.join().unwrap().unwrap_err();
    assert!(matches!(error, Error::Cancelled), "{error}");
}

#[test]
fn a_destination_that_stops_reading_ends_its_source_with_what_was_waited_for() {
    let folder = Authority::new().folder();
    let (listener, uri) = peer::listener();
    let config = peer::server(&folder, peer::BOTH);
    let client = folder.client();
    let (done, over) = channel();
    let sent = std::thread::spawn(move || {
        let ram = guest();
        // It holds while the connections are set up, too.
        let limit = Some(Duration::from_secs(3));
        let sent = send(&ram, &uri, |setup| setup.progress_timeout(limit).tls(client));
        let failed = sent.and_then(|mut source| {
            loop {
                source.round(&PageSet::all(&ram))?;
            }
            #[allow(unreachable_code, reason = "it says the type")]
            Ok(())
        });
        done.send(()).unwrap();
        failed.unwrap_err()
    });
    let connections: Vec<_> = (0..3).map(|_| peer::accept(&listener, &config)).collect();
    over.recv_timeout(LONG).unwrap();
    let error = sent.join().unwrap();
    assert!(matches!(error, Error::Stalled { .. }), "{}", chain(&error));
    drop(connections);
}

#[test]
fn a_source_that_stops_within_its_main_channel_ends_its_destination() {
    let folder = Authority::new().folder();
    let (uri, received) = receive(|setup| setup.progress_timeout(Some(LIMIT)).tls(folder.server()));
    let mut connection = peer::connect(&uri, &folder);
    std::io::Write::write_all(&mut connection, b"QEVM\0\0\0\x03\x07\0\0\0\x02pc").unwrap();
    let error = received.join().unwrap().unwrap_err();
    assert!(matches!(error, Error::Stalled { .. }), "{}", chain(&error));
}
