//! Where the kernel has TLS, which `scripts/vm` brings along; elsewhere a line says what was left out. With
//! `MULTIFD_KERNEL_TLS`, nothing may be.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::PrivateKeyDer;
use rustls::{
    CipherSuite, ClientConfig, ClientConnection, ExtractedSecrets, RootCertStore, ServerConfig,
    ServerConnection,
};

use super::keys::{Cipher, Version};
use super::*;
use crate::tls::{ClientTls, End, KernelTls, ServerTls};
use crate::transport::{Connection, Secure};

const LONG: Duration = Duration::from_secs(60);

/// Those of TLS, and whether the kernel has them. All of it is left out where it has none.
fn protections() -> Vec<Protection> {
    let tried = Protection::ALL.map(|protection| Support::of(protection).map(|_| protection));
    if let Some(why) = tried.iter().find_map(|tried| tried.as_ref().err()) {
        assert!(std::env::var_os("MULTIFD_KERNEL_TLS").is_none(), "{why}");
        leave_out(why);
    }
    tried.into_iter().flatten().collect()
}

fn leave_out(why: &str) {
    let line = format!("LEFT OUT: TLS by the kernel, all of it or some ciphers: {why}\n");
    io::stderr().write_all(line.as_bytes()).unwrap();
}

fn tls13() -> Option<Protection> {
    protections().into_iter().find(|protection| protection.version == Version::Tls13)
}

fn suite(Protection { version, cipher }: Protection) -> CipherSuite {
    match (version, cipher) {
        (Version::Tls12, Cipher::Aes128Gcm) => CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        (Version::Tls12, Cipher::Aes256Gcm) => CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        (Version::Tls12, Cipher::ChaCha20Poly1305) => {
            CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
        }
        (Version::Tls13, Cipher::Aes128Gcm) => CipherSuite::TLS13_AES_128_GCM_SHA256,
        (Version::Tls13, Cipher::Aes256Gcm) => CipherSuite::TLS13_AES_256_GCM_SHA384,
        (Version::Tls13, Cipher::ChaCha20Poly1305) => CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
    }
}

/// What a client and a server need, who have this in common alone. The server sends so many tickets.
fn configs(protection: Protection, tickets: usize) -> (ClientConfig, ServerConfig) {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["host".into()]).unwrap();
    let mut provider = rustls::crypto::ring::default_provider();
    provider.cipher_suites.retain(|known| known.suite() == suite(protection));
    let provider = || Arc::new(CryptoProvider { ..provider.clone() });
    let version: &[_] = match protection.version {
        Version::Tls12 => &[&rustls::version::TLS12],
        Version::Tls13 => &[&rustls::version::TLS13],
    };
    let key = PrivateKeyDer::Pkcs8(signing_key.serialize_der().into());
    let mut server = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(version)
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    server.send_tls13_tickets = tickets;
    let mut roots = RootCertStore::empty();
    roots.add(cert.der().clone()).unwrap();
    let client = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(version)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (client, server)
}

/// Whose kernel does it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Both,
    Client,
    Server,
}

impl By {
    fn kernel(self, end: End) -> KernelTls {
        let other = if end == End::Client { Self::Server } else { Self::Client };
        if self == other { KernelTls::Off } else { KernelTls::IfPossible }
    }
}

fn tcp() -> [Connection; 2] {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (far, _) = listener.accept().unwrap();
    [near, far].map(|socket| Connection::from_socket(socket).unwrap())
}

/// Both ends of a connection, the client's first.
fn pair(protection: Protection, by: By, tickets: usize) -> (Connection, Connection) {
    let [near, far] = tcp();
    shake_hands(&near, &far, configs(protection, tickets), by);
    for (connection, end) in [(&near, End::Client), (&far, End::Server)] {
        let is_direct = connection.layer().unwrap().0.direct().is_some();
        assert_eq!(is_direct, by.kernel(end) == KernelTls::IfPossible, "{protection:?} {end:?}");
    }
    (near, far)
}

