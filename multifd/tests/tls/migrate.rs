//! Migrations that go through.

use std::sync::Arc;

use multifd::core::Compression;
use multifd::relay::Relay;
use multifd::tls::{ClientTls, Clients, ServerTls};
use multifd::{Destination, Outgoing, PageSet, Source};

use crate::authority::Authority;
use crate::common::{
    all_compressions, any_port, assert_equal, complete, guest, handed_in, provide, receive,
    registry, send,
};
use crate::peer;

/// Sends a guest in two rounds over TLS, and compares.
pub(crate) fn migrate(compression: Compression, client: &ClientTls, server: &ServerTls) {
    let ram = guest();
    let (uri, received) =
        receive(|setup| setup.compression(compression).channels(3).tls(server.clone()));
    let mut source =
        send(&ram, &uri, |setup| setup.compression(compression).channels(3).tls(client.clone()))
            .unwrap();
    source.round(&PageSet::all(&ram)).unwrap();
    let stats = complete(source, PageSet::all(&ram), &ram, received);
    assert_eq!(stats.channels.len(), 3, "{compression:?}");
}

#[test]
fn every_codec_moves_every_page() {
    let folder = Authority::new().folder();
    for compression in all_compressions() {
        migrate(compression, &folder.client(), &folder.server());
    }
}

#[test]
fn each_version_of_tls_alone_moves_every_page_in_either_direction() {
    let folder = Authority::new().folder();
    for versions in [peer::TLS12, peer::TLS13] {
        let client = ClientTls::from(peer::client(&folder, versions));
        migrate(Compression::None, &client, &folder.server());
        // With tickets, which nobody asks for.
        let server = ServerTls::from(peer::server(&folder, versions));
        migrate(Compression::None, &folder.client(), &server);
    }
}

#[test]
fn without_a_return_path_everything_arrives_too() {
    let folder = Authority::new().folder();
    for server in [folder.server(), peer::server(&folder, peer::BOTH).into()] {
        let ram = guest();
        let (uri, received) = receive(|setup| setup.tls(server));
        let source = send(&ram, &uri, |setup| setup.return_path(false).tls(folder.client()));
        source.unwrap().finish(&PageSet::all(&ram), None).unwrap();
        let arrived = received.join().unwrap().unwrap();
        assert_equal(&ram, &arrived.ram);
        arrived.confirm().unwrap();
    }
}

#[test]
fn connections_that_the_program_brings_are_encrypted_as_others_are() {
    let folder = Authority::new().folder();
    let registry = registry();
    let destination = Destination::builder(&registry).tls(folder.server());
    let destination = destination.without_listener().unwrap();
    let pair = || handed_in(&destination);
    let (main, channels) = (pair(), [pair(), pair()]);
    let ram = guest();
    let received = std::thread::spawn(move || destination.receive(provide));
    // A Unix socket has no name.
    let client = folder.client().hostname("localhost").unwrap();
    let source = Source::builder(&registry, Arc::clone(&ram)).tls(client);
    let source = source.connect_over(main, channels).unwrap();
    complete(source, PageSet::all(&ram), &ram, received);
}

#[test]
fn a_relay_speaks_tls_on_either_side_and_on_both() {
    let folder = Authority::new().folder();
    for (from, to) in [(true, true), (true, false), (false, true)] {
        let (ram, registry) = (guest(), registry());
        let (uri, received) = receive(|setup| match to {
            true => setup.compression(Compression::Zstd).channels(3).tls(folder.server()),
            false => setup.compression(Compression::Zstd).channels(3),
        });
        let mut relay = Relay::builder(&registry).to_compression(Compression::Zstd).to_channels(3);
        if from {
            relay = relay.from_tls(folder.server());
        }
        if to {
            relay = relay.to_tls(folder.client());
        }
        let relay = relay.listen(&any_port(), &uri).unwrap();
        let at = relay.uri().clone();
        let relayed = std::thread::spawn(move || relay.run());
        let source = send(&ram, &at, |setup| match from {
            true => setup.tls(folder.client()),
            false => setup,
        });
        complete(source.unwrap(), PageSet::all(&ram), &ram, received);
        assert!(relayed.join().unwrap().unwrap().confirmed, "{from} {to}");
    }
}

#[test]
fn a_relay_encrypts_connections_to_the_destination_that_the_program_brings() {
    let folder = Authority::new().folder();
    let registry = registry();
    let destination = Destination::builder(&registry).channels(1).tls(folder.server());
    let destination = destination.without_listener().unwrap();
    let pair = || handed_in(&destination);
    let to = Outgoing::over(pair(), [pair()]);
    let received = std::thread::spawn(move || destination.receive(provide));
    let relay = Relay::builder(&registry).to_tls(folder.client().hostname("127.0.0.1").unwrap());
    let listener = multifd::Listener::bind(&any_port()).unwrap();
    let relay = relay.listen_on(listener, to).unwrap();
    let at = relay.uri().clone();
    let relayed = std::thread::spawn(move || relay.run());
    let ram = guest();
    let source = send(&ram, &at, |setup| setup).unwrap();
    complete(source, PageSet::all(&ram), &ram, received);
    assert!(relayed.join().unwrap().unwrap().confirmed);
}

#[test]
fn a_destination_may_do_without_client_certificates_or_allow_some_names_alone() {
    let folder = Authority::new().folder();
    for allowed in ["CN=client,O=Example", "*.example", "source.example"] {
        let clients = Clients::Named(vec!["no one".into(), allowed.into()]);
        migrate(Compression::None, &folder.client(), &folder.server_for(clients));
    }
    let server = folder.server_for(Clients::Unchecked);
    folder.remove("client-cert.pem");
    folder.remove("client-key.pem");
    migrate(Compression::None, &folder.client(), &server);
}

#[test]
fn a_list_of_what_is_revoked_lets_the_others_in() {
    let authority = Authority::new();
    let folder = authority.folder();
    authority.revoke(&folder, false, 2099);
    migrate(Compression::None, &folder.client(), &folder.server());
}
