//! Connections: where to, and how they are made.

mod listener;
mod stream;
mod uri;

use std::io;
use std::net::ToSocketAddrs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, TcpKeepalive, Type};

pub(crate) use listener::Listener;
pub(crate) use stream::{Impatient, Stream, set_read_timeout};
pub use uri::{MalformedUri, Uri};

use crate::error::Error;

/// How long a connection is silent before the other host is probed, and between two probes.
const PROBE_AFTER: Duration = Duration::from_secs(30);
const PROBE_INTERVAL: Duration = Duration::from_secs(10);

/// Connects to `uri`.
pub(crate) fn connect(uri: &Uri, limit: Duration) -> Result<Arc<Socket>, Error> {
    let connected = first_that(uri, |address| {
        let socket = stream_socket(address)?;
        if address.is_unix() {
            // Waits for a place in the listener's backlog, which `connect_timeout` does not.
            socket.set_write_timeout(Some(limit))?;
            socket.connect(address)?;
            socket.set_write_timeout(None)?;
        } else {
            socket.connect_timeout(address, limit)?;
        }
        Ok(socket)
    });
    connected.map(Arc::new).map_err(|source| Error::Connect { uri: uri.clone(), source })
}

/// Tries each address of `uri` in turn. The error is that of the last.
fn first_that(
    uri: &Uri,
    mut attempt: impl FnMut(&SockAddr) -> io::Result<Socket>,
) -> io::Result<Socket> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in addresses(uri)? {
        match attempt(&address) {
            Ok(socket) => return Ok(socket),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn addresses(uri: &Uri) -> io::Result<Vec<SockAddr>> {
    match uri {
        Uri::Unix(path) => Ok(vec![SockAddr::unix::<&PathBuf>(path)?]),
        Uri::Tcp { host, port } => {
            // QEMU, too, takes an empty host for every address.
            let host = if host.is_empty() { "0.0.0.0" } else { host };
            Ok((host, *port).to_socket_addrs()?.map(SockAddr::from).collect())
        }
    }
}

fn stream_socket(address: &SockAddr) -> io::Result<Socket> {
    let socket = Socket::new(address.domain(), Type::STREAM, None)?;
    set_up(&socket, address.domain())?;
    Ok(socket)
}

/// What a TCP connection needs. A packet leaves in one write: waiting for more only costs time. And a
/// source's host that vanishes says nothing: without probes the destination would wait for ever. (A
/// source notices by what it sends, when the system gives up sending it again.)
fn set_up(socket: &Socket, domain: Domain) -> io::Result<()> {
    if domain == Domain::UNIX {
        return Ok(());
    }
    socket.set_tcp_nodelay(true)?;
    let probes = TcpKeepalive::new().with_time(PROBE_AFTER).with_interval(PROBE_INTERVAL);
    socket.set_tcp_keepalive(&probes)
}
