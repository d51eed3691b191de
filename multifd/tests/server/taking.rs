//! Who is taken, and who is told that there is no place.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use multifd::core::wire::{InitialPacket, Uuid};
use multifd::server::Server;
use multifd::stream::ReturnMessage;
use multifd::{Destination, Error, Unfinished, Uri};
use socket2::Socket;

use crate::common::{announcement_with_return_path, any_port, chain, guest, provide, registry};
use crate::{Guests, connect_from, new_guest, next, send, take};

/// The main channel of a source that listens.
fn main_channel(uri: &Uri, host: u8) -> Socket {
    let mut main = connect_from(uri, host);
    main.write_all(&announcement_with_return_path(&guest())).unwrap();
    main
}

/// A channel that has said no more than what it is.
fn channel(uri: &Uri, host: u8, uuid: u8, number: u8) -> Socket {
    let mut channel = connect_from(uri, host);
    channel.write_all(&InitialPacket::new(Uuid([uuid; 16]), number).to_bytes()).unwrap();
    channel
}

/// What a source hears until it is closed.
fn hears(mut main: &Socket) -> Vec<u8> {
    main.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut heard = Vec::new();
    // Or a reset.
    _ = main.read_to_end(&mut heard);
    heard
}

fn refusal() -> Vec<u8> {
    ReturnMessage::Shut(1).to_bytes().to_vec()
}

