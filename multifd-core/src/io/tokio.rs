//! tokio's streams.

use std::io;

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{ChannelReader, ChannelWriter, Part, for_each_piece};

/// A stream of tokio as a channel. A channel's loop on it yields to the runtime wherever it waits
/// for the network; compressing itself blocks, for a packet of 512 KiB at a time.
#[derive(Debug)]
pub struct Tokio<S> {
    stream: S,
    staged: Vec<u8>,
    page: Vec<u8>,
}

impl<S> Tokio<S> {
    /// The channel over `stream`.
    pub fn new(stream: S) -> Self {
        Self { stream, staged: Vec::new(), page: Vec::new() }
    }
}

#[async_trait]
impl<S: AsyncWrite + Unpin + Send> ChannelWriter for Tokio<S> {
    async fn write_parts(&mut self, parts: &[Part<'_>]) -> io::Result<()> {
        // One write of one buffer: not every stream of tokio's can take several at once.
        self.staged.clear();
        for part in parts {
            for_each_piece(part, &mut self.page, |piece| {
                self.staged.extend_from_slice(piece);
                Ok::<(), io::Error>(())
            })?;
        }
        self.stream.write_all(&self.staged).await?;
        self.stream.flush().await
    }
}

#[async_trait]
impl<S: AsyncRead + Unpin + Send> ChannelReader for Tokio<S> {
    async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.read(buffer).await
    }
}