fn shake_hands(
    near: &Connection,
    far: &Connection,
    (client, server): (ClientConfig, ServerConfig),
    by: By,
) {
    let client = ClientTls::from(Arc::new(client)).kernel(by.kernel(End::Client));
    let server = ServerTls::from(Arc::new(server)).kernel(by.kernel(End::Server));
    std::thread::scope(|scope| {
        scope.spawn(|| server.secure(far, None).unwrap());
        client.secure(near, Some("host")).unwrap();
    });
}

const WAYS: [By; 3] = [By::Both, By::Client, By::Server];

#[test]
fn a_socket_that_is_not_of_tcp_is_encrypted_by_this_library() {
    let (near, far) = std::os::unix::net::UnixStream::pair().unwrap();
    let [near, far] = [near, far].map(|socket| Connection::from_socket(socket).unwrap());
    shake_hands(&near, &far, configs(Protection::ALL[4], 2), By::Both);
    assert!(near.layer().unwrap().0.direct().is_none());
    near.clone().write_all(b"there").unwrap();
    far.clone().write_all(b"and back").unwrap();
    let mut text = [0; 8];
    far.clone().read_exact(&mut text[..5]).unwrap();
    assert_eq!(&text[..5], b"there");
    near.clone().read_exact(&mut text).unwrap();
    assert_eq!(&text, b"and back");
}

#[test]
fn much_goes_over_in_both_directions_at_once_with_every_cipher_and_ends() {
    let bytes: Vec<u8> = (0..1 << 20).map(|at: u32| ((at * 7) >> 3) as u8).collect();
    for protection in protections() {
        for by in WAYS {
            let (near, far) = pair(protection, by, 2);
            std::thread::scope(|scope| {
                for connection in [&near, &far] {
                    scope.spawn(|| {
                        connection.clone().write_all(&bytes).unwrap();
                        connection.shut_down(Shutdown::Write);
                    });
                    scope.spawn(|| {
                        let mut read = Vec::new();
                        connection.clone().read_to_end(&mut read).unwrap();
                        assert!(read == bytes, "{protection:?} {by:?}");
                    });
                }
            });
        }
    }
}

