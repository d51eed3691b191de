//! Peers that are refused, with the cause, and destinations that go on all the same.

use std::io::{Read, Write};
use std::net::Shutdown;

use multifd::relay::Relay;
use multifd::tls::{ClientTls, Clients, ServerTls, TlsError};
use multifd::{Error, PageSet, Side, Source, SourceBuilder, Unfinished, Uri};
use rcgen::date_time_ymd;

use crate::authority::{Authority, Folder};
use crate::common::{any_port, chain, complete, guest, receive, registry, send};
use crate::peer;

/// The error of a source of a whole VM, whichever step it fails in.
fn fails(uri: &Uri, setup: impl FnOnce(SourceBuilder<'_>) -> SourceBuilder<'_>) -> Error {
    let ram = guest();
    let sent = send(&ram, uri, setup).map_err(Unfinished::from);
    let sent = sent.and_then(|source: Source| source.finish(&PageSet::all(&ram), None));
    match sent.unwrap_err() {
        Unfinished::Failed(error) => error,
        unclear @ Unfinished::Unclear(_) => panic!("{}", chain(&unclear)),
    }
}

/// Has a destination refuse one source, which says why, and take the next one's VM in.
fn refuses(server: ServerTls, client: ClientTls, right: ClientTls, why: &[&str]) {
    let (uri, received) = receive(|setup| setup.tls(server));
    let text = chain(&fails(&uri, |setup| setup.tls(client)));
    assert!(why.iter().all(|word| text.contains(word)), "{text}");
    let ram = guest();
    let source = send(&ram, &uri, |setup| setup.tls(right)).unwrap();
    complete(source, PageSet::all(&ram), &ram, received);
}

#[test]
fn a_server_of_another_ca_is_refused() {
    let (folder, other) = (Authority::new().folder(), Authority::new().folder());
    let client = || {
        let mixed = Folder::empty();
        mixed.copy("ca-cert.pem", &other);
        mixed.copy("client-cert.pem", &folder);
        mixed.copy("client-key.pem", &folder);
        mixed.client()
    };
    let why = ["no TLS with the destination at 127.0.0.1", "not of a CA in ca-cert.pem"];
    refuses(folder.server(), client(), folder.client(), &why);
}

#[test]
fn a_client_of_another_ca_is_refused_and_hears_why() {
    let (folder, other) = (Authority::new().folder(), Authority::new().folder());
    other.copy("ca-cert.pem", &folder);
    let why = ["it does not know the CA of this side's certificate"];
    refuses(folder.server(), other.client(), folder.client(), &why);
}

#[test]
fn a_server_for_another_name_is_refused_with_both_names() {
    let authority = Authority::new();
    let folder = authority.folder();
    authority.issue(&folder, "server", |params| {
        params.subject_alt_names =
            vec![rcgen::SanType::DnsName("there.example".try_into().unwrap())];
    });
    let right = || folder.client().hostname("there.example").unwrap();
    let why = ["for there.example, not for 127.0.0.1", "--tls-hostname"];
    refuses(folder.server(), folder.client(), right(), &why);
    let wrong = folder.client().hostname("here.example").unwrap();
    refuses(folder.server(), wrong, right(), &["for there.example, not for here.example"]);
}

#[test]
fn a_server_without_a_name_is_refused_with_what_it_lacks() {
    let authority = Authority::new();
    let folder = authority.folder();
    authority.issue(&folder, "server", |params| params.subject_alt_names.clear());
    let (uri, _received) = receive(|setup| setup.tls(folder.server()));
    let text = chain(&fails(&uri, |setup| setup.tls(folder.client())));
    assert!(text.contains("without a subjectAltName"), "{text}");
}

#[test]
fn a_server_that_has_expired_or_is_not_valid_yet_is_refused_with_the_date() {
    let authority = Authority::new();
    for (from, until, why) in [
        (2001, 2002, "expired (2002-01-01T00:00:00Z)"),
        (2098, 2099, "not valid yet (2098-01-01T00:00:00Z)"),
    ] {
        let folder = authority.folder();
        authority.issue(&folder, "server", |params| {
            params.not_before = date_time_ymd(from, 1, 1);
            params.not_after = date_time_ymd(until, 1, 1);
        });
        let (uri, _received) = receive(|setup| setup.tls(folder.server()));
        let text = chain(&fails(&uri, |setup| setup.tls(folder.client())));
        assert!(text.contains(why), "{text}");
    }
}

#[test]
fn a_client_that_has_expired_is_refused_and_hears_why() {
    let authority = Authority::new();
    let (folder, old) = (authority.folder(), authority.folder());
    authority.issue(&old, "client", |params| {
        params.not_before = date_time_ymd(2001, 1, 1);
        params.not_after = date_time_ymd(2002, 1, 1);
    });
    let why = ["this side's certificate has expired"];
    refuses(folder.server(), old.client(), folder.client(), &why);
}

#[test]
fn a_client_without_a_certificate_is_refused_and_hears_why() {
    let folder = Authority::new().folder();
    let without = Folder::empty();
    without.copy("ca-cert.pem", &folder);
    let why = ["it wants a client certificate"];
    refuses(folder.server(), without.client(), folder.client(), &why);
}

#[test]
fn a_client_that_is_not_on_the_allow_list_is_refused_and_hears_so() {
    let authority = Authority::new();
    let (folder, other) = (authority.folder(), authority.folder());
    authority.issue(&other, "client", |params| params.subject_alt_names.clear());
    let server = folder.server_for(Clients::Named(vec!["*.example".into()]));
    let why = ["has an allow-list without its name"];
    refuses(server, other.client(), folder.client(), &why);
}

#[test]
fn a_client_that_is_revoked_is_refused_and_a_list_that_is_out_of_date_refuses_all() {
    let authority = Authority::new();
    let (folder, good) = (authority.folder(), authority.folder());
    authority.revoke(&folder, true, 2099);
    authority.issue(&good, "client", |params| params.serial_number = None);
    let why = ["this side's certificate is revoked"];
    refuses(folder.server(), folder.client(), good.client(), &why);
    authority.revoke(&folder, false, 2021);
    let (uri, _received) = receive(|setup| setup.tls(folder.server()));
    let text = chain(&fails(&uri, |setup| setup.tls(good.client())));
    assert!(text.contains("the other side refuses this one"), "{text}");
    let (uri, _received) = receive(|setup| setup.tls(good.server()));
    let text = chain(&fails(&uri, |setup| setup.tls(folder.client())));
    assert!(text.contains("ca-crl.pem is out of date"), "{text}");
}

#[test]
fn a_source_without_tls_is_told_what_the_destination_speaks() {
    let folder = Authority::new().folder();
    let (uri, received) = receive(|setup| setup.tls(folder.server()));
    let text = chain(&fails(&uri, |setup| setup));
    assert!(text.contains("the destination speaks TLS, so turn it on here"), "{text}");
    let ram = guest();
    let source = send(&ram, &uri, |setup| setup.tls(folder.client())).unwrap();
    complete(source, PageSet::all(&ram), &ram, received);
}

#[test]
fn a_source_with_tls_says_that_its_destination_has_none() {
    let folder = Authority::new().folder();
    let (uri, received) = receive(|setup| setup);
    let error = fails(&uri, |setup| setup.tls(folder.client()));
    assert!(matches!(error, Error::Tls { .. }), "{}", chain(&error));
    assert!(chain(&error).contains("it does not speak TLS"), "{}", chain(&error));
    // A plain one of QEMU's says nothing, either; what does is named.
    let (listener, uri) = peer::listener();
    let answers = std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        socket.read_exact(&mut [0; 5]).unwrap();
        socket.write_all(b"SSH-2.0-x\r\n").unwrap();
        // A source that has read enough may be gone.
        _ = socket.shutdown(Shutdown::Write);
        socket.read_to_end(&mut Vec::new()).unwrap_or_default()
    });
    let error = fails(&uri, |setup| setup.tls(folder.client()));
    assert!(chain(&error).contains("it is SSH"), "{}", chain(&error));
    answers.join().unwrap();
    drop(received);
}

