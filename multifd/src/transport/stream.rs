//! Connected sockets that several threads own.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{RecvFlags, SendFlags, recv, send};
use socket2::Socket;

use crate::error::Error;

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
    /// Says that nothing more is written.
    pub(crate) fn shut_writing(&self) {
        // Fails where the peer is gone already.
        _ = self.0.shutdown(Shutdown::Write);
    }

    /// Waits until there is something to read, or the end.
    pub(crate) fn wait_readable(&self) -> io::Result<()> {
        retry_on_intr(|| poll(&mut [PollFd::new(&*self.0, PollFlags::IN)], None))?;
        Ok(())
    }

    /// Reads what is there now, and 0 bytes at the end; `None` where nothing is there.
    pub(crate) fn read_now(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        match retry_on_intr(|| recv(&*self.0, &mut *buffer, RecvFlags::DONTWAIT)) {
            Ok((count, _)) => Ok(Some(count)),
            Err(Errno::AGAIN) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Whether the peer, which has nothing more to say, still has the connection.
    pub(crate) fn is_silent(&self) -> bool {
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        let peeked = retry_on_intr(|| recv(&*self.0, &mut [0_u8; 1][..], flags));
        peeked.is_err_and(|errno| errno == Errno::AGAIN)
    }
}

/// A socket for the short messages of the return path, which an honest peer always has room for.
/// Writing never blocks: no room is an error.
#[derive(Clone, Debug)]
pub(crate) struct Impatient(pub(crate) Stream);

impl Write for Impatient {
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
