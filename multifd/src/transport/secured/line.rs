//! Bytes of the socket below a TLS session.

use std::io;
use std::sync::atomic::Ordering::Relaxed;

use rustix::io::{Errno, retry_on_intr};
use rustix::net::{RecvFlags, SendFlags, recv, send};

use super::super::connection::at_any_pace;
use super::super::layer::Line;

impl Line<'_> {
    /// Waits for bytes; 0 at the end.
    pub(super) fn receive(self, room: &mut [u8]) -> io::Result<usize> {
        let received = at_any_pace(|| {
            let (count, _) = recv(self.socket, &mut *room, RecvFlags::empty())?;
            Ok(count)
        });
        received.inspect(|&count| self.count(count))
    }

    /// The bytes that are there now; `None` where none are.
    pub(super) fn receive_now(self, room: &mut [u8]) -> io::Result<Option<usize>> {
        match retry_on_intr(|| recv(self.socket, &mut *room, RecvFlags::DONTWAIT)) {
            Ok((count, _)) => {
                self.count(count);
                Ok(Some(count))
            }
            Err(Errno::AGAIN) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Sends the first of `bytes`, however long that takes.
    pub(in super::super) fn send(self, bytes: &[u8]) -> io::Result<usize> {
        // A peer that is gone is an error, never SIGPIPE.
        let sent = at_any_pace(|| Ok(send(self.socket, bytes, SendFlags::NOSIGNAL)?));
        sent.inspect(|&count| self.count(count))
    }

    /// Sends the first of `bytes`, as many as there is room for; `None` where there is none.
    pub(super) fn send_now(self, bytes: &[u8]) -> io::Result<Option<usize>> {
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        match retry_on_intr(|| send(self.socket, bytes, flags)) {
            Ok(count) => {
                self.count(count);
                Ok(Some(count))
            }
            Err(Errno::AGAIN) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    pub(in super::super) fn count(self, bytes: usize) {
        self.moved.fetch_add(bytes as u64, Relaxed);
    }
}
