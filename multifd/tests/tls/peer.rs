//! Sides that a test plays, by rustls alone.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;

use multifd::Uri;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned,
    SupportedProtocolVersion,
};

use crate::authority::Folder;

type Versions = &'static [&'static SupportedProtocolVersion];

pub(crate) const TLS12: Versions = &[&rustls::version::TLS12];
pub(crate) const TLS13: Versions = &[&rustls::version::TLS13];
pub(crate) const BOTH: Versions = &[&rustls::version::TLS12, &rustls::version::TLS13];

fn roots(folder: &Folder) -> Arc<RootCertStore> {
    let mut roots = RootCertStore::empty();
    let path = folder.path().join("ca-cert.pem");
    roots.add(CertificateDer::from_pem_file(path).unwrap()).unwrap();
    Arc::new(roots)
}

fn identity(folder: &Folder, role: &str) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let file = |what: &str| folder.path().join(format!("{role}-{what}.pem"));
    let certificate = CertificateDer::from_pem_file(file("cert")).unwrap();
    (vec![certificate], PrivateKeyDer::from_pem_file(file("key")).unwrap())
}

/// A client's configuration, for these versions.
pub(crate) fn client(folder: &Folder, versions: Versions) -> Arc<ClientConfig> {
    client_by(folder, versions, rustls::crypto::ring::default_provider())
}

/// As [`client`], with these ciphers.
pub(crate) fn client_by(
    folder: &Folder,
    versions: Versions,
    provider: CryptoProvider,
) -> Arc<ClientConfig> {
    let provider = Arc::new(provider);
    let (chain, key) = identity(folder, "client");
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots(folder))
        .with_client_auth_cert(chain, key);
    Arc::new(config.unwrap())
}

/// A server's configuration, for these versions. As QEMU's, it sends tickets.
pub(crate) fn server(folder: &Folder, versions: Versions) -> Arc<ServerConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(roots(folder), Arc::clone(&provider));
    let (chain, key) = identity(folder, "server");
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(chain, key)
        .unwrap();
    config.send_tls13_tickets = 4;
    Arc::new(config)
}

/// A source's connection.
pub(crate) type Client = StreamOwned<ClientConnection, TcpStream>;
/// A destination's connection.
pub(crate) type Server = StreamOwned<ServerConnection, TcpStream>;

/// Connects, with the whole handshake.
pub(crate) fn connect(uri: &Uri, folder: &Folder) -> Client {
    let mut socket = plain(uri);
    let name = "localhost".try_into().unwrap();
    let mut session = ClientConnection::new(client(folder, BOTH), name).unwrap();
    while session.is_handshaking() {
        session.complete_io(&mut socket).unwrap();
    }
    StreamOwned::new(session, socket)
}

/// Connects without TLS.
pub(crate) fn plain(uri: &Uri) -> TcpStream {
    let Uri::Tcp { host, port } = uri else { panic!("{uri}") };
    TcpStream::connect((&host[..], *port)).unwrap()
}

/// A listener and its address.
pub(crate) fn listener() -> (TcpListener, Uri) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let uri = format!("tcp:{}", listener.local_addr().unwrap()).parse().unwrap();
    (listener, uri)
}

/// Takes a connection, with the whole handshake.
pub(crate) fn accept(listener: &TcpListener, config: &Arc<ServerConfig>) -> Server {
    let (mut socket, _) = listener.accept().unwrap();
    let mut session = ServerConnection::new(Arc::clone(config)).unwrap();
    while session.is_handshaking() {
        session.complete_io(&mut socket).unwrap();
    }
    StreamOwned::new(session, socket)
}

/// How a played source ends a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// As TLS wants it.
    CloseNotify,
    /// Without a word, as QEMU up to 9.2.
    Silent,
    /// Within the last record, which is not sent as a whole.
    WithinRecord,
}

/// Writes `bytes` and ends writing so.
pub(crate) fn finish(connection: &mut Client, bytes: &[u8], end: End) -> io::Result<()> {
    connection.conn.set_buffer_limit(None);
    connection.conn.writer().write_all(bytes)?;
    if end == End::CloseNotify {
        connection.conn.send_close_notify();
    }
    let mut records = Vec::new();
    while connection.conn.wants_write() {
        connection.conn.write_tls(&mut records)?;
    }
    if end == End::WithinRecord {
        records.truncate(records.len() - 3);
    }
    connection.sock.write_all(&records)?;
    connection.sock.shutdown(Shutdown::Write)
}

/// Reads to the end, which is an error without `close_notify`.
pub(crate) fn read_to_end(mut connection: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    connection.read_to_end(&mut bytes)?;
    Ok(bytes)
}
