//! Whoever else comes.

use std::io::Write;
use std::net::Shutdown;
use std::time::{Duration, Instant};

use multifd::server::Server;

use crate::common::any_port;
use crate::{Guests, connect_from, new_guest, next, send_from, take};

#[test]
fn strangers_hold_nobody_up_and_are_counted_by_reason() {
    let server = Server::builder().channel_timeout(Duration::from_secs(2));
    let server = server.listen(&any_port()).unwrap();
    let (uri, guests, refusals) = (&server.uris()[0], Guests::default(), server.refusals());
    let says = |bytes: &[u8]| {
        let mut stranger = connect_from(uri, 2);
        stranger.write_all(bytes).unwrap();
        stranger
    };
    let strangers = [
        says(b"GET /health HTTP/1.1\r\n\r\n"),
        says(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc"),
        says(b"QEVM\0\0\0\x02"),
        says(b"QEV"),
        says(b""),
    ];
    // A health check.
    let check = connect_from(uri, 2);
    check.shutdown(Shutdown::Both).unwrap();
    let sent = send_from(1, uri, new_guest(&guests, 1));
    take(next(&server), &guests);
    sent.join().unwrap().unwrap();
    let began = Instant::now();
    while refusals() != [("malformed", 3), ("silent", 2)] {
        assert!(began.elapsed() < Duration::from_secs(60), "{:?}", refusals());
        std::thread::sleep(Duration::from_millis(1));
    }
    drop(strangers);
}

#[test]
fn a_silent_one_of_the_sources_own_host_holds_it_up_until_its_time_is_over() {
    let server = Server::builder().channel_timeout(Duration::from_millis(300));
    let server = server.listen(&any_port()).unwrap();
    let (uri, guests) = (&server.uris()[0], Guests::default());
    let _silent = connect_from(uri, 1);
    let sent = send_from(1, uri, new_guest(&guests, 1));
    take(next(&server), &guests);
    sent.join().unwrap().unwrap();
    assert_eq!(server.refusals()(), [("silent", 1)]);
}
