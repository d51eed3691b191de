//! Sockets by [`Uri`].

use std::io::{self, Read, Write};
use std::net::ToSocketAddrs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{RecvFlags, SendFlags, recv, send};
use socket2::{Domain, SockAddr, Socket, TcpKeepalive, Type};

use crate::error::Error;
use crate::uri::Uri;

/// Connections that may wait to be accepted: every channel of one migration at once.
const BACKLOG: i32 = 256;

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

/// A listening socket, and the means to stop waiting on it.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: Socket,
    uri: Uri,
    /// Which file a Unix socket is: its device and inode.
    file: Option<(u64, u64)>,
    stop: OwnedFd,
}

impl Listener {
    pub(crate) fn bind(uri: &Uri) -> Result<Self, Error> {
        let bound = first_that(uri, |address| {
            let socket = stream_socket(address)?;
            if let Uri::Tcp { .. } = uri {
                socket.set_reuse_address(true)?;
            }
            socket.bind(address)?;
            socket.listen(BACKLOG)?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        });
        let listen = |source| Error::Listen { uri: uri.clone(), source };
        let socket = bound.map_err(listen)?;
        let uri = match (uri, socket.local_addr().map_err(listen)?.as_socket()) {
            (Uri::Tcp { .. }, Some(address)) => {
                Uri::Tcp { host: address.ip().to_string(), port: address.port() }
            }
            _ => uri.clone(),
        };
        let stop = eventfd(0, EventfdFlags::CLOEXEC)
            .map_err(|errno| Error::system("creating an event")(errno.into()))?;
        let file = file_of(&uri);
        Ok(Self { socket, uri, file, stop })
    }

    /// The address, with the port that was picked where port 0 was asked for.
    pub(crate) fn uri(&self) -> &Uri {
        &self.uri
    }

    /// Waits until there is a connection to [`accept`](Self::accept). False after
    /// [`stop`](Self::stop).
    pub(crate) fn wait(&self) -> io::Result<bool> {
        let mut ready =
            [PollFd::new(&self.socket, PollFlags::IN), PollFd::new(&self.stop, PollFlags::IN)];
        retry_on_intr(|| poll(&mut ready, None))?;
        Ok(ready[1].revents().is_empty())
    }

    /// Takes a connection that waits, if one does.
    pub(crate) fn accept(&self) -> io::Result<Option<Arc<Socket>>> {
        loop {
            match self.socket.accept() {
                Ok((socket, _)) => {
                    socket.set_nonblocking(false)?;
                    set_up(&socket, self.socket.local_addr()?.domain())?;
                    return Ok(Some(Arc::new(socket)));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                // The connection was gone before it was taken.
                Err(error) if is_transient(&error) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Ends every [`wait`](Self::wait), now and later.
    pub(crate) fn stop(&self) {
        if let Err(error) = rustix::io::write(&self.stop, &1_u64.to_ne_bytes()) {
            tracing::warn!(%error, "cannot stop listening");
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // A socket file that stays would make the next bind fail; by now it may be another's.
        if let (Uri::Unix(path), Some(_)) = (&self.uri, self.file) {
            if file_of(&self.uri) == self.file {
                _ = std::fs::remove_file(path);
            }
        }
    }
}

fn file_of(uri: &Uri) -> Option<(u64, u64)> {
    let Uri::Unix(path) = uri else { return None };
    let metadata = std::fs::symlink_metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

/// A socket that several own, as a stream.
#[derive(Clone, Debug)]
pub(crate) struct Stream(pub(crate) Arc<Socket>);

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (&*self.0).read(buffer)
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A peer that is gone is an error, never SIGPIPE.
        Ok(retry_on_intr(|| send(&*self.0, bytes, SendFlags::NOSIGNAL))?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Stream {
    /// Whether the peer, which has nothing more to say, still has the connection.
    pub(crate) fn is_silent(&self) -> bool {
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        let peeked = retry_on_intr(|| recv(&*self.0, &mut [0_u8; 1][..], flags));
        peeked.is_err_and(|errno| errno == Errno::AGAIN)
    }
}

/// A socket for short answers, which an honest peer always has room for. Writing never blocks:
/// no room is an error.
#[derive(Clone, Debug)]
pub(crate) struct Answering(pub(crate) Stream);

impl Write for Answering {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        Ok(retry_on_intr(|| send(&*self.0.0, bytes, flags))?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Limits how long a read may take; `None` for as long as it takes.
pub(crate) fn set_read_timeout(socket: &Socket, limit: Option<Duration>) -> Result<(), Error> {
    socket.set_read_timeout(limit).map_err(Error::system("setting a socket's time limit"))
}

fn is_transient(error: &io::Error) -> bool {
    use io::ErrorKind::{
        ConnectionAborted, HostUnreachable, Interrupted, NetworkDown, NetworkUnreachable,
    };
    matches!(
        error.kind(),
        ConnectionAborted | HostUnreachable | Interrupted | NetworkDown | NetworkUnreachable
    )
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
