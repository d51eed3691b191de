//! Connecting, until it is given up.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, retry_on_intr};
use socket2::{SockAddr, Socket, Type};

use super::address::is_elsewhere;
use super::{Connection, Uri, address};

/// How long to wait for a place in the backlog of a Unix socket before the next try: nothing says when
/// there is one.
const BACKLOG_FULL: Duration = Duration::from_millis(10);

/// What has come of connecting.
#[derive(Debug)]
pub(crate) enum Attempt {
    Connected(Connection),
    /// The stop event came first.
    Stopped,
}

/// Connects to `uri`, trying its addresses in turn, within `limit` for all of them and until `stop`
/// can be read from. The error is that of the last address that this machine can reach, if there is
/// one. Looking a name up is for the system, whose resolver has its own limit and cannot be stopped.
pub(crate) fn connect(uri: &Uri, limit: Duration, stop: BorrowedFd<'_>) -> io::Result<Attempt> {
    let addresses = address::to_connect(uri)?;
    let mut last: Option<io::Error> = None;
    // A limit past the end of time is no limit.
    let deadline = Instant::now().checked_add(limit);
    for (tried, address) in addresses.iter().enumerate() {
        // An address that does not answer must not take the time of the others.
        let others = (addresses.len() - tried) as u32;
        let share = deadline.map(|deadline| Instant::now() + left(deadline) / others);
        match attempt(address, share, stop) {
            Ok(attempt) => return Ok(attempt),
            // That a family is turned off here says less than why another did not answer.
            Err(error) if last.is_some() && is_elsewhere(&error) => {}
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the name has no address")))
}

fn attempt(
    address: &SockAddr,
    deadline: Option<Instant>,
    stop: BorrowedFd<'_>,
) -> io::Result<Attempt> {
    let socket = Socket::new(address.domain(), Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    loop {
        let pause = match socket.connect(address) {
            Ok(()) => break,
            Err(error) => match Errno::from_io_error(&error) {
                Some(Errno::INPROGRESS | Errno::INTR) => None,
                // The backlog of a Unix socket is full.
                Some(Errno::AGAIN) => Some(BACKLOG_FULL),
                _ => return Err(error),
            },
        };
        match wait(&socket, pause, deadline, stop)? {
            Waited::Ready => match socket.take_error()? {
                None => break,
                Some(error) => return Err(error),
            },
            Waited::Paused => {}
            Waited::Stopped => return Ok(Attempt::Stopped),
        }
    }
    Ok(Attempt::Connected(Connection::connected(socket)?))
}

/// What a wait has ended with.
enum Waited {
    Ready,
    Paused,
    Stopped,
}

/// Waits until `socket` is connected or has failed, or, where there is a `pause`, for that.
fn wait(
    socket: &Socket,
    pause: Option<Duration>,
    deadline: Option<Instant>,
    stop: BorrowedFd<'_>,
) -> io::Result<Waited> {
    let stop = stop.as_fd();
    let mut polled = [PollFd::new(&stop, PollFlags::IN), PollFd::new(socket, PollFlags::OUT)];
    // What waits for a place is not connecting yet.
    let polled = if pause.is_some() { &mut polled[..1] } else { &mut polled[..] };
    loop {
        let left = deadline.map(left);
        if left == Some(Duration::ZERO) {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time"));
        }
        let limit = [left, pause].into_iter().flatten().min();
        let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
        let ready = retry_on_intr(|| poll(polled, limit.as_ref()))?;
        if !polled[0].revents().is_empty() {
            return Ok(Waited::Stopped);
        }
        if ready > 0 {
            return Ok(Waited::Ready);
        }
        if pause.is_some() {
            return Ok(Waited::Paused);
        }
    }
}

fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixListener;

    use rustix::event::{EventfdFlags, eventfd};

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn event(set: bool) -> OwnedFd {
        eventfd(u32::from(set), EventfdFlags::CLOEXEC).unwrap()
    }

    /// A Unix socket whose backlog is full, and what fills it.
    fn full(path: &std::path::Path) -> (Socket, Vec<Socket>) {
        let listener = Socket::from(OwnedFd::from(UnixListener::bind(path).unwrap()));
        listener.listen(0).unwrap();
        let waiting = std::iter::from_fn(|| {
            let socket = Socket::new(socket2::Domain::UNIX, Type::STREAM, None).unwrap();
            socket.set_nonblocking(true).unwrap();
            socket.connect(&SockAddr::unix(path).unwrap()).ok().map(|()| socket)
        });
        let waiting = waiting.take(100).collect();
        (listener, waiting)
    }

    #[test]
    fn a_full_backlog_is_waited_for_until_there_is_a_place_or_the_limit_or_a_stop() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("full");
        let (listener, _waiting) = full(&path);
        let uri = Uri::Unix(path);
        let error = connect(&uri, Duration::from_millis(30), event(false).as_fd()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let stopped = connect(&uri, LONG, event(true).as_fd()).unwrap();
        assert!(matches!(stopped, Attempt::Stopped));
        std::thread::scope(|scope| {
            let connecting = scope.spawn(|| connect(&uri, LONG, event(false).as_fd()).unwrap());
            std::thread::sleep(Duration::from_millis(30));
            listener.accept().unwrap();
            assert!(matches!(connecting.join().unwrap(), Attempt::Connected(_)));
        });
    }

    #[test]
    fn a_connection_that_is_being_made_is_given_up_when_it_is_stopped() {
        // A listener whose backlog is full leaves a new connection without an answer.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let listener = Socket::from(OwnedFd::from(listener));
        listener.listen(0).unwrap();
        let _waiting: Vec<_> = (0..4)
            .map(|_| {
                let socket = Socket::new(socket2::Domain::IPV4, Type::STREAM, None).unwrap();
                socket.set_nonblocking(true).unwrap();
                _ = socket.connect(&address.into());
                socket
            })
            .collect();
        let uri = format!("tcp:{address}").parse().unwrap();
        let error = connect(&uri, Duration::from_millis(50), event(false).as_fd()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let stop = event(false);
        std::thread::scope(|scope| {
            let connecting = scope.spawn(|| connect(&uri, LONG, stop.as_fd()).unwrap());
            std::thread::sleep(Duration::from_millis(30));
            rustix::io::write(&stop, &1_u64.to_ne_bytes()).unwrap();
            assert!(matches!(connecting.join().unwrap(), Attempt::Stopped));
        });
    }

    #[test]
    fn the_addresses_of_a_name_are_tried_in_turn() {
        // Only one of localhost's two addresses is listened on.
        for only in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = std::net::TcpListener::bind(only) else {
                // Not by eprintln, which is captured: it is to be seen.
                _ = io::Write::write_fmt(
                    &mut io::stderr(),
                    format_args!("skipped: {only} is not an address of this machine\n"),
                );
                continue;
            };
            let port = listener.local_addr().unwrap().port();
            let uri = Uri::Tcp { host: "localhost".to_owned(), port };
            let connected = connect(&uri, LONG, event(false).as_fd()).unwrap();
            assert!(matches!(connected, Attempt::Connected(_)), "{only}");
        }
    }
}
