//! Listening for connections.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::io::retry_on_intr;
use socket2::Socket;

use super::{Uri, first_that, set_up, stream_socket};
use crate::error::Error;

/// Connections that may wait to be accepted: every channel of one migration at once.
const BACKLOG: i32 = 256;

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

fn is_transient(error: &io::Error) -> bool {
    use io::ErrorKind::{
        ConnectionAborted, HostUnreachable, Interrupted, NetworkDown, NetworkUnreachable,
    };
    matches!(
        error.kind(),
        ConnectionAborted | HostUnreachable | Interrupted | NetworkDown | NetworkUnreachable
    )
}
