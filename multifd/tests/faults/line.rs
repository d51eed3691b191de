//! The fault line between two sides: it passes on what either says, and breaks one thing.

mod carrier;
mod tamper;

use std::collections::BTreeMap;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use multifd::Uri;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::sockopt;

use crate::places::{Direction, Place, Wire};
use carrier::Carrier;

/// What a line does to a migration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    /// Ends the connection.
    Cut(End),
    /// Passes nothing on any more, of this direction.
    Stall,
    /// Nor for so long.
    Pause(Duration),
    /// Changes the byte by this.
    Flip(u8),
    /// Leaves the byte out.
    Drop,
    /// Says the byte twice.
    Double,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// In order, to both sides. What is said later is read and thrown away.
    Fin,
    /// As a host that has forgotten the connection. What is on its way is lost.
    Reset,
}

/// How a line treats its connections.
#[derive(Clone, Debug, Default)]
pub(crate) struct Behaviour {
    pub(crate) act: Option<(Place, Act)>,
    /// Bytes a second, of all and of one of the channels.
    pub(crate) rates: Option<(u64, Wire, u64)>,
    /// Connections that nothing is read from.
    pub(crate) deaf: Deaf,
    /// The connections cannot be told apart by what they say.
    pub(crate) encrypted: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Deaf {
    #[default]
    None,
    One(Wire),
    All,
}

impl Deaf {
    fn is(self, wire: Wire) -> bool {
        self == Self::All || self == Self::One(wire)
    }
}

/// What a line has seen of a stream: bytes and fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) bytes: u64,
    pub(crate) fields: u64,
}

pub(crate) type AllSeen = BTreeMap<(Wire, Direction), Seen>;

/// What the threads of a line share.
#[derive(Debug)]
struct Shared {
    behaviour: Behaviour,
    /// Readable when the line is taken down.
    over: UnixStream,
    /// The act has been carried out.
    done: AtomicBool,
    seen: Mutex<AllSeen>,
}

/// A line that stands, until it is dropped.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) uri: Uri,
    shared: Arc<Shared>,
    take_down: Option<UnixStream>,
    accepting: Option<JoinHandle<()>>,
}

enum Listening {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Line {
    /// A line to `to`, of the same kind of sockets. A Unix socket is made in `folder`.
    pub(crate) fn to(to: &Uri, folder: &Path, behaviour: Behaviour) -> Self {
        let (uri, listening) = match to {
            Uri::Unix(_) => {
                let path = folder.join("line");
                (Uri::Unix(path.clone()), Listening::Unix(UnixListener::bind(path).unwrap()))
            }
            _ => {
                let listener = TcpListener::bind("127.0.0.1:0").unwrap();
                if behaviour.deaf != Deaf::None {
                    // So that little of what is not read has left.
                    sockopt::set_socket_recv_buffer_size(&listener, 4096).unwrap();
                }
                let uri = format!("tcp:{}", listener.local_addr().unwrap()).parse().unwrap();
                (uri, Listening::Tcp(listener))
            }
        };
        let (take_down, over) = UnixStream::pair().unwrap();
        let (done, seen) = (AtomicBool::new(false), Mutex::default());
        let shared = Arc::new(Shared { behaviour, over, done, seen });
        let (own, to) = (Arc::clone(&shared), to.clone());
        let accepting = std::thread::spawn(move || accept(&own, &listening, &to));
        Self { uri, shared, take_down: Some(take_down), accepting: Some(accepting) }
    }

    /// Whether it has come to the place, and done there what it should.
    pub(crate) fn has_acted(&self) -> bool {
        self.shared.done.load(Ordering::Acquire)
    }

    /// What it has seen, when it has been taken down.
    pub(crate) fn seen(mut self) -> AllSeen {
        self.end();
        self.shared.seen.lock().unwrap().clone()
    }

    fn end(&mut self) {
        drop(self.take_down.take());
        if let Some(accepting) = self.accepting.take() {
            accepting.join().unwrap();
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.end();
    }
}

/// Takes connections, each of which a thread carries on to `to`.
fn accept(shared: &Arc<Shared>, listening: &Listening, to: &Uri) {
    let mut carriers = Vec::new();
    while ready(shared, listening) {
        let near: OwnedFd = match listening {
            Listening::Tcp(listener) => listener.accept().unwrap().0.into(),
            Listening::Unix(listener) => listener.accept().unwrap().0.into(),
        };
        // A destination that is gone refuses, and so does the line.
        let Ok(far) = connect(to) else { continue };
        let wire = shared.behaviour.encrypted.then(|| match carriers.len() {
            0 => Wire::Main,
            number => Wire::Channel(u8::try_from(number - 1).unwrap()),
        });
        let shared = Arc::clone(shared);
        let carry = move || Carrier::new(&shared, near, far, wire).run();
        carriers.push(std::thread::spawn(carry));
    }
    carriers.into_iter().for_each(|carrier| carrier.join().unwrap());
}

/// Waits for a connection; `false` when the line is taken down.
fn ready(shared: &Shared, listening: &Listening) -> bool {
    let listener = match listening {
        Listening::Tcp(listener) => listener.as_fd(),
        Listening::Unix(listener) => listener.as_fd(),
    };
    let mut fds = [
        PollFd::new(&shared.over, PollFlags::IN),
        PollFd::from_borrowed_fd(listener, PollFlags::IN),
    ];
    while poll(&mut fds, None).is_err() {}
    fds[0].revents().is_empty()
}

fn connect(to: &Uri) -> std::io::Result<OwnedFd> {
    Ok(match to {
        Uri::Tcp { host, port } => {
            let stream = TcpStream::connect((&host[..], *port))?;
            stream.set_nodelay(true)?;
            stream.into()
        }
        Uri::Unix(path) => UnixStream::connect(path)?.into(),
        other => panic!("{other}"),
    })
}