#[test]
fn tickets_are_nothing_to_be_read() {
    let Some(protection) = tls13() else { return };
    for by in [By::Both, By::Client] {
        let (near, far) = pair(protection, by, 4);
        assert!(near.is_silent() && !near.has_left());
        assert_eq!(near.read_now(&mut [0; 8]).unwrap(), None);
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
}

#[test]
fn a_connection_may_end_without_close_notify_but_not_within_a_record() {
    for protection in protections() {
        for part in [&[][..], &[0x17], &[0x17, 3, 3, 0, 40, 1, 2, 3]] {
            let (near, far) = pair(protection, By::Client, 0);
            far.clone().write_all(b"all").unwrap();
            let (_, line) = far.layer().unwrap();
            if !part.is_empty() {
                line.send(part).unwrap();
            }
            line.socket.shutdown(Shutdown::Write).unwrap();
            let mut bytes = [0; 3];
            near.clone().read_exact(&mut bytes).unwrap();
            let end = near.clone().read(&mut bytes);
            if part.is_empty() {
                assert_eq!(end.unwrap(), 0, "{protection:?}");
            } else {
                let text = end.unwrap_err().to_string();
                assert!(
                    text.contains("ended within a TLS record"),
                    "{protection:?} {part:?}: {text}"
                );
            }
        }
    }
}

#[test]
fn what_is_no_record_of_the_session_is_an_error_to_whoever_reads_and_the_peer_is_told() {
    for protection in protections() {
        // Of one that is too long, the kernel looks at no less than a nonce.
        let [forged, long] = [[0x17, 3, 3, 0, 64], [0x17, 3, 3, 0xff, 0xff]]
            .map(|header| [&header[..], &[7; 64]].concat());
        for (record, words) in [(forged, "BadRecordMac"), (long, "RecordOverflow")] {
            let (near, far) = pair(protection, By::Client, 0);
            far.clone().write_all(b"all").unwrap();
            far.layer().unwrap().1.send(&record).unwrap();
            let mut bytes = [0; 3];
            near.clone().read_exact(&mut bytes).unwrap();
            for _ in 0..2 {
                near.wait_readable().unwrap();
                assert!(!near.is_silent(), "{protection:?} {words}");
            }
            let error = near.read_now(&mut bytes).unwrap_err();
            let cause = error.get_ref().unwrap().downcast_ref::<TlsError>();
            assert!(matches!(cause, Some(TlsError::Protocol(_))), "{protection:?}: {error:?}");
            near.read_now(&mut bytes).unwrap_err();
            let heard = far.clone().read(&mut bytes).unwrap_err().to_string();
            assert!(heard.contains(words), "{protection:?}: {heard}");
        }
    }
}

#[test]
fn an_alert_ends_both_directions_whoever_has_heard_it() {
    for protection in protections() {
        let (near, far) = pair(protection, By::Both, 0);
        let line = far.line().unwrap();
        // As a server that does not accept the client's certificate.
        sys::send_record(line.socket, sys::ALERT, &[2, 116], 0).unwrap();
        near.wait_readable().unwrap();
        assert!(!near.is_silent(), "{protection:?}");
        for _ in 0..2 {
            let errors =
                [near.clone().write(b"x").unwrap_err(), near.clone().read(&mut [0]).unwrap_err()];
            assert!(errors.iter().all(crate::transport::is_refusal), "{protection:?} {errors:?}");
        }
    }
}

#[test]
fn new_keys_of_either_side_go_through_where_the_kernel_takes_them() {
    let Some(protection) = tls13() else { return };
    if !Support::of(protection).unwrap().rekeys {
        leave_out("it does not take new keys");
        return;
    }
    let keylog: Arc<dyn rustls::KeyLog> = Arc::new(rustls::NoKeyLog);
    for protection in Protection::ALL.into_iter().filter(|it| it.version == Version::Tls13) {
        let (client, server) = configs(protection, 2);
        let [near, far] = tcp();
        let [near_line, far_line] = [&near, &far].map(|connection| connection.line().unwrap());
        let handover = Handover::of(End::Client, &keylog);
        let mut client = client;
        (client.enable_secret_extraction, client.key_log) = (true, handover.key_log());
        let client = ClientConnection::new(Arc::new(client), "host".try_into().unwrap()).unwrap();
        let server = ServerConnection::new(Arc::new(server)).unwrap();
        let (client, server) = std::thread::scope(|scope| {
            let server = scope.spawn(|| Secured::to_take_over(far_line, server.into()).unwrap());
            (Secured::to_take_over(near_line, client.into()).unwrap(), server.join().unwrap())
        });
        server.take_all();
        let able = Kernel::can(near_line, &client).unwrap();
        let client = Kernel::over(near_line, client, &handover, able).unwrap();
        let mut read = [0; 15];
        for round in 0..3 {
            // As a peer does whose key is used up; it wants one of this side, too.
            server.refresh();
            server.say(far_line, b"under a new key").unwrap();
            assert_eq!(client.read(near_line, &mut read).unwrap(), 15, "{protection:?} {round}");
            assert_eq!(&read, b"under a new key");
            assert!(!client.wants_key.load(Ordering::SeqCst));
            client.say(near_line, b"answer").unwrap();
            assert_eq!(server.read(far_line, &mut read).unwrap(), 6, "{protection:?} {round}");
            lock(&client.output).use_up();
            client
                .write(near_line, 6, &mut |room| {
                    room.copy_from_slice(b"my own");
                    6
                })
                .unwrap();
            assert_eq!(server.read(far_line, &mut read).unwrap(), 6, "{protection:?} {round}");
            assert_eq!(&read[..6], b"my own");
        }
    }
}

#[test]
fn a_key_that_is_used_up_without_a_next_one_ends_the_connection_with_a_word() {
    for protection in protections().into_iter().filter(|it| it.version == Version::Tls12) {
        let [near, far] = tcp();
        let keylog: Arc<dyn rustls::KeyLog> = Arc::new(rustls::NoKeyLog);
        let (mut client, server) = configs(protection, 0);
        client.enable_secret_extraction = true;
        let client = ClientConnection::new(Arc::new(client), "host".try_into().unwrap()).unwrap();
        let server = ServerTls::from(Arc::new(server));
        let line = near.line().unwrap();
        let kernel = std::thread::scope(|scope| {
            scope.spawn(|| server.secure(&far, None).unwrap());
            let client = Secured::to_take_over(line, client.into()).unwrap();
            let able = Kernel::can(line, &client).unwrap();
            let handover = Handover::of(End::Client, &keylog);
            Kernel::over(line, client, &handover, able).unwrap()
        });
        kernel.say(line, b"all").unwrap();
        lock(&kernel.output).use_up();
        let error = kernel.say(line, b"more").unwrap_err().source.to_string();
        assert!(error.contains("used up"), "{error}");
        kernel.close(line, Patience::AtAnyPace);
        let mut read = Vec::new();
        line.socket.shutdown(Shutdown::Write).unwrap();
        far.clone().read_to_end(&mut read).unwrap();
        assert_eq!(read, b"all");
    }
}

#[test]
fn a_connection_is_shut_down_at_once_though_a_write_waits() {
    let Some(protection) = tls13() else { return };
    let (near, _far) = pair(protection, By::Both, 0);
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
        std::thread::sleep(Duration::from_millis(200));
        if moved == near.moved() && moved > 0 {
            break;
        }
        moved = near.moved();
    }
    near.shut_down(Shutdown::Both);
    ended.recv_timeout(LONG).unwrap();
}

