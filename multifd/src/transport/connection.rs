//! Connections that several threads own.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::num::NonZeroU32;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use multifd_core::channel::Part;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{RecvFlags, SendFlags, recv, send};
use socket2::{SockAddr, Socket, Type};

#[cfg(feature = "token")]
use super::introduction::Binding;
use super::layer::{Layer, Line, Now, Patience};
use super::{peer_process, set_up};
use crate::driver::ended;
use crate::engine::watch::Watch;

/// A connection of a migration: a socket, or a stream of the caller's own.
///
/// Clones are the same connection. A migration that is over shuts its connections down, whoever else
/// holds a clone.
#[derive(Clone)]
pub struct Connection(Arc<Inner>);

/// A connection that may be gone: it is not kept open.
#[derive(Clone, Debug)]
pub(crate) struct WeakConnection(Weak<Inner>);

#[derive(Debug)]
struct Inner {
    stream: Stream,
    /// Encryption, once there is one. Only over sockets.
    layer: OnceLock<Box<dyn Layer>>,
    /// Bytes that have been read and written.
    moved: AtomicU64,
    /// Whom the other side's certificate names, once it has shown one.
    certificate: OnceLock<String>,
    /// From where it was accepted: a socket whose peer has reset the connection does not know it.
    from: Option<SocketAddr>,
}

#[derive(Debug)]
enum Stream {
    Socket(Socket),
    Given(Given),
}

/// A caller's stream. Each half is used by one thread at a time; a thread that reads does not hold
/// up one that writes.
struct Given {
    reader: Mutex<Box<dyn Read + Send>>,
    writer: Mutex<Box<dyn Write + Send>>,
    shut_down: Box<ShutDown>,
}

type ShutDown = dyn Fn(Shutdown) -> io::Result<()> + Send + Sync;

