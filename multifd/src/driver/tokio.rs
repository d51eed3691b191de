//! tokio's streams.

use std::io::{self, ErrorKind, IoSlice};

use multifd_core::channel::{Part, Parts};
use multifd_core::ram::GuestSlices;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::blocking::{copy, ended, scratch};
use super::{Receive, Transmit};

/// The most parts that are written at once.
const MOST_PARTS: usize = 64;

/// A stream of tokio as one end of a channel. Its loop yields to the runtime wherever it waits for
/// the network; compressing itself blocks, for a packet of 512 KiB at a time.
#[derive(Debug)]
pub struct Tokio<S> {
    stream: S,
    scratch: Vec<u8>,
}

impl<S> Tokio<S> {
    /// The channel's end over `stream`.
    pub fn new(stream: S) -> Self {
        Self { stream, scratch: Vec::new() }
    }

    /// The stream, back.
    pub fn into_inner(self) -> S {
        self.stream
    }
}

impl<S: AsyncWrite + Unpin + Send> Transmit for Tokio<S> {
    async fn write(&mut self, mut parts: Parts<'_>) -> io::Result<usize> {
        let mut slices = [IoSlice::new(&[]); MOST_PARTS];
        let mut count = 0;
        let leading = parts.clone().map_while(|part| match part {
            Part::Bytes(bytes) => Some(IoSlice::new(bytes)),
            Part::Guest(_) => None,
        });
        for (slot, slice) in slices.iter_mut().zip(leading) {
            *slot = slice;
            count += 1;
        }
        let written = match (count, parts.next()) {
            (0, Some(Part::Guest(pages))) => {
                self.stream.write(copy(&pages, &mut self.scratch)).await?
            }
            (0, _) => return Ok(0),
            // A stream that takes only one at once takes the first.
            (count, _) => self.stream.write_vectored(&slices[..count]).await?,
        };
        if written == 0 { Err(ErrorKind::WriteZero.into()) } else { Ok(written) }
    }

    async fn flush(&mut self) -> io::Result<()> {
        self.stream.flush().await
    }
}

impl<S: AsyncRead + Unpin + Send> Receive for Tokio<S> {
    async fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        ended(self.stream.read(room).await)
    }

    async fn read_guest(&mut self, room: GuestSlices<'_>) -> io::Result<usize> {
        let scratch = scratch(&mut self.scratch, room.bytes());
        let count = ended(self.stream.read(scratch).await)?;
        Ok(room.copy_from(&scratch[..count]))
    }
}
