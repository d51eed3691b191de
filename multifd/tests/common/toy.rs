//! Streams of a program's own, as it may bring them in place of sockets.

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex};

use multifd::Connection;

/// A kind of connection that a test makes both ends of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Tcp,
    Unix,
    /// Over a socket, with every byte changed: what encryption looks like from here.
    Masked,
    /// In memory.
    Memory,
}

impl Kind {
    pub(crate) const ALL: [Self; 4] = [Self::Tcp, Self::Unix, Self::Masked, Self::Memory];

    /// Both ends of a connection.
    pub(crate) fn pair(self) -> (Connection, Connection) {
        match self {
            Self::Tcp => {
                let listener = TcpListener::bind("127.0.0.1:0").unwrap();
                let connected = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
                let (accepted, _) = listener.accept().unwrap();
                (from_socket(connected), from_socket(accepted))
            }
            Self::Unix => {
                let (left, right) = UnixStream::pair().unwrap();
                (from_socket(left), from_socket(right))
            }
            Self::Masked => {
                let (left, right) = UnixStream::pair().unwrap();
                (masked(&left), masked(&right))
            }
            Self::Memory => {
                let (there, back) = (Arc::<Pipe>::default(), Arc::<Pipe>::default());
                (in_memory(&back, &there), in_memory(&there, &back))
            }
        }
    }

    /// Both ends of a main channel and of so many channels: those of a source, of a destination.
    pub(crate) fn pairs(self, channels: usize) -> (Ends, Ends) {
        let (source, destination) = self.pair();
        let channels = (0..channels).map(|_| self.pair()).unzip();
        ((source, channels.0), (destination, channels.1))
    }
}

/// A main channel's and the channels' ends.
pub(crate) type Ends = (Connection, Vec<Connection>);

fn from_socket(socket: impl Into<std::os::fd::OwnedFd>) -> Connection {
    Connection::from_socket(socket).unwrap()
}

/// The stream of `socket` with every byte changed.
pub(crate) fn masked(socket: &UnixStream) -> Connection {
    let [reader, writer, shut] = [(); 3].map(|()| socket.try_clone().unwrap());
    Connection::from_stream(Masked(reader), Masked(writer), move |how| shut.shutdown(how))
}

/// A half of a masked stream.
struct Masked(UnixStream);

const MASK: u8 = 0xa5;

impl Read for Masked {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.0.read(buffer)?;
        buffer[..count].iter_mut().for_each(|byte| *byte ^= MASK);
        Ok(count)
    }
}

impl Write for Masked {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // An odd number of them, so that nothing relies on whole writes.
        let masked: Vec<u8> = bytes.iter().take(30_011).map(|byte| byte ^ MASK).collect();
        self.0.write(&masked)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Bytes in one direction. What is written waits for a flush before it leaves.
#[derive(Debug, Default)]
pub(crate) struct Pipe {
    inner: Mutex<Inner>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Inner {
    unflushed: Vec<u8>,
    bytes: VecDeque<u8>,
    closed: bool,
    /// Nobody reads any more.
    broken: bool,
}

const ROOM: usize = 64 << 10;

fn in_memory(from: &Arc<Pipe>, to: &Arc<Pipe>) -> Connection {
    let (reading, writing) = (Arc::clone(from), Arc::clone(to));
    let shut_down = move |how| {
        if how != Shutdown::Write {
            reading.shut(|inner| (inner.closed, inner.broken) = (true, true));
        }
        if how != Shutdown::Read {
            writing.shut(|inner| inner.closed = true);
        }
        Ok(())
    };
    Connection::from_stream(Reader(Arc::clone(from)), Writer(Arc::clone(to)), shut_down)
}

impl Pipe {
    fn shut(&self, change: impl FnOnce(&mut Inner)) {
        change(&mut self.inner.lock().unwrap());
        self.changed.notify_all();
    }
}

struct Reader(Arc<Pipe>);

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let waiting = |inner: &mut Inner| inner.bytes.is_empty() && !inner.closed;
        let mut inner = self.0.changed.wait_while(self.0.inner.lock().unwrap(), waiting).unwrap();
        let count = inner.bytes.read(buffer)?;
        self.0.changed.notify_all();
        Ok(count)
    }
}

struct Writer(Arc<Pipe>);

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.inner.lock().unwrap().unflushed.len() >= ROOM {
            self.flush()?;
        }
        let mut inner = self.0.inner.lock().unwrap();
        if inner.closed || inner.broken {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let count = bytes.len().min(ROOM);
        inner.unflushed.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        let waiting = |inner: &mut Inner| {
            !inner.unflushed.is_empty()
                && inner.bytes.len() >= ROOM
                && !inner.closed
                && !inner.broken
        };
        let mut inner = self.0.changed.wait_while(self.0.inner.lock().unwrap(), waiting).unwrap();
        if inner.unflushed.is_empty() {
            return Ok(());
        }
        if inner.closed || inner.broken {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let Inner { unflushed, bytes, .. } = &mut *inner;
        bytes.extend(unflushed.drain(..));
        self.0.changed.notify_all();
        Ok(())
    }
}
