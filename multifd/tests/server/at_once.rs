//! Migrations one after another and at once, each of which arrives as it was sent.

use std::sync::Arc;

use multifd::core::Compression;
use multifd::relay::Relay;
use multifd::server::Server;
use multifd::token::Token;
use multifd::{Destination, Uri};

use crate::common::{any_port, assert_equal, provide, registry};
use crate::{Guests, new_guest, next, send, send_from, take_all};

#[test]
fn one_after_another_from_one_host() {
    let server = Server::builder().listen(&any_port()).unwrap();
    let (uri, guests) = (server.uris()[0].clone(), Guests::default());
    let sent = std::thread::spawn({
        let guests = Arc::clone(&guests);
        move || {
            for number in 1..=10 {
                send(&uri, new_guest(&guests, number), |setup| setup).join().unwrap().unwrap();
            }
        }
    });
    take_all(&server, &guests, 10);
    sent.join().unwrap();
    assert_eq!(server.refusals()(), []);
}

#[test]
fn the_same_vm_again_and_again() {
    let server = Server::builder().listen(&any_port()).unwrap();
    let (uri, guests) = (server.uris()[0].clone(), Guests::default());
    let guest = new_guest(&guests, 1);
    let sent = std::thread::spawn(move || {
        for _ in 0..10 {
            send(&uri, guest.clone(), |setup| setup).join().unwrap().unwrap();
        }
    });
    take_all(&server, &guests, 10);
    sent.join().unwrap();
}

#[test]
fn at_once_from_different_hosts() {
    let server = Server::builder().listen(&any_port()).unwrap();
    let (uri, guests) = (server.uris()[0].clone(), Guests::default());
    let sent: Vec<_> =
        (1..=12).map(|host| send_from(host, &uri, new_guest(&guests, host))).collect();
    take_all(&server, &guests, 12);
    sent.into_iter().for_each(|sent| drop(sent.join().unwrap().unwrap()));
}

fn token() -> Token {
    Token::new(b"the secret of both of the sides!").unwrap()
}

#[test]
fn at_once_from_one_host_with_a_token() {
    let server = Server::builder().token(token()).listen(&any_port()).unwrap();
    let (uri, guests) = (server.uris()[0].clone(), Guests::default());
    let sent: Vec<_> = (1..=16)
        .map(|number| send(&uri, new_guest(&guests, number), |setup| setup.token(token())))
        .collect();
    take_all(&server, &guests, 16);
    sent.into_iter().for_each(|sent| drop(sent.join().unwrap().unwrap()));
    assert_eq!(server.refusals()(), []);
}

/// A relay that serves `count` migrations on their way to `to`, and what it was told of them.
fn relay(server: Server, to: Uri, count: usize) -> std::thread::JoinHandle<Vec<String>> {
    std::thread::spawn(move || {
        let relayed: Vec<_> = (0..count)
            .map(|_| {
                let (newcomer, to) = (next(&server), to.clone());
                let name = format!("{} from {}", newcomer.uuid(), newcomer.peer());
                let registry = registry();
                let builder = Relay::builder(&registry).to_compression(Compression::Zstd);
                let builder = builder.to_token(token());
                let relay = builder.serve(newcomer, &to).unwrap();
                std::thread::spawn(move || {
                    assert!(relay.run().unwrap().confirmed);
                    name
                })
            })
            .collect();
        relayed.into_iter().map(|relayed| relayed.join().unwrap()).collect()
    })
}

#[test]
fn through_a_relay_that_serves_to_a_destination_that_does() {
    let behind = Server::builder().token(token()).listen(&any_port()).unwrap();
    let server = Server::builder().token(token()).listen(&any_port()).unwrap();
    let (uri, guests) = (server.uris()[0].clone(), Guests::default());
    let relayed = relay(server, behind.uris()[0].clone(), 8);
    let sent: Vec<_> = (1..=8)
        .map(|number| send(&uri, new_guest(&guests, number), |setup| setup.token(token())))
        .collect();
    let taken = std::thread::spawn({
        let guests = Arc::clone(&guests);
        move || {
            let registry = registry();
            let taken: Vec<_> = (0..8)
                .map(|_| {
                    let (newcomer, guests) = (next(&behind), Arc::clone(&guests));
                    let destination = Destination::builder(&registry)
                        .compression(Compression::Zstd)
                        .serve(newcomer)
                        .unwrap();
                    std::thread::spawn(move || {
                        let arrived = destination.receive(provide).unwrap();
                        let sent = Arc::clone(&guests.lock().unwrap()[&arrived.vm.uuid.0]);
                        assert_equal(&sent, &arrived.ram);
                        arrived.confirm().unwrap();
                    })
                })
                .collect();
            taken.into_iter().for_each(|taken| taken.join().unwrap());
        }
    });
    sent.into_iter().for_each(|sent| drop(sent.join().unwrap().unwrap()));
    taken.join().unwrap();
    let mut names = relayed.join().unwrap();
    names.sort();
    assert!(names[0].starts_with("01010101-0101-0101-0101-010101010101 from 127.0.0.1:"));
}
