//! Any blocking stream of `std::io`.

use std::io::{self, ErrorKind, Read, Write};

use multifd_core::channel::{Part, Parts};
use multifd_core::ram::GuestSlices;

use super::{Receive, Transmit};

/// The most bytes of guest memory that are copied at once.
const SCRATCH: usize = 64 << 10;

/// A blocking stream as one end of a channel: a file, a TLS session, `&[u8]` and `Vec<u8>` in
/// tests.
///
/// Its futures block the thread instead of yielding. For TCP and Unix sockets
/// [`Socket`](super::Socket) is faster.
#[derive(Debug)]
pub struct Blocking<S> {
    stream: S,
    scratch: Vec<u8>,
}

impl<S> Blocking<S> {
    /// The channel's end over `stream`.
    pub fn new(stream: S) -> Self {
        Self { stream, scratch: Vec::new() }
    }

    /// The stream, back.
    pub fn into_inner(self) -> S {
        self.stream
    }
}

impl<S: Write + Send> Transmit for Blocking<S> {
    async fn write(&mut self, mut parts: Parts<'_>) -> io::Result<usize> {
        let bytes = match parts.next() {
            None => return Ok(0),
            Some(Part::Bytes(bytes)) => bytes,
            Some(Part::Guest(pages)) => copy(&pages, &mut self.scratch),
        };
        match retry(|| self.stream.write(bytes))? {
            0 => Err(ErrorKind::WriteZero.into()),
            count => Ok(count),
        }
    }

    async fn flush(&mut self) -> io::Result<()> {
        retry(|| self.stream.flush())
    }
}

impl<S: Read + Send> Receive for Blocking<S> {
    async fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        ended(retry(|| self.stream.read(room)))
    }

    async fn read_guest(&mut self, room: GuestSlices<'_>) -> io::Result<usize> {
        let scratch = scratch(&mut self.scratch, room.bytes());
        let count = ended(retry(|| self.stream.read(scratch)))?;
        Ok(room.copy_from(&scratch[..count]))
    }
}

/// Copies the first bytes of `pages` into `scratch`.
pub(super) fn copy<'a>(pages: &GuestSlices<'_>, scratch: &'a mut Vec<u8>) -> &'a [u8] {
    let bytes = self::scratch(scratch, pages.bytes());
    pages.copy_to(bytes);
    bytes
}

/// Room for `bytes` bytes, or as many as are moved at once.
pub(super) fn scratch(scratch: &mut Vec<u8>, bytes: usize) -> &mut [u8] {
    scratch.resize(SCRATCH, 0);
    &mut scratch[..bytes.min(SCRATCH)]
}

/// TLS may end without saying so. Where a packet is cut off by that, its machine says it.
pub(crate) fn ended(read: io::Result<usize>) -> io::Result<usize> {
    match read {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(0),
        read => read,
    }
}

fn retry<T>(mut attempt: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match attempt() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}
