//! A channel's end of a connection.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use multifd_core::channel::Parts;
use multifd_core::ram::GuestSlices;

use super::Connection;
use super::connection::at_any_pace;
use crate::driver::{Blocking, Receive, Socket, Transmit, ZeroCopy, ZeroCopyCounters};

/// A connection that carries a multifd channel. Over a bare socket, and where the kernel encrypts, pages
/// go straight from and into guest memory; other encryption and other streams copy them.
#[derive(Debug)]
pub(crate) struct Link {
    connection: Connection,
    copying: Blocking<Connection>,
    zero_copy: Option<ZeroCopy>,
}

impl Link {
    pub(crate) fn new(connection: &Connection) -> Self {
        let copying = Blocking::new(connection.clone());
        Self { connection: connection.clone(), copying, zero_copy: None }
    }

    /// Has guest memory sent from where it is.
    ///
    /// # Errors
    /// The connection is not TCP alone.
    pub(crate) fn with_zero_copy(self, counters: &Arc<ZeroCopyCounters>) -> io::Result<Self> {
        let socket = self.connection.plain_tcp()?;
        let zero_copy = ZeroCopy::over(socket, Arc::clone(counters))?;
        Ok(Self { zero_copy: Some(zero_copy), ..self })
    }
}

impl Transmit for Link {
    async fn write(&mut self, parts: Parts<'_>) -> io::Result<usize> {
        if let Some((layer, line)) = self.connection.layer() {
            if let Some(direct) = layer.direct() {
                return direct.send(line, parts);
            }
            return layer.write(line, parts.clone().map(|part| part.bytes()).sum(), &mut |room| {
                gather(parts.clone(), room)
            });
        }
        let Some(socket) = self.connection.bare_socket() else {
            return self.copying.write(parts).await;
        };
        let written = at_any_pace(|| match &mut self.zero_copy {
            Some(zero_copy) => zero_copy
                .send(socket.as_fd(), parts.clone(), &|writes| self.connection.note(writes)),
            None => Socket::new(socket).send(parts.clone()),
        });
        written.inspect(|&count| self.connection.count(count))
    }

    async fn flush(&mut self) -> io::Result<()> {
        self.copying.flush().await
    }

    async fn settle(&mut self) -> io::Result<()> {
        match (&mut self.zero_copy, self.connection.bare_socket()) {
            (Some(zero_copy), Some(socket)) => {
                zero_copy.settle(socket.as_fd(), &|writes| self.connection.note(writes))
            }
            _ => Ok(()),
        }
    }
}

impl Receive for Link {
    async fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let Some(socket) = self.connection.bare_socket() else {
            return self.copying.read(room).await;
        };
        let read = at_any_pace(|| Socket::new(socket).receive(room));
        read.inspect(|&count| self.connection.count(count))
    }

    async fn read_guest(&mut self, room: GuestSlices<'_>) -> io::Result<usize> {
        if let Some((layer, line)) = self.connection.layer() {
            if let Some(direct) = layer.direct() {
                return direct.receive_guest(line, room);
            }
        }
        let Some(socket) = self.connection.bare_socket() else {
            return self.copying.read_guest(room).await;
        };
        let read = at_any_pace(|| Socket::new(socket).receive_guest(room));
        read.inspect(|&count| self.connection.count(count))
    }
}

/// Copies the first bytes of `parts` into `room`, and says how many.
fn gather(parts: Parts<'_>, room: &mut [u8]) -> usize {
    let mut filled = 0;
    for part in parts {
        filled += part.copy_to(&mut room[filled..]);
        if filled == room.len() {
            break;
        }
    }
    filled
}
