//! A token binds its connection to the TLS session: somebody with a certificate who stands between cannot
//! pass the hello on.

use std::io::{Read, Write};

use multifd::Uri;
use multifd::tls::{ClientTls, ServerTls};

use crate::authority::{Authority, Folder};
use crate::common::{chain, receive};
use crate::hello::Hello;
use crate::{SECRET, arrives, arrives_behind, fails, peer, token};

/// Somebody between a source and the destination at `uri`, who has certificates that both accept and passes
/// the bytes of one connection on: over TLS to the destination, or without.
fn between(folder: &Folder, uri: &Uri, to_tls: bool) -> (Uri, std::thread::JoinHandle<()>) {
    let (listener, at) = peer::listener();
    let config = peer::server(folder, peer::TLS13);
    let mut to: Box<dyn ReadWrite> = match to_tls {
        true => Box::new(peer::connect(uri, folder)),
        false => Box::new(peer::plain(uri)),
    };
    let passing = std::thread::spawn(move || {
        let mut from = peer::accept(&listener, &config);
        let pass = |from: &mut dyn ReadWrite, to: &mut dyn ReadWrite, bytes: usize| {
            let mut buffer = vec![0; bytes];
            from.read_exact(&mut buffer).and_then(|()| to.write_all(&buffer)).is_ok()
        };
        _ = pass(&mut from, &mut *to, 64)
            && pass(&mut *to, &mut from, 80)
            && pass(&mut from, &mut *to, 40);
        from.conn.send_close_notify();
        _ = from.flush();
    });
    (at, passing)
}

trait ReadWrite: Read + Write + Send {}
impl<T: Read + Write + Send> ReadWrite for T {}

#[test]
fn somebody_with_a_certificate_between_the_two_sides_cannot_pass_the_hello_on() {
    let folder = Authority::new().folder();
    let (uri, received) = receive(|setup| setup.tls(folder.server()).token(token()));
    let (at, passing) = between(&folder, &uri, true);
    let text = chain(&fails(&at, |setup| setup.tls(folder.client()).token(token())));
    assert!(text.contains("its token is another one"), "{text}");
    passing.join().unwrap();
    let refused =
        arrives_behind(1, &uri, received, |setup| setup.tls(folder.client()).token(token()));
    assert!(refused.last.unwrap().contains("its token is another one"));
}

#[test]
fn a_proxy_that_ends_tls_before_the_destination_is_named() {
    let folder = Authority::new().folder();
    let (uri, received) = receive(|setup| setup.token(token()));
    let (at, passing) = between(&folder, &uri, false);
    let text = chain(&fails(&at, |setup| setup.tls(folder.client()).token(token())));
    assert!(text.contains("something between them ends it"), "{text}");
    passing.join().unwrap();
    let refused = arrives_behind(1, &uri, received, |setup| setup.token(token()));
    assert!(refused.last.unwrap().contains("something between them ends it"));
}

#[test]
fn a_token_is_not_bound_to_tls_1_2_and_says_so() {
    let folder = Authority::new().folder();
    let client = ClientTls::from(peer::client(&folder, peer::TLS12));
    let (uri, received) = receive(|setup| setup.tls(folder.server()).token(token()));
    let text = chain(&fails(&uri, |setup| setup.tls(client).token(token())));
    assert!(text.contains("a token needs TLS 1.3, and this connection has TLS 1.2"), "{text}");
    let refused =
        arrives_behind(1, &uri, received, |setup| setup.tls(folder.client()).token(token()));
    assert!(refused.last.unwrap().contains("a token needs TLS 1.3"));
    let server = ServerTls::from(peer::server(&folder, peer::TLS12));
    let (uri, _received) = receive(|setup| setup.tls(server).token(token()));
    let text = chain(&fails(&uri, |setup| setup.tls(folder.client()).token(token())));
    assert!(text.contains("a token needs TLS 1.3"), "{text}");
}

#[test]
fn a_hello_as_the_document_says_is_bound_to_what_rustls_exports() {
    let folder = Authority::new().folder();
    let (uri, received) = receive(|setup| setup.tls(folder.server()).token(token()));
    let mut stream = peer::connect(&uri, &folder);
    let exported = stream
        .conn
        .export_keying_material([0; 32], b"EXPORTER-Channel-Binding", Some(b""))
        .unwrap();
    let hello = Hello { binding: Some(exported), ..Hello::new(SECRET, [1; 16], None) };
    // The answer is bound to the same.
    hello.say(&mut stream).unwrap();
    drop(stream);
    arrives(&uri, received, |setup| setup.tls(folder.client()).token(token()));
}