#[test]
fn everything_that_was_written_comes_before_the_end_however_slowly_it_is_read() {
    let Some(protection) = tls13() else { return };
    for by in [By::Both, By::Client] {
        let (near, far) = pair(protection, by, 0);
        near.set_pace(Some(Duration::from_millis(1))).unwrap();
        let bytes: Vec<u8> = (0..6 << 20).map(|at: u32| (at >> 5) as u8).collect();
        let (begun, begins) = channel();
        let writer = std::thread::spawn({
            let (mut near, bytes) = (near.clone(), bytes.clone());
            move || {
                begun.send(()).unwrap();
                near.write_all(&bytes).unwrap();
                near.shut_down(Shutdown::Write);
            }
        });
        begins.recv().unwrap();
        // Its limit passes often while there is no room.
        std::thread::sleep(Duration::from_millis(100));
        let mut read = Vec::new();
        far.clone().read_to_end(&mut read).unwrap();
        assert!(read == bytes, "{by:?}: {} bytes of {}", read.len(), bytes.len());
        writer.join().unwrap();
    }
}

#[test]
fn a_connection_is_not_quiet_while_somebody_reads_or_where_a_part_of_a_record_has_come() {
    let Some(protection) = tls13() else { return };
    let (near, far) = pair(protection, By::Client, 0);
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
    let began = std::time::Instant::now();
    while near.is_quiet() {
        assert!(began.elapsed() < LONG);
    }
    assert!(near.is_silent() && !near.is_quiet());
}

#[test]
#[cfg(feature = "token")]
fn both_sides_bind_a_proof_to_the_same() {
    for protection in protections() {
        let (near, far) = pair(protection, By::Client, 0);
        assert_eq!(near.binding(), far.binding());
        let is_bound = matches!(near.binding(), Binding::Tls(_));
        assert_eq!(is_bound, protection.version == Version::Tls13);
    }
}

/// The nonce that a record of TLS 1.2 says, behind its header.
fn nonces(mut records: &[u8]) -> Vec<u64> {
    let mut nonces = Vec::new();
    while let Some((header, rest)) = records.split_first_chunk::<5>() {
        let (record, rest) = rest.split_at(usize::from(u16::from_be_bytes([header[3], header[4]])));
        nonces.extend(record.first_chunk().map(|nonce| u64::from_be_bytes(*nonce)));
        records = rest;
    }
    nonces
}

