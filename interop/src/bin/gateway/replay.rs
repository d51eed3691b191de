//! Sending a recording, over plain sockets or TLS.

use std::error::Error;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use multifd_interop::program::Multifd;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tempfile::TempDir;

/// How long the other side may take to read, or to answer when everything is sent. Who waits longer
/// gets the end of the connection.
const PATIENCE: Duration = Duration::from_secs(2);

/// The folder of `multifd tls-init`, and a client of it.
#[derive(Debug)]
pub(crate) struct Credentials {
    folder: TempDir,
    client: Arc<ClientConfig>,
}

impl Credentials {
    pub(crate) fn new() -> Result<Self, Box<dyn Error>> {
        let folder = tempfile::tempdir()?;
        let dir = folder.path().join("tls");
        Multifd::run(["tls-init", &dir.display().to_string(), "--host", "127.0.0.1"])?;
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(dir.join("ca-cert.pem"))?)?;
        let chain = CertificateDer::pem_file_iter(dir.join("client-cert.pem"))?;
        let chain = chain.collect::<Result<Vec<_>, _>>()?;
        let key = PrivateKeyDer::from_pem_file(dir.join("client-key.pem"))?;
        let client =
            ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()?
                .with_root_certificates(roots)
                .with_client_auth_cert(chain, key)?;
        Ok(Self { folder, client: Arc::new(client) })
    }

    pub(crate) fn dir(&self) -> PathBuf {
        self.folder.path().join("tls")
    }
}

/// Where a recording is sent.
#[derive(Clone, Copy, Debug)]
pub(crate) enum To<'a> {
    /// `unix:PATH`.
    Plain(&'a str),
    /// `tcp:HOST:PORT`, with TLS.
    Tls(&'a str, &'a Credentials),
}

enum Connection {
    Plain(UnixStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Connection {
    fn new(to: To<'_>) -> Result<Self, Box<dyn Error>> {
        match to {
            To::Plain(uri) => {
                let stream = UnixStream::connect(uri.trim_start_matches("unix:"))?;
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_write_timeout(Some(PATIENCE))?;
                Ok(Self::Plain(stream))
            }
            To::Tls(uri, credentials) => {
                let stream = TcpStream::connect(uri.trim_start_matches("tcp:"))?;
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_write_timeout(Some(PATIENCE))?;
                let name = ServerName::try_from("127.0.0.1")?;
                let session = ClientConnection::new(Arc::clone(&credentials.client), name)?;
                Ok(Self::Tls(Box::new(StreamOwned::new(session, stream))))
            }
        }
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.write_all(bytes),
            Self::Tls(stream) => stream.write_all(bytes).and_then(|()| stream.flush()),
        }
    }

    /// Reads until the other side says that it is done, leaves, or says nothing for a while.
    fn read_answers(&mut self) {
        const SHUT: [u8; 4] = [0, 1, 0, 4];
        let (mut all, mut some) = (Vec::new(), [0; 4096]);
        loop {
            let count = match self {
                Self::Plain(stream) => stream.read(&mut some),
                Self::Tls(stream) => stream.read(&mut some),
            };
            match count {
                Ok(0) | Err(_) => return,
                Ok(count) => all.extend_from_slice(&some[..count]),
            }
            // A message's type and length, and then a word.
            if all.chunks(8).any(|message| message.starts_with(&SHUT)) {
                return;
            }
        }
    }

    fn end(&mut self) {
        match self {
            Self::Plain(stream) => _ = stream.shutdown(Shutdown::Both),
            Self::Tls(stream) => {
                stream.conn.send_close_notify();
                _ = stream.flush();
                _ = stream.sock.shutdown(Shutdown::Both);
            }
        }
    }
}

/// Sends everything, the main channel first, and closes when the destination has answered or takes too
/// long to. That the destination does not take it is no error.
///
/// # Errors
/// It is not there for the first connection.
pub(crate) fn send(to: To<'_>, wires: &[Vec<u8>]) -> Result<(), Box<dyn Error>> {
    let mut main = Connection::new(to)?;
    // QEMU looks who connects by the first bytes, in the order in which they connect.
    let (first, rest) = wires[0].split_at(wires[0].len().min(8));
    let began = main.send(first);
    thread::scope(|scope| {
        let channels: Vec<_> = wires[1..]
            .iter()
            .map_while(|bytes| Connection::new(to).ok().map(|channel| (bytes, channel)))
            .map(|(bytes, mut channel)| {
                scope.spawn(move || {
                    _ = channel.send(bytes);
                    channel
                })
            })
            .collect();
        if began.and_then(|()| main.send(rest)).is_ok() {
            main.read_answers();
        }
        // Only now: a channel that ends early is an error of its own.
        let channels: Vec<_> =
            channels.into_iter().filter_map(|thread| thread.join().ok()).collect();
        main.end();
        channels.into_iter().for_each(|mut channel| channel.end());
    });
    Ok(())
}