/// Waits until as many have been refused for this reason.
fn wait_for(server: &Server, reason: &str, count: u64) {
    let (began, refusals) = (Instant::now(), server.refusals());
    while !refusals().contains(&(reason, count)) {
        assert!(began.elapsed() < Duration::from_secs(60), "{reason}: {:?}", refusals());
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn two_that_begin_at_once_on_one_host_are_both_refused_and_told() {
    let server = Server::builder().listen(&any_port()).unwrap();
    let uri = &server.uris()[0];
    // Each waits until no channel of the one before can come any more.
    for round in 1..=2 {
        let mains = [main_channel(uri, 1), main_channel(uri, 1)];
        let _channels = [channel(uri, 1, 7, 0), channel(uri, 1, 8, 0)];
        for main in mains {
            assert_eq!(hears(&main), refusal());
        }
        // With the channel that showed it.
        wait_for(&server, "indistinct", 3 * round);
    }
    // The next attempt succeeds.
    let guests = Guests::default();
    let sent = send(uri, new_guest(&guests, 1), |setup| setup);
    take(next(&server), &guests);
    sent.join().unwrap().unwrap();
}

#[test]
fn one_too_many_is_told_so_and_the_others_go_on() {
    let server = Server::builder().most_migrations(1).listen(&any_port()).unwrap();
    let (uri, guests) = (&server.uris()[0], Guests::default());
    let sent = send(uri, new_guest(&guests, 1), |setup| setup);
    let first = next(&server);
    let second = main_channel(uri, 2);
    let _channel = channel(uri, 2, 7, 0);
    assert_eq!(hears(&second), refusal());
    take(first, &guests);
    sent.join().unwrap().unwrap();
    // Its place is free again.
    let sent = send(uri, new_guest(&guests, 2), |setup| setup);
    take(next(&server), &guests);
    sent.join().unwrap().unwrap();
}

#[test]
fn a_newcomer_that_is_dropped_is_refused() {
    let server = Server::builder().listen(&any_port()).unwrap();
    let main = main_channel(&server.uris()[0], 1);
    let _channel = channel(&server.uris()[0], 1, 7, 0);
    let newcomer = next(&server);
    assert_eq!(newcomer.uuid(), Uuid([7; 16]));
    assert!(newcomer.peer().starts_with("127.0.0.1:"), "{}", newcomer.peer());
    assert_eq!(newcomer.certificate(), None);
    drop(newcomer);
    assert_eq!(hears(&main), refusal());
    wait_for(&server, "not_taken", 1);
    wait_for(&server, "over", 1);
}

#[test]
fn a_main_channel_without_channels_is_told_so() {
    let server = Server::builder().channel_timeout(Duration::from_millis(200));
    let server = server.listen(&any_port()).unwrap();
    let main = main_channel(&server.uris()[0], 1);
    assert_eq!(hears(&main), refusal());
    wait_for(&server, "no_channels", 1);
    // And a channel without a main channel: one that has gone may have been its own, for a time.
    let alone = channel(&server.uris()[0], 1, 7, 0);
    assert_eq!(hears(&alone), b"");
    wait_for(&server, "no_main_channel", 1);
}

#[test]
fn a_channel_without_a_main_channel_ends_what_may_have_that_and_is_nothing_to_others() {
    let server = Server::builder().listen(&any_port()).unwrap();
    let uri = &server.uris()[0];
    let main = main_channel(uri, 1);
    let _channel = channel(uri, 1, 7, 0);
    let registry = registry();
    let destination = Destination::builder(&registry).serve(next(&server)).unwrap();
    // From elsewhere.
    let _other = channel(uri, 2, 9, 0);
    wait_for(&server, "no_main_channel", 1);
    let _stray = channel(uri, 1, 9, 0);
    let error = destination.receive(provide).unwrap_err();
    assert!(matches!(error, Error::Indistinct), "{}", chain(&error));
    // It hears of it if it had asked for that before.
    let heard = hears(&main);
    assert!(heard.is_empty() || heard == refusal(), "{heard:?}");
}

#[test]
fn a_destination_of_another_vm_refuses_it() {
    let server = Server::builder().listen(&any_port()).unwrap();
    let (uri, guests) = (&server.uris()[0], Guests::default());
    let sent = send(uri, new_guest(&guests, 1), |setup| setup);
    let registry = registry();
    let setup = Destination::builder(&registry).uuid(Some(Uuid([2; 16])));
    let refused = setup.serve(next(&server)).unwrap_err();
    assert!(chain(&refused).contains("01010101"), "{}", chain(&refused));
    let failed = sent.join().unwrap().unwrap_err();
    assert!(matches!(failed, Unfinished::Failed(_)), "{}", chain(&failed));
}

#[test]
fn a_server_that_stops_takes_no_more_and_those_that_run_go_on() {
    let server = Server::builder().listen(&any_port()).unwrap();
    let (uri, guests) = (server.uris()[0].clone(), Guests::default());
    let sent = send(&uri, new_guest(&guests, 1), |setup| setup);
    let running = next(&server);
    server.stop_taking();
    let late = main_channel(&uri, 2);
    let _channel = channel(&uri, 2, 7, 0);
    assert_eq!(hears(&late), refusal());
    wait_for(&server, "stopping", 1);
    take(running, &guests);
    sent.join().unwrap().unwrap();
}

#[test]
fn a_migration_that_has_all_its_channels_outlives_its_server() {
    let server = Server::builder().listen(&any_port()).unwrap();
    let (uri, guests) = (server.uris()[0].clone(), Guests::default());
    let sent = send(&uri, new_guest(&guests, 1), |setup| setup);
    let registry = registry();
    let destination = Destination::builder(&registry).serve(next(&server)).unwrap();
    let arrived = destination
        .receive(|incoming| {
            let ram = provide(incoming);
            // The channels have connected before the source announces its RAM.
            std::thread::sleep(Duration::from_millis(100));
            drop(server);
            ram
        })
        .unwrap();
    arrived.confirm().unwrap();
    sent.join().unwrap().unwrap();
}

#[test]
fn a_server_that_waits_can_be_cancelled_and_leaves_nothing_open() {
    let server = Server::builder().listen(&any_port()).unwrap();
    let uri = server.uris()[0].clone();
    let open = [connect_from(&uri, 1), main_channel(&uri, 2), channel(&uri, 3, 7, 0)];
    let token = server.cancel_token();
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(50));
        token.cancel();
    });
    assert!(matches!(server.next(), Err(Error::Cancelled)));
    drop(server);
    for connection in &open {
        assert_eq!(hears(connection), b"");
    }
}
