//! Listening for connections.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, retry_on_intr};
use socket2::{Domain, SockAddr, Socket, Type};

use super::address::is_elsewhere;
use super::{Connection, Uri, address};
use crate::error::Error;

/// Connections that may wait to be accepted: every channel of one migration at once, and a crowd of
/// strangers before them. Where the queue is full, the system has a source try again only after a second.
const BACKLOG: i32 = 4096;

/// How often a free port of all of a name's addresses is looked for.
const TRIES: usize = 16;

/// Listening sockets: those of one address, which are bound here, or one that the program has
/// inherited.
///
/// The file of a Unix socket that was bound here is removed when the listener is dropped.
#[derive(Debug)]
pub struct Listener {
    sockets: Vec<Socket>,
    uri: Uri,
    files: Vec<SocketFile>,
}

/// The file of a Unix socket, which is removed in the end.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    /// Its device and inode.
    id: (u64, u64),
}

impl Listener {
    /// The most connections that can wait at once: as many on each of two families' sockets.
    pub(crate) const MOST_WAITING: usize = 2 * BACKLOG as usize + 2;

    /// Listens on `uri`: on each of a name's addresses that are this machine's, all on one port.
    ///
    /// # Errors
    /// An address that cannot be listened on.
    pub fn bind(uri: &Uri) -> Result<Self, Error> {
        let mut tries = if is_any_port(uri) { TRIES } else { 1 };
        loop {
            match Self::try_bind(uri) {
                // The port that one address had free is taken on the other.
                Err(error) if error.kind() == io::ErrorKind::AddrInUse && tries > 1 => tries -= 1,
                bound => return bound.map_err(|source| Error::Listen { uri: uri.clone(), source }),
            }
        }
    }

    fn try_bind(uri: &Uri) -> io::Result<Self> {
        let addresses = address::to_listen(uri)?;
        let several = addresses.len() > 1;
        let mut listener = Self { sockets: Vec::new(), uri: uri.clone(), files: Vec::new() };
        let mut not_here = None;
        for mut address in addresses {
            listener.pick_port(&mut address);
            match listener.add(&address, several) {
                Ok(()) => {}
                // A name may have addresses of other machines, and of a family that is turned off.
                Err(error) if several && is_elsewhere(&error) => not_here = Some(error),
                Err(error) => return Err(error),
            }
        }
        match (listener.sockets.as_slice(), not_here) {
            ([], Some(error)) => Err(error),
            ([socket], _) if has_host(uri) => {
                listener.uri = name_of(&socket.local_addr()?);
                Ok(listener)
            }
            _ => {
                listener.name_port()?;
                Ok(listener)
            }
        }
    }

    /// Has `address` have the port that the first socket got.
    fn pick_port(&self, address: &mut SockAddr) {
        let first = self.sockets.first().and_then(|socket| socket.local_addr().ok()?.as_socket());
        if let (Some(first), Some(mut own)) = (first, address.as_socket()) {
            own.set_port(first.port());
            *address = own.into();
        }
    }

    fn add(&mut self, address: &SockAddr, several: bool) -> io::Result<()> {
        let domain = address.domain();
        let socket = Socket::new(domain, Type::STREAM, None)?;
        if domain == Domain::IPV4 || domain == Domain::IPV6 {
            socket.set_reuse_address(true)?;
        }
        if domain == Domain::IPV6 {
            let every = address.as_socket().is_some_and(|address| address.ip().is_unspecified());
            socket.set_only_v6(several || !every)?;
        }
        socket.bind(address)?;
        // From here on: what fails later removes it.
        self.files.extend(address.as_pathname().and_then(SocketFile::at));
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        self.sockets.push(socket);
        Ok(())
    }

    /// Notes which port was picked.
    fn name_port(&mut self) -> io::Result<()> {
        let Some(socket) = self.sockets.first() else { return Ok(()) };
        let bound = socket.local_addr()?;
        match &mut self.uri {
            Uri::Tcp { port, .. } => *port = bound.as_socket().map_or(*port, |at| at.port()),
            Uri::Vsock { port, .. } => {
                *port = bound.as_vsock_address().map_or(*port, |(_, port)| port);
            }
            _ => {}
        }
        Ok(())
    }