impl Connection {
    /// The connection of a stream socket: TCP, Unix or vsock, accepted or connected by the caller.
    /// The socket's blocking mode, its time limits and, for TCP, `TCP_NODELAY` and keepalive are set
    /// as a migration needs them.
    ///
    /// # Errors
    /// A descriptor that is no socket, a socket that is not connected or is no stream.
    pub fn from_socket(socket: impl Into<OwnedFd>) -> io::Result<Self> {
        let socket = Socket::from(socket.into());
        if socket.r#type()? != Type::STREAM {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a stream socket"));
        }
        socket.peer_addr()?;
        Self::connected(socket)
    }

    /// A connection of the caller's own making, such as an encrypted one that this library does not know:
    /// its two halves, and a way to shut it down.
    ///
    /// Both halves block. Each is used by one thread at a time, and both at the same time. What has
    /// been written is flushed when it has to leave. `shut_down` is called from any thread, more than
    /// once, and must not wait for either half. That it fails or panics is logged, and the migration goes
    /// on to shut the others down; a half that waits all the same is waited for.
    ///
    /// - `Shutdown::Write`: nothing more will be written. The peer is to see the end, behind all that
    ///   was written before.
    /// - `Shutdown::Read`, `Shutdown::Both`: a read that waits, and every later one, ends: with 0 bytes
    ///   or an error. After `Read` alone writing is still possible, or a destination cannot tell its
    ///   source why it failed. After `Both` a write that waits ends, too.
    ///
    /// A stream must take 2 KiB that nobody reads yet: the initial packet and a SYNC of a multifd channel. A
    /// source announces its RAM on the main channel only when every channel has sent these, and a destination
    /// reads SYNCs only when it has the announcement.
    ///
    /// Compared with a socket: pages are copied once more. Whether the peer has closed is known only
    /// when its end is read. So a source notices a confirmation that comes too early only where it has
    /// been read before the last page is sent, and a channel that leaves before its main channel comes
    /// keeps its place.
    pub fn from_stream(
        reader: impl Read + Send + 'static,
        writer: impl Write + Send + 'static,
        shut_down: impl Fn(Shutdown) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let (reader, writer) =
            (Mutex::new(Box::new(reader) as _), Mutex::new(Box::new(writer) as _));
        let given = Given { reader, writer, shut_down: Box::new(shut_down) };
        Self::new(Stream::Given(given), None)
    }

    /// The connection of a socket that is known to be a connected stream.
    pub(super) fn connected(socket: Socket) -> io::Result<Self> {
        Self::over(socket, None)
    }

    /// As [`connected`](Self::connected), of a socket that was accepted from the address `from`.
    pub(super) fn accepted(socket: Socket, from: &SockAddr) -> io::Result<Self> {
        Self::over(socket, from.as_socket())
    }

    fn over(socket: Socket, from: Option<SocketAddr>) -> io::Result<Self> {
        socket.set_nonblocking(false)?;
        set_up(&socket, socket.domain()?)?;
        Ok(Self::new(Stream::Socket(socket), from))
    }

    fn new(stream: Stream, from: Option<SocketAddr>) -> Self {
        let (layer, moved, certificate) = (OnceLock::new(), AtomicU64::new(0), OnceLock::new());
        Self(Arc::new(Inner { stream, layer, moved, certificate, from }))
    }

    pub(crate) fn downgrade(&self) -> WeakConnection {
        WeakConnection(Arc::downgrade(&self.0))
    }

    /// The socket, which may have a layer above it.
    fn socket(&self) -> Option<&Socket> {
        match &self.0.stream {
            Stream::Socket(socket) => Some(socket),
            Stream::Given(_) => None,
        }
    }

    /// The socket that has nothing above it: its bytes are the connection's.
    pub(super) fn bare_socket(&self) -> Option<&Socket> {
        self.socket().filter(|_| self.0.layer.get().is_none())
    }

    /// The socket, where it is TCP with nothing above it.
    ///
    /// # Errors
    /// It is not.
    pub(crate) fn plain_tcp(&self) -> io::Result<&Socket> {
        let refused = |why| io::Error::new(io::ErrorKind::Unsupported, why);
        let bare = self.bare_socket().ok_or_else(|| refused("only a socket without TLS has it"))?;
        let is_tcp = self.peer_address().is_some();
        if is_tcp { Ok(bare) } else { Err(refused("only TCP has it")) }
    }

    /// The layer above the socket.
    pub(super) fn layer(&self) -> Option<(&dyn Layer, Line<'_>)> {
        let (layer, line) = (self.0.layer.get()?, self.line()?);
        Some((&**layer, line))
    }

    /// The socket below a layer.
    pub(super) fn line(&self) -> Option<Line<'_>> {
        self.socket().map(|socket| Line { socket, moved: &self.0.moved })
    }

    /// What a proof on this connection can be bound to.
    #[cfg(feature = "token")]
    pub(crate) fn binding(&self) -> Binding {
        self.layer().map_or(Binding::Plain, |(layer, _)| layer.binding())
    }

    /// Has everything go through `layer` from now on. Says whether there was none before.
    #[cfg(feature = "tls")]
    pub(super) fn put_on(&self, layer: Box<dyn Layer>) -> bool {
        self.0.layer.set(layer).is_ok()
    }

    /// Shuts down. Fails where the peer is gone already, which is no matter. Shutting writing alone down
    /// takes as long as a write where the connection is encrypted: it is for whoever writes.
    pub(crate) fn shut_down(&self, how: Shutdown) {
        if let Some((layer, line)) = self.layer() {
            match how {
                Shutdown::Write => layer.close(line, Patience::AtAnyPace),
                Shutdown::Both => layer.close(line, Patience::Now),
                Shutdown::Read => {}
            }
        }
        let shut = match &self.0.stream {
            Stream::Socket(socket) => socket.shutdown(how),
            // Whoever calls this has others to shut down, and may be the thread that keeps the time.
            Stream::Given(given) => catch_unwind(AssertUnwindSafe(|| (given.shut_down)(how)))
                .unwrap_or_else(|_| Err(io::Error::other("it panicked"))),
        };
        if let Err(error) = shut {
            tracing::debug!(%error, "shutting a connection down");
        }
    }

    /// Has reads and writes say at least this often what has moved.
    pub(crate) fn set_pace(&self, pace: Option<Duration>) -> io::Result<()> {
        let Some(socket) = self.socket() else { return Ok(()) };
        socket.set_read_timeout(pace)?;
        socket.set_write_timeout(pace)
    }

    /// Bytes that have been read and written so far.
    pub(crate) fn moved(&self) -> u64 {
        self.0.moved.load(Relaxed)
    }

    /// Takes note that so many writes have arrived, which is progress as bytes are.
    pub(super) fn note(&self, writes: u64) {
        self.0.moved.fetch_add(writes, Relaxed);
    }

    /// Takes note of bytes that have moved.
    pub(super) fn count(&self, bytes: usize) {
        self.0.moved.fetch_add(bytes as u64, Relaxed);
    }

    /// Whether it is a socket, whose bytes can be waited for and looked at without reading.
    pub(crate) fn can_poll(&self) -> bool {
        self.socket().is_some()
    }

    /// Waits until there is something to read, or the end. At once where that cannot be told.
    pub(crate) fn wait_readable(&self) -> io::Result<()> {
        self.wait_readable_for(None).map(drop)
    }

    /// As [`wait_readable`](Self::wait_readable), for `limit` at most. Whether there is something.
    pub(crate) fn wait_readable_for(&self, limit: Option<Duration>) -> io::Result<bool> {
        let Some(socket) = self.socket() else { return Ok(true) };
        // A limit past the end of time is no limit.
        let deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
        loop {
            // What has been decrypted is not in the socket any more, and what is there may be none of it.
            let layer = self.layer();
            let now = layer.map(|(layer, line)| layer.look(line));
            if now.is_some_and(|now| !matches!(now, Ok(Now::Nothing))) {
                return Ok(true);
            }
            let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            let left = left.and_then(|left| Timespec::try_from(left).ok());
            match poll(&mut [PollFd::new(socket, PollFlags::IN)], left.as_ref()) {
                Ok(0) => return Ok(false),
                Ok(_) if layer.is_some() => {}
                Ok(_) => return Ok(true),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Whether there are bytes to be read, and not the end, as far as that can be told.
    pub(crate) fn has_more(&self) -> io::Result<bool> {
        if let Some((layer, line)) = self.layer() {
            // Whoever reads finds out what has failed.
            return Ok(layer.look(line).map_or(true, |now| now == Now::Bytes));
        }
        let Some(socket) = self.socket() else { return Ok(true) };
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        match retry_on_intr(|| recv(socket, &mut [0_u8; 1][..], flags)) {
            Ok((count, _)) => Ok(count > 0),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Reads what is there now, and 0 bytes at the end; `None` where nothing is there, or where that
    /// cannot be told.
    pub(crate) fn read_now(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        if let Some((layer, line)) = self.layer() {
            return layer.read_now(line, buffer);
        }
        let Some(socket) = self.socket() else { return Ok(None) };
        match retry_on_intr(|| recv(socket, &mut *buffer, RecvFlags::DONTWAIT)) {
            Ok((count, _)) => {
                self.count(count);
                Ok(Some(count))
            }
            Err(Errno::AGAIN) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Whether the peer, which has nothing more to say, still has the connection, as far as that can
    /// be told.
    pub(crate) fn is_silent(&self) -> bool {
        if let Some((layer, line)) = self.layer() {
            return layer.look(line).is_ok_and(|now| now == Now::Nothing);
        }
        self.socket().is_none_or(is_empty)
    }

    /// As [`is_silent`](Self::is_silent), where nothing has come either that may be no more than a part of a
    /// TLS record.
    pub(crate) fn has_nothing_unread(&self) -> bool {
        let is_quiet = |(layer, line): (&dyn Layer, Line<'_>)| layer.is_quiet(line, true);
        self.socket().is_none_or(is_empty) && self.layer().is_none_or(is_quiet)
    }

    /// As [`has_nothing_unread`](Self::has_nothing_unread), where that can be told, and nothing has been read
    /// either that the connection's thread has not made sense of yet.
    pub(crate) fn is_quiet(&self) -> bool {
        let is_quiet = |(layer, line): (&dyn Layer, Line<'_>)| layer.is_quiet(line, false);
        self.socket().is_some_and(is_empty) && self.layer().is_none_or(is_quiet)
    }

    /// Whether the peer has closed its writing side, as far as that can be told. What it has written
    /// before may still be there to be read.
    pub(crate) fn has_left(&self) -> bool {
        let Some(socket) = self.socket() else { return false };
        let mut looked = [PollFd::new(socket, PollFlags::RDHUP)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let gone = PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR;
        retry_on_intr(|| poll(&mut looked, Some(&now))).is_ok()
            && looked[0].revents().intersects(gone)
    }

    /// Who is on the other side of a TCP connection.
    pub(crate) fn peer_address(&self) -> Option<SocketAddr> {
        self.0.from.or_else(|| self.socket()?.peer_addr().ok()?.as_socket())
    }

    /// The process on the other side of a Unix socket, as it connected; none that this one cannot see, as in another
    /// container.
    pub(crate) fn peer_process(&self) -> Option<NonZeroU32> {
        peer_process::of(self.socket()?.as_fd())
    }

    /// Whom the other side's certificate names: see [`set_certificate`](Self::set_certificate).
    pub(crate) fn certificate(&self) -> Option<&str> {
        self.0.certificate.get().map(String::as_str)
    }

    /// The other side has shown a certificate that names it so, and proven that it is its own.
    #[cfg(feature = "tls")]
    pub(super) fn set_certificate(&self, name: String) {
        _ = self.0.certificate.set(name);
    }

    /// Who is on the other side, where that has a name.
    pub(crate) fn peer(&self) -> Option<String> {
        if let Some(address) = self.peer_address() {
            return Some(address.to_string());
        }
        let address = self.socket()?.peer_addr().ok()?;
        address.as_vsock_address().map(|(cid, port)| format!("vsock {cid}:{port}"))
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let Self { stream, layer, moved, .. } = self;
        if let (Stream::Socket(socket), Some(layer)) = (stream, layer.get()) {
            layer.end(Line { socket, moved });
        }
    }
}

impl WeakConnection {
    pub(crate) fn upgrade(&self) -> Option<Connection> {
        self.0.upgrade().map(Connection)
    }

    /// Whether it is the same connection as `other`.
    pub(crate) fn is(&self, other: &Self) -> bool {
        self.0.ptr_eq(&other.0)
    }
}

impl Read for Connection {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some((layer, line)) = self.layer() {
            return layer.read(line, buffer);
        }
        let read = match &self.0.stream {
            Stream::Socket(socket) => at_any_pace(|| {
                let (count, _) = recv(socket, &mut *buffer, RecvFlags::empty())?;
                Ok(count)
            }),
            Stream::Given(given) => ended(lock(&given.reader).read(buffer)),
        };
        read.inspect(|&count| self.count(count))
    }
}

impl Write for Connection {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some((layer, line)) = self.layer() {
            let gather = &mut |room: &mut [u8]| Part::Bytes(bytes).copy_to(room);
            return layer.write(line, bytes.len(), gather);
        }
        let written = match &self.0.stream {
            // A peer that is gone is an error, never SIGPIPE.
            Stream::Socket(socket) => at_any_pace(|| Ok(send(socket, bytes, SendFlags::NOSIGNAL)?)),
            Stream::Given(given) => lock(&given.writer).write(bytes),
        };
        written.inspect(|&count| self.count(count))
    }

    fn flush(&mut self) -> io::Result<()> {
        match &self.0.stream {
            Stream::Socket(_) => Ok(()),
            Stream::Given(given) => lock(&given.writer).flush(),
        }
    }
}

/// A connection for the short messages of the return path, which an honest peer always has room for:
/// no room is an error. A socket never blocks; another stream that blocks is soon shut down.
#[derive(Debug)]
pub(crate) struct Impatient {
    connection: Connection,
    watch: Arc<Watch>,
}

/// How long a stream that is not a socket may take for a short message.
const SHORT: Duration = Duration::from_secs(2);

impl Impatient {
    pub(crate) fn new(connection: &Connection, watch: &Arc<Watch>) -> Self {
        Self { connection: connection.clone(), watch: Arc::clone(watch) }
    }

    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }
}

/// A message that has not been said as a whole.
#[derive(Debug)]
pub(crate) struct Unsaid {
    pub(crate) source: io::Error,
    /// The peer may hear some of it, or all.
    pub(crate) may_be_heard: bool,
}

impl Impatient {
    /// Says `message`, and flushes it.
    pub(crate) fn say(&self, message: &[u8]) -> Result<(), Unsaid> {
        let Self { connection, watch } = self;
        if let Some((layer, line)) = connection.layer() {
            return layer.say(line, message);
        }
        let Some(socket) = connection.socket() else {
            let _limit = watch.cut_off(connection, SHORT, Shutdown::Both);
            let began = Instant::now();
            let mut stream = connection.clone();
            let said = say(message, |bytes| stream.write(bytes));
            let said = said.and_then(|()| {
                let flushed = connection.clone().flush();
                flushed.map_err(|source| Unsaid { source, may_be_heard: true })
            });
            // Not that it was shut down, but why. What a write did that was cut off, nobody knows.
            return said.map_err(|unsaid| match began.elapsed() < SHORT {
                true => unsaid,
                false => Unsaid {
                    source: io::Error::new(io::ErrorKind::TimedOut, "there is no room for it"),
                    may_be_heard: true,
                },
            });
        };
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        say(message, |bytes| {
            let count = send(socket, bytes, flags)?;
            connection.count(count);
            Ok(count)
        })
    }
}

/// Writes all of `message`.
fn say(message: &[u8], mut write: impl FnMut(&[u8]) -> io::Result<usize>) -> Result<(), Unsaid> {
    let mut left = message;
    while !left.is_empty() {
        let written = match write(left) {
            Ok(0) => Err(io::ErrorKind::WriteZero.into()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(0),
            written => written,
        };
        let count = written
            .map_err(|source| Unsaid { source, may_be_heard: left.len() < message.len() })?;
        left = &left[count..];
    }
    Ok(())
}

/// Moves bytes, however long it takes until some can be moved.
pub(super) fn at_any_pace(mut attempt: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match attempt() {
            Err(error) if is_later(&error) => {}
            result => return result,
        }
    }
}

/// Whether a read or write has only run into the socket's time limit, or into a signal.
fn is_later(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// Whether nothing is there to be read of a socket whose other side has not closed it.
fn is_empty(socket: &Socket) -> bool {
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    let peeked = retry_on_intr(|| recv(socket, &mut [0_u8; 1][..], flags));
    peeked.is_err_and(|errno| errno == Errno::AGAIN)
}

fn lock<T: ?Sized>(half: &Mutex<Box<T>>) -> std::sync::MutexGuard<'_, Box<T>> {
    // A stream that has panicked fails the migration.
    half.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Connection").field(&self.0.stream).finish()
    }
}

impl fmt::Debug for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Given")
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn what_is_no_connected_stream_is_refused() {
        let file: OwnedFd = std::fs::File::open("/dev/null").unwrap().into();
        Connection::from_socket(file).unwrap_err();
        Connection::from_socket(UdpSocket::bind("127.0.0.1:0").unwrap()).unwrap_err();
        Connection::from_socket(TcpListener::bind("127.0.0.1:0").unwrap()).unwrap_err();
        Connection::from_socket(UnixStream::pair().unwrap().0).unwrap();
    }

    #[test]
    fn a_pace_ends_no_read_and_counts_what_came() {
        let (left, mut right) = UnixStream::pair().unwrap();
        let mut connection = Connection::from_socket(left).unwrap();
        connection.set_pace(Some(Duration::from_millis(1))).unwrap();
        let writing = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            right.write_all(b"late").unwrap();
            right
        });
        let mut buffer = [0; 8];
        assert_eq!(connection.read(&mut buffer).unwrap(), 4);
        assert_eq!(connection.moved(), 4);
        assert!(!connection.has_left());
        drop(writing.join().unwrap());
        assert!(connection.has_left());
        assert_eq!(connection.read(&mut buffer).unwrap(), 0);
    }

    #[test]
    fn a_peer_that_has_left_is_seen_though_there_is_something_to_read() {
        let (left, mut right) = UnixStream::pair().unwrap();
        let connection = Connection::from_socket(left).unwrap();
        right.write_all(b"all").unwrap();
        assert!(!connection.has_left() && !connection.is_silent());
        right.shutdown(Shutdown::Write).unwrap();
        assert!(connection.has_left());
    }

    #[test]
    fn a_stream_of_the_callers_own_is_read_to_its_end_and_shut_down_as_asked() {
        let (asked, how) = std::sync::mpsc::channel();
        let mut connection = Connection::from_stream(&b"abc"[..], Vec::new(), move |how| {
            asked.send(how).map_err(io::Error::other)
        });
        let mut bytes = Vec::new();
        connection.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, b"abc");
        connection.write_all(b"12").unwrap();
        assert_eq!(connection.moved(), 5);
        connection.shut_down(Shutdown::Read);
        assert_eq!(how.recv().unwrap(), Shutdown::Read);
        assert!(!connection.can_poll());
    }
}
