use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::mpsc::channel;
use std::time::Duration;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::pki_types::PrivateKeyDer;
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};
use socket2::Socket;

use super::*;
use crate::tls::{ClientTls, ServerTls};
use crate::transport::Secure;

const LONG: Duration = Duration::from_secs(60);

/// What a client and a server need, who sends so many tickets.
fn configs(tickets: usize) -> (Arc<ClientConfig>, Arc<ServerConfig>) {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["host".into()]).unwrap();
    let provider = || Arc::new(rustls::crypto::ring::default_provider());
    let key = PrivateKeyDer::Pkcs8(signing_key.serialize_der().into());
    let mut server = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    server.send_tls13_tickets = tickets;
    let mut roots = RootCertStore::empty();
    roots.add(cert.der().clone()).unwrap();
    let client = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (Arc::new(client), Arc::new(server))
}

/// As [`configs`], of a server that wants a certificate, which the client does not have.
fn refusing() -> (Arc<ClientConfig>, Arc<ServerConfig>) {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["host".into()]).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(cert.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots.clone()), provider.clone());
    let key = PrivateKeyDer::Pkcs8(signing_key.serialize_der().into());
    let server = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (Arc::new(client), Arc::new(server))
}

/// Both ends of a connection that is encrypted, the client's first. The server sends so many tickets.
fn pair(tickets: usize) -> (Connection, Connection) {
    let (client, server) = configs(tickets);
    let (near, far) = UnixStream::pair().unwrap();
    let [near, far] = [near, far].map(|socket| Connection::from_socket(socket).unwrap());
    std::thread::scope(|scope| {
        scope.spawn(|| ServerTls::from(server).secure(&far, None).unwrap());
        ClientTls::from(client).secure(&near, Some("host")).unwrap();
    });
    (near, far)
}

#[test]
fn a_read_that_waits_holds_no_write_up_and_bytes_count_as_ciphertext() {
    let (near, far) = pair(0);
    let mut reading = far.clone();
    let (said, heard) = channel();
    let reader = std::thread::spawn(move || {
        let mut byte = [0];
        said.send(()).unwrap();
        reading.read_exact(&mut byte).unwrap();
        byte
    });
    heard.recv().unwrap();
    let before = far.moved();
    let mut writing = far.clone();
    writing.write_all(b"while the other end waits").unwrap();
    let mut text = [0; 25];
    near.clone().read_exact(&mut text).unwrap();
    assert_eq!(&text, b"while the other end waits");
    assert!(far.moved() - before > 25);
    near.clone().write_all(b"x").unwrap();
    assert_eq!(reader.join().unwrap(), *b"x");
}

#[test]
fn much_goes_over_in_both_directions_at_once() {
    let (near, far) = pair(2);
    let bytes: Vec<u8> = (0..3 << 20).map(|at: u32| ((at * 7) >> 3) as u8).collect();
    std::thread::scope(|scope| {
        for connection in [&near, &far] {
            scope.spawn(|| {
                connection.clone().write_all(&bytes).unwrap();
                connection.shut_down(Shutdown::Write);
            });
            scope.spawn(|| {
                let mut read = Vec::new();
                connection.clone().read_to_end(&mut read).unwrap();
                assert!(read == bytes);
            });
        }
    });
}

#[test]
fn tickets_are_nothing_to_be_read() {
    let (near, far) = pair(4);
    // They have come: the socket has something, and the connection has not.
    let (_, line) = near.layer().unwrap();
    line.socket.peek(&mut [std::mem::MaybeUninit::uninit()]).unwrap();
    assert!(near.is_silent() && !near.has_left());
    assert_eq!(near.read_now(&mut [0; 8]).unwrap(), None);
    assert!(near.is_silent());
    far.clone().write_all(b"more").unwrap();
    near.wait_readable().unwrap();
    assert!(!near.is_silent(), "it has been seen, and not been taken");
    let mut bytes = [0; 8];
    assert_eq!(near.read_now(&mut bytes[..1]).unwrap(), Some(1));
    // The rest is not in the socket any more.
    near.wait_readable().unwrap();
    assert_eq!(near.read_now(&mut bytes).unwrap(), Some(3));
    assert!(near.is_silent());
    far.shut_down(Shutdown::Write);
    near.wait_readable().unwrap();
    assert!(!near.is_silent() && near.has_left());
    assert_eq!(near.read_now(&mut bytes).unwrap(), Some(0));
}

#[test]
fn whoever_looks_at_the_same_time_as_another_sees_what_has_come() {
    let (near, far) = pair(0);
    far.clone().write_all(b"all").unwrap();
    near.wait_readable().unwrap();
    // It is not in the socket any more.
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::SeqCst) {
                assert!(!near.is_quiet() && !near.has_nothing_unread() && !near.is_silent());
            }
        });
        let until = std::time::Instant::now() + Duration::from_millis(300);
        while std::time::Instant::now() < until {
            assert!(near.has_more().unwrap());
            assert!(near.wait_readable_for(Some(Duration::from_millis(20))).unwrap());
        }
        over.store(true, Ordering::SeqCst);
    });
}

