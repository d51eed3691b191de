//! A small server of HTTP/1.1 for pages that say how a service is: GET and HEAD, a request a connection.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use multifd::Uri;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::io::retry_on_intr;
use socket2::Socket;

use super::address::Bound;
use super::request::{Asked, Request};
use crate::failure::Failure;

/// The most bytes that are read behind a request that was refused, so that the answer gets through.
const IGNORED: usize = 64 << 10;

/// How long accepting rests where it fails, as for want of descriptors.
const RETRY: Duration = Duration::from_millis(100);

/// What is answered.
#[derive(Clone, Debug)]
pub(super) struct Page {
    pub(super) status: &'static str,
    pub(super) content_type: &'static str,
    pub(super) body: String,
}

/// The pages by their paths.
pub(super) type Pages = Arc<dyn Fn(&str) -> Option<Page> + Send + Sync>;

/// What a server puts up with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Connections at once. More are closed.
    connections: usize,
    /// How long one may take in all.
    time: Duration,
}

/// A server, until it is dropped. It has a thread, and one for each connection.
#[derive(Debug)]
pub(crate) struct Server {
    uri: Uri,
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections: 8, time: Duration::from_secs(5) }
    }
}

impl Server {
    /// Serves `pages` on `uri`, which other machines must not reach.
    pub(super) fn start(uri: &Uri, pages: Pages, limits: Limits) -> Result<Self, Failure> {
        let bound = Bound::new(uri)?;
        let cannot = |error: io::Error| Failure::io("cannot start to answer on --metrics", &error);
        let stop = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let stop = Arc::new(stop.map_err(|errno| cannot(errno.into()))?);
        let uri = bound.uri.clone();
        let (serve, stopped) = (Serve { pages, limits }, Arc::clone(&stop));
        let thread = std::thread::Builder::new().name("metrics".to_owned());
        let thread = thread.spawn(move || serve.accept(&bound, &stopped)).map_err(cannot)?;
        Ok(Self { uri, stop, thread: Some(thread) })
    }

    /// The address, with the port that was picked where port 0 was asked for.
    pub(crate) fn uri(&self) -> &Uri {
        &self.uri
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let woken = rustix::io::write(&self.stop, &1_u64.to_ne_bytes()).is_ok();
        if let Some(thread) = self.thread.take().filter(|_| woken) {
            _ = thread.join();
        }
    }
}

#[derive(Clone)]
struct Serve {
    pages: Pages,
    limits: Limits,
}

impl Serve {
    /// Takes connections until there is something to read from `stop`.
    fn accept(&self, bound: &Bound, stop: &OwnedFd) {
        let busy = Arc::new(AtomicUsize::new(0));
        loop {
            match wait(&bound.socket, stop) {
                Ok(true) => return,
                Ok(false) => match bound.socket.accept() {
                    Ok((socket, _)) => self.spawn(socket, &busy),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    // It stays in the queue, and may be taken later.
                    Err(_) => std::thread::sleep(RETRY),
                },
                Err(_) => std::thread::sleep(RETRY),
            }
        }
    }

    /// Answers in a thread, if there are not too many.
    fn spawn(&self, socket: Socket, busy: &Arc<AtomicUsize>) {
        let place = Place(Arc::clone(busy));
        if busy.fetch_add(1, Ordering::Relaxed) >= self.limits.connections {
            return;
        }
        let until = Instant::now() + self.limits.time;
        let pages = Arc::clone(&self.pages);
        let answer = move || {
            let _place = place;
            // There is nobody to tell of a connection that breaks.
            _ = Timed { socket, until }.answer(&pages);
        };
        _ = std::thread::Builder::new().name("metrics".to_owned()).spawn(answer);
    }
}

/// One of the connections that there may be at once.
struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Waits for a connection; true when there is something to read from `stop`.
fn wait(socket: &Socket, stop: &OwnedFd) -> io::Result<bool> {
    let (stop, socket) = (stop.as_fd(), socket.as_fd());
    let mut polled = [PollFd::new(&stop, PollFlags::IN), PollFd::new(&socket, PollFlags::IN)];
    retry_on_intr(|| poll(&mut polled, None))?;
    Ok(!polled[0].revents().is_empty())
}

/// A connection with an end to its time.
struct Timed {
    socket: Socket,
    until: Instant,
}

impl Timed {
    fn answer(&mut self, pages: &Pages) -> io::Result<()> {
        self.socket.set_nonblocking(false)?;
        let request = Request::read(|space| self.read(space))?;
        let page = match &request.asked {
            Asked::For(path) => pages(path).unwrap_or_else(|| Page::error("404 Not Found")),
            Asked::Refused(status) => Page::error(status),
        };
        self.write_all(page.head().as_bytes())?;
        if !request.head_only {
            self.write_all(page.body.as_bytes())?;
        }
        self.socket.shutdown(std::net::Shutdown::Write)?;
        // Closing while there is something to read would take the answer away.
        let mut ignored = 0;
        let mut space = [0; 4096];
        while ignored < IGNORED {
            match self.read(&mut space)? {
                0 => break,
                read => ignored += read,
            }
        }
        Ok(())
    }

    fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        loop {
            self.socket.set_read_timeout(Some(self.left()?))?;
            match self.socket.read(space) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => return read,
            }
        }
    }

    fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            self.socket.set_write_timeout(Some(self.left()?))?;
            match self.socket.write(bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn left(&self) -> io::Result<Duration> {
        let left = self.until.saturating_duration_since(Instant::now());
        // A socket takes no time at all for any time, and rounds to microseconds.
        if left < Duration::from_millis(1) { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
    }
}

impl Page {
    pub(super) fn ok(content_type: &'static str, body: String) -> Self {
        Self { status: "200 OK", content_type, body }
    }

    fn error(status: &'static str) -> Self {
        Self { status, content_type: "text/plain; charset=utf-8", body: format!("{status}\n") }
    }

    fn head(&self) -> String {
        let Self { status, content_type, body } = self;
        let allow = if status.starts_with("405") { "Allow: GET, HEAD\r\n" } else { "" };
        format!(
            "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n{allow}\
             Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n",
            body.len()
        )
    }
}

#[cfg(test)]
mod tests;