    /// A listening socket that the program has inherited, or made itself: TCP, Unix or vsock. It is set
    /// to non-blocking mode. The file of a Unix socket stays.
    ///
    /// # Errors
    /// A descriptor that is not a listening stream socket.
    pub fn from_fd(fd: OwnedFd) -> Result<Self, Error> {
        Self::inherit(Socket::from(fd)).map_err(Error::system("taking a listening socket over"))
    }

    fn inherit(socket: Socket) -> io::Result<Self> {
        if socket.r#type()? != Type::STREAM || !socket.is_listener()? {
            let why = "it is not a listening stream socket";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        socket.set_nonblocking(true)?;
        let uri = name_of(&socket.local_addr()?);
        Ok(Self { sockets: vec![socket], uri, files: Vec::new() })
    }

    /// Both listeners as one, with the address of the first.
    pub(crate) fn and(mut self, other: Self) -> Self {
        self.sockets.extend(other.sockets);
        self.files.extend(other.files);
        self
    }

    /// The address, with the port that was picked where port 0 was asked for.
    pub fn uri(&self) -> &Uri {
        &self.uri
    }

    /// Waits until there is a connection to [`accept`](Self::accept); false when there is something
    /// to read from `stop`.
    pub(crate) fn wait(&self, stop: BorrowedFd<'_>) -> io::Result<bool> {
        let stop = stop.as_fd();
        let mut polled = vec![PollFd::new(&stop, PollFlags::IN)];
        polled.extend(self.sockets.iter().map(|socket| PollFd::new(socket, PollFlags::IN)));
        retry_on_intr(|| poll(&mut polled, None))?;
        Ok(polled[0].revents().is_empty())
    }