#[test]
fn what_was_looked_at_in_vain_is_an_error_to_whoever_reads() {
    let (near, far) = pair(0);
    far.clone().write_all(b"all").unwrap();
    // Not a record.
    let (_, line) = far.layer().unwrap();
    line.send(&[0x17, 3, 3, 0, 3, 1, 2, 3]).unwrap();
    let mut bytes = [0; 3];
    near.clone().read_exact(&mut bytes).unwrap();
    for _ in 0..2 {
        near.wait_readable().unwrap();
        assert!(!near.is_silent());
    }
    near.read_now(&mut bytes).unwrap_err();
}

#[test]
fn a_server_that_refuses_a_client_is_heard_by_whoever_writes_after_a_look() {
    let (near, far) = UnixStream::pair().unwrap();
    let [near, far] = [near, far].map(|socket| Connection::from_socket(socket).unwrap());
    let (client, server) = refusing();
    std::thread::scope(|scope| {
        scope.spawn(|| ServerTls::from(server).secure(&far, None).unwrap_err());
        // The client is done before the server has seen that it has no certificate.
        ClientTls::from(client).secure(&near, Some("host")).unwrap();
    });
    for _ in 0..2 {
        near.wait_readable().unwrap();
        assert!(!near.is_silent());
        let error = near.clone().write(b"x").unwrap_err();
        assert!(crate::transport::is_refusal(&error), "{error:?}");
    }
}

#[test]
fn a_connection_is_shut_down_at_once_though_a_write_waits() {
    let (near, _far) = pair(0);
    let writing = near.clone();
    let (over, ended) = channel();
    std::thread::spawn(move || {
        let bytes = vec![0; 1 << 20];
        let mut writing = writing;
        while writing.write(&bytes).is_ok() {}
        over.send(()).unwrap();
    });
    // Until the writer waits for room.
    let mut moved = near.moved();
    loop {
        std::thread::sleep(Duration::from_millis(50));
        if moved == near.moved() {
            break;
        }
        moved = near.moved();
    }
    near.shut_down(Shutdown::Both);
    ended.recv_timeout(LONG).unwrap();
}

#[test]
fn a_connection_is_not_quiet_while_somebody_reads_or_where_a_part_of_a_record_has_come() {
    let (near, far) = pair(0);
    assert!(near.is_quiet());
    let (reading, began) = (near.clone(), std::time::Instant::now());
    let reader = std::thread::spawn(move || reading.clone().read_exact(&mut [0]).unwrap());
    while near.is_quiet() {
        assert!(began.elapsed() < LONG);
    }
    assert!(near.has_nothing_unread());
    far.clone().write_all(b"x").unwrap();
    reader.join().unwrap();
    assert!(near.is_quiet());
    far.line().unwrap().send(&[0x17, 3, 3]).unwrap();
    assert!(!near.is_quiet() && !near.has_nothing_unread(), "it stays in the socket");
    assert!(near.is_silent() && !near.is_quiet());
    assert!(near.has_nothing_unread(), "it has been taken out of the socket");
}

#[test]
fn a_short_message_that_there_is_no_room_for_is_never_heard_and_nothing_is_said_behind_it() {
    let (near, far) = pair(0);
    let (layer, line) = near.layer().unwrap();
    let message = [7; 1000];
    let mut said = 0;
    let refused = loop {
        match layer.say(line, &message) {
            Ok(()) => said += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(refused.source.kind(), ErrorKind::WouldBlock);
    let reading = std::thread::spawn(move || {
        let mut read = Vec::new();
        // The end comes within a record.
        let ended = far.clone().read_to_end(&mut read);
        (read.len(), ended.map(|_| ()).map_err(|error| error.kind()))
    });
    layer.say(line, &message).unwrap_err();
    near.clone().write(&message).unwrap_err();
    near.shut_down(Shutdown::Both);
    drop(near);
    let (count, _) = reading.join().unwrap();
    assert_eq!(count, said * message.len());
}

#[test]
fn a_new_key_is_answered_at_once_by_whoever_reads() {
    let (client, server) = configs(0);
    let (near, far) = UnixStream::pair().unwrap();
    let [near, far] = [near, far].map(|socket| Socket::from(OwnedFd::from(socket)));
    let moved = AtomicU64::new(0);
    let [near, far] = [&near, &far].map(|socket| Line { socket, moved: &moved });
    let client = ClientConnection::new(client, "host".try_into().unwrap()).unwrap();
    let server = ServerConnection::new(server).unwrap();
    let (client, server) = std::thread::scope(|scope| {
        let client = scope.spawn(|| Secured::over(near, client.into(), Take::All).unwrap());
        let server = Secured::over(far, server.into(), Take::All).unwrap();
        (client.join().unwrap(), server)
    });
    for _ in 0..3 {
        // As a peer does whose key is used up.
        lock(&client.session).refresh_traffic_keys().unwrap();
        let text = b"under a new key";
        client.say(near, text).unwrap();
        let mut read = [0; 15];
        assert_eq!(server.read(far, &mut read).unwrap(), text.len());
        assert_eq!(&read, text);
        // The peer's new key, and nothing to be read.
        assert_eq!(client.read_now(near, &mut read).unwrap(), None);
        assert!(!server.pending.load(Ordering::SeqCst));
        server.say(far, b"answer").unwrap();
        assert_eq!(client.read(near, &mut read).unwrap(), 6);
    }
}