#[test]
fn no_nonce_of_tls_12_is_used_twice() {
    for protection in protections() {
        if protection.version != Version::Tls12 || protection.cipher == Cipher::ChaCha20Poly1305 {
            continue;
        }
        let [near, far] = tcp();
        let (client, server) = configs(protection, 0);
        let client = ClientTls::from(Arc::new(client)).kernel(KernelTls::IfPossible);
        let mut server = ServerConnection::new(Arc::new(server)).unwrap();
        // All that the client sends from its last record of the handshake on.
        let mut sent = Vec::new();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                client.secure(&near, Some("host")).unwrap();
                for text in [b"one", b"two", b"six"] {
                    near.clone().write_all(text).unwrap();
                }
                near.shut_down(Shutdown::Write);
            });
            let socket = far.line().unwrap().socket;
            let mut buffer = [0; 4096];
            loop {
                while server.wants_write() {
                    server.write_tls(&mut &*socket).unwrap();
                }
                let count = (&*socket).read(&mut buffer).unwrap();
                if count == 0 {
                    break;
                }
                sent.extend_from_slice(&buffer[..count]);
                let mut records = &buffer[..count];
                while !records.is_empty() {
                    server.read_tls(&mut records).unwrap();
                    server.process_new_packets().unwrap();
                }
            }
        });
        // Finished, three records and close_notify.
        let all = nonces(&sent);
        let nonces = &all[all.len() - 5..];
        assert!(nonces.windows(2).all(|two| two[0].wrapping_add(1) == two[1]), "{nonces:x?}");
    }
}

/// A session's secrets after its key has changed so often, and what this side derives of the first ones.
fn after_changes(protection: Protection, changes: usize) -> (ExtractedSecrets, Generation) {
    let (mut client, server) = configs(protection, 0);
    let keylog: Arc<dyn rustls::KeyLog> = Arc::new(rustls::NoKeyLog);
    let handover = Handover::of(End::Client, &keylog);
    (client.enable_secret_extraction, client.key_log) = (true, handover.key_log());
    let mut client = ClientConnection::new(Arc::new(client), "host".try_into().unwrap()).unwrap();
    let mut server = ServerConnection::new(Arc::new(server)).unwrap();
    while client.is_handshaking() || client.wants_write() || server.wants_write() {
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        server.read_tls(&mut &bytes[..]).unwrap();
        server.process_new_packets().unwrap();
        bytes.clear();
        server.write_tls(&mut bytes).unwrap();
        client.read_tls(&mut &bytes[..]).unwrap();
        client.process_new_packets().unwrap();
    }
    for _ in 0..changes {
        client.refresh_traffic_keys().unwrap();
        client.write_tls(&mut io::sink()).unwrap();
    }
    let suite = client.negotiated_cipher_suite().unwrap().tls13().unwrap();
    let [sending, _] = handover.secrets().unwrap();
    (client.dangerous_extract_secrets().unwrap(), Generation::new(suite, sending))
}

#[test]
fn the_next_keys_are_those_that_rustls_derives() {
    for protection in Protection::ALL.into_iter().filter(|it| it.version == Version::Tls13) {
        for changes in 1..4 {
            let (secrets, mut generation) = after_changes(protection, changes);
            let mut info = None;
            for _ in 0..changes {
                info = generation.next(protection);
            }
            let (_, rustls) = secrets.tx;
            assert_eq!(info.unwrap(), protection.first(&(0, rustls)).unwrap(), "{protection:?}");
        }
    }
}

#[test]
fn keys_have_the_size_that_the_kernel_wants() {
    for protection in Protection::ALL {
        let size = match protection.cipher {
            Cipher::Aes128Gcm => size_of::<libc::tls12_crypto_info_aes_gcm_128>(),
            Cipher::Aes256Gcm => size_of::<libc::tls12_crypto_info_aes_gcm_256>(),
            Cipher::ChaCha20Poly1305 => size_of::<libc::tls12_crypto_info_chacha20_poly1305>(),
        };
        assert_eq!(protection.trial().len(), size, "{protection:?}");
    }
}
