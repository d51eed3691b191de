//! Any stream of `std::io`.

use std::io::{self, Read, Write};

use async_trait::async_trait;

use super::{ChannelReader, ChannelWriter, Part, for_each_piece};

/// A blocking stream as a channel: a file, a TLS session, `&[u8]` and `Vec<u8>` in tests.
///
/// It is always ready: its futures block the thread instead of yielding. For TCP and Unix sockets
/// [`Socket`](super::Socket) is faster.
#[derive(Debug)]
pub struct Blocking<S> {
    stream: S,
    page: Vec<u8>,
}

impl<S> Blocking<S> {
    /// The channel over `stream`.
    pub fn new(stream: S) -> Self {
        Self { stream, page: Vec::new() }
    }

    /// The stream.
    pub fn get_ref(&self) -> &S {
        &self.stream
    }

    /// The stream, back.
    pub fn into_inner(self) -> S {
        self.stream
    }
}

#[async_trait]
impl<S: Write + Send> ChannelWriter for Blocking<S> {
    async fn write_parts(&mut self, parts: &[Part<'_>]) -> io::Result<()> {
        for part in parts {
            for_each_piece(part, &mut self.page, |piece| self.stream.write_all(piece))?;
        }
        self.stream.flush()
    }
}

#[async_trait]
impl<S: Read + Send> ChannelReader for Blocking<S> {
    async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.stream.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }
}
