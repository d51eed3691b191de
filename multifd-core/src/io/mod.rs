//! What a channel is read from and written to.
//!
//! The library brings no runtime: a blocking stream ([`Blocking`], or [`Socket`] for the best
//! speed) is always ready, so that any executor, even one poll, drives a channel on a thread of
//! its own. With the feature `tokio`, `Tokio` adapts that runtime's streams.

mod blocking;
mod socket;
#[cfg(feature = "tokio")]
mod tokio;

use std::io;

use async_trait::async_trait;

pub use self::blocking::Blocking;
pub use self::socket::Socket;
#[cfg(feature = "tokio")]
pub use self::tokio::Tokio;
use crate::ram::GuestPages;

/// A part of what is written at once.
#[derive(Clone, Copy, Debug)]
pub enum Part<'a> {
    /// Bytes of ours.
    Bytes(&'a [u8]),
    /// Pages of guest memory, as they are when they are written.
    Guest(GuestPages<'a>),
}

impl Part<'_> {
    /// Length in bytes.
    pub fn len(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Guest(pages) => pages.bytes(),
        }
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The sending end of a channel.
#[async_trait]
pub trait ChannelWriter: Send {
    /// Writes all parts, one behind the other, and does not hold any of it back.
    async fn write_parts(&mut self, parts: &[Part<'_>]) -> io::Result<()>;
}

/// The receiving end of a channel.
#[async_trait]
pub trait ChannelReader: Send {
    /// Reads at least one byte and at most `buffer`'s length. Returns how many; 0 at the end.
    async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize>;

    /// Fills `buffer`.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] where the channel ends before.
    async fn read_exact(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.read(&mut buffer[filled..]).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => filled += count,
            }
        }
        Ok(())
    }

    /// Reads `pages` from the channel, one behind the other, into guest memory. Goes through a
    /// buffer of one page, unless the stream can do better.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] where the channel ends before.
    async fn read_pages(&mut self, pages: GuestPages<'_>) -> io::Result<()> {
        let mut page = vec![0; pages.page_size().bytes()];
        for index in 0..pages.len() {
            self.read_exact(&mut page).await?;
            pages.write(index, &page);
        }
        Ok(())
    }
}

/// The bytes of `part`, in pieces of a page at most, for streams that write from ordinary memory.
/// `page` is scratch space.
fn for_each_piece<E>(
    part: &Part<'_>,
    page: &mut Vec<u8>,
    mut write: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), E> {
    match part {
        Part::Bytes(bytes) => write(bytes),
        Part::Guest(pages) => {
            page.resize(pages.page_size().bytes(), 0);
            pages.slices().try_for_each(|slice| {
                slice.copy_to(&mut page[..]);
                write(page)
            })
        }
    }
}