    /// Takes a connection that waits, if one does.
    pub(crate) fn accept(&self) -> io::Result<Option<Connection>> {
        for socket in &self.sockets {
            loop {
                match socket.accept() {
                    Ok((socket, from)) => match Connection::accepted(socket, &from) {
                        Ok(connection) => return Ok(Some(connection)),
                        // It is this connection that fails, and not the listener.
                        Err(error) => tracing::debug!(%error, "a connection cannot be set up"),
                    },
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    // The connection was gone before it was taken.
                    Err(error) if is_transient(&error) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(None)
    }
}

impl SocketFile {
    fn at(path: &Path) -> Option<Self> {
        Some(Self { path: path.to_owned(), id: id_of(path)? })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // A file that stays would make the next bind fail; by now it may be another's.
        if id_of(&self.path) == Some(self.id) {
            _ = std::fs::remove_file(&self.path);
        }
    }
}

fn id_of(path: &Path) -> Option<(u64, u64)> {
    let metadata = std::fs::symlink_metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

fn name_of(address: &SockAddr) -> Uri {
    if let Some(address) = address.as_socket() {
        return Uri::Tcp { host: address.ip().to_string(), port: address.port() };
    }
    if let Some((cid, port)) = address.as_vsock_address() {
        return Uri::Vsock { cid, port };
    }
    address.as_pathname().map_or(Uri::Unnamed, |path| Uri::Unix(path.to_owned()))
}

fn is_any_port(uri: &Uri) -> bool {
    matches!(uri, Uri::Tcp { port: 0, .. })
}

/// Whether it is a host that the socket's own address says more exactly.
fn has_host(uri: &Uri) -> bool {
    matches!(uri, Uri::Tcp { host, .. } if !host.is_empty())
}

/// Whether accepting failed for the connection that was to be accepted: Linux hands errors of the
/// network that this one has run into on, and a firewall may forbid it.
fn is_transient(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    matches!(
        errno,
        Some(
            Errno::INTR
                | Errno::CONNABORTED
                | Errno::PERM
                | Errno::PROTO
                | Errno::NOPROTOOPT
                | Errno::NETDOWN
                | Errno::NETUNREACH
                | Errno::HOSTDOWN
                | Errno::HOSTUNREACH
                | Errno::NONET
                | Errno::OPNOTSUPP
                | Errno::TIMEDOUT
        )
    )
}

/// Whether the program or the system is short of descriptors or memory, which may pass.
pub(crate) fn is_shortage(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    matches!(errno, Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM))
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;
    use std::os::unix::net::{UnixListener, UnixStream};

    use rustix::event::{EventfdFlags, eventfd};

    use super::*;

    fn bind(text: &str) -> Listener {
        Listener::bind(&text.parse().unwrap()).unwrap()
    }

    fn port(listener: &Listener) -> u16 {
        match listener.uri() {
            Uri::Tcp { port, .. } => *port,
            uri => panic!("{uri}"),
        }
    }

    /// Whether a connection to `host` comes to be accepted.
    fn takes(listener: &Listener, host: &str) -> bool {
        let Ok(_connected) = TcpStream::connect((host, port(listener))) else { return false };
        let stop = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
        listener.wait(stop.as_fd()).unwrap() && listener.accept().unwrap().is_some()
    }

    /// Whether this machine has IPv6, as a listener of its own tells.
    fn has_ipv6() -> bool {
        let has = std::net::TcpListener::bind("[::1]:0").is_ok();
        if !has {
            // Not by eprintln, which is captured: it is to be seen.
            _ = io::Write::write_fmt(
                &mut io::stderr(),
                format_args!("skipped: IPv6, which this machine does not have\n"),
            );
        }
        has
    }

    #[test]
    fn every_address_and_localhost_are_those_of_both_families_on_one_port() {
        for text in ["tcp::0", "tcp:localhost:0"] {
            let listener = bind(text);
            assert_ne!(port(&listener), 0);
            assert!(takes(&listener, "127.0.0.1"), "{text}");
            assert!(!has_ipv6() || takes(&listener, "::1"), "{text}");
        }
    }

    #[test]
    fn one_address_is_listened_on_alone() {
        let listener = bind("tcp:127.0.0.1:0");
        assert!(takes(&listener, "127.0.0.1") && !takes(&listener, "::1"));
        if has_ipv6() {
            let listener = bind("tcp:[::1]:0");
            assert!(takes(&listener, "::1") && !takes(&listener, "127.0.0.1"));
        }
    }

    #[test]
    fn a_port_that_one_of_both_addresses_has_taken_is_in_use() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        for host in ["", "localhost"] {
            let error = Listener::bind(&Uri::Tcp { host: host.to_owned(), port }).unwrap_err();
            assert!(error.to_string().contains("pick another"), "{error}");
        }
    }

    #[test]
    fn a_socket_file_goes_with_its_listener_however_far_that_came() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sock");
        let uri = Uri::Unix(path.clone());
        let listener = Listener::bind(&uri).unwrap();
        UnixStream::connect(&path).unwrap();
        drop(listener);
        assert!(!path.exists());
        // Where listening fails after the file has been made.
        let mut half = Listener { sockets: Vec::new(), uri: uri.clone(), files: Vec::new() };
        half.add(&SockAddr::unix(&path).unwrap(), false).unwrap();
        assert!(path.exists());
        drop(half);
        assert!(!path.exists());
        // Another's file stays, and so does one that was there before.
        let listener = Listener::bind(&uri).unwrap();
        std::fs::remove_file(&path).unwrap();
        let _other = UnixListener::bind(&path).unwrap();
        drop(listener);
        Listener::bind(&uri).unwrap_err();
        assert!(path.exists());
    }

    #[test]
    fn an_inherited_listener_is_named_by_its_address_and_keeps_its_file() {
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let uri = format!("tcp:{}", tcp.local_addr().unwrap());
        let listener = Listener::from_fd(tcp.into()).unwrap();
        assert_eq!(listener.uri().to_string(), uri);
        assert!(takes(&listener, "127.0.0.1"));
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sock");
        let listener = Listener::from_fd(UnixListener::bind(&path).unwrap().into()).unwrap();
        assert_eq!(*listener.uri(), Uri::Unix(path.clone()));
        drop(listener);
        assert!(path.exists());
    }

    #[test]
    fn what_does_not_listen_cannot_be_inherited() {
        let (connected, _other) = UnixStream::pair().unwrap();
        Listener::from_fd(connected.into()).unwrap_err();
        Listener::from_fd(std::fs::File::open("/dev/null").unwrap().into()).unwrap_err();
    }
}
