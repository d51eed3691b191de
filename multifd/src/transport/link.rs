//! A channel's end of a connection.

use std::io;

use multifd_core::channel::Parts;
use multifd_core::ram::GuestSlices;

use super::Connection;
use super::connection::at_any_pace;
use crate::driver::{Blocking, Receive, Socket, Transmit};

/// A connection that carries a multifd channel. Over a bare socket, and where the kernel encrypts, pages
/// go straight from and into guest memory; other encryption and other streams copy them.
#[derive(Debug)]
pub(crate) struct Link {
    connection: Connection,
    copying: Blocking<Connection>,
}

impl Link {
    pub(crate) fn new(connection: &Connection) -> Self {
        Self { connection: connection.clone(), copying: Blocking::new(connection.clone()) }
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
        let written = at_any_pace(|| Socket::new(socket).send(parts.clone()));
        written.inspect(|&count| self.connection.count(count))
    }

    async fn flush(&mut self) -> io::Result<()> {
        self.copying.flush().await
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