#[test]
fn a_relay_fails_with_the_side_that_it_refuses_and_waits_on_after_a_source_that_is_none() {
    let (folder, other) = (Authority::new().folder(), Authority::new().folder());
    let (to, _received) = receive(|setup| setup.tls(other.server()));
    let registry = registry();
    let relay = Relay::builder(&registry).from_tls(folder.server()).to_tls(folder.client());
    let relay = relay.listen(&any_port(), &to).unwrap();
    let at = relay.uri().clone();
    let relayed = std::thread::spawn(move || relay.run());
    // That is no source of the relay's: it waits on.
    let text = chain(&fails(&at, |setup| setup.tls(other.client())));
    assert!(text.contains("not of a CA in ca-cert.pem"), "{text}");
    let ram = guest();
    let sent = send(&ram, &at, |setup| setup.tls(folder.client())).map_err(Unfinished::from);
    // All of it may have been written by then.
    sent.and_then(|source| source.finish(&PageSet::all(&ram), None)).unwrap_err();
    let Unfinished::Failed(error) = relayed.join().unwrap().unwrap_err() else {
        panic!("the destination has nothing")
    };
    assert!(matches!(error, Error::Relay { side: Side::To, .. }), "{}", chain(&error));
    assert!(chain(&error).contains("not of a CA in ca-cert.pem"), "{}", chain(&error));
}

#[test]
fn a_stream_of_the_programs_own_and_an_address_without_a_name_are_refused() {
    let folder = Authority::new().folder();
    let registry = registry();
    let given = || multifd::Connection::from_stream(std::io::empty(), std::io::sink(), |_| Ok(()));
    let source = Source::builder(&registry, guest()).tls(folder.client().hostname("a").unwrap());
    let error = source.connect_over(given(), [given()]).unwrap_err();
    assert!(matches!(error, Error::Tls { source: TlsError::NotASocket, .. }), "{error}");
    let (near, _far) = std::os::unix::net::UnixStream::pair().unwrap();
    let near = multifd::Connection::from_socket(near).unwrap();
    let source = Source::builder(&registry, guest()).tls(folder.client());
    let error = source.connect_over(near.clone(), [near]).unwrap_err();
    assert!(matches!(error, Error::Tls { source: TlsError::NoName, .. }), "{error}");
}
