//! Sockets, with vectored reads and writes straight into and out of guest memory.

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd};

use async_trait::async_trait;
use rustix::net::RecvFlags;

use super::{ChannelReader, ChannelWriter, Part};
use crate::ram::GuestPages;

/// The most pieces that the kernel takes at once: Linux's `IOV_MAX`.
const IOV_MAX: usize = 1024;

/// A blocking stream socket, TCP or Unix, as a channel.
///
/// A packet leaves in one vectored write; with method none, pages go straight from and into guest
/// memory. A peer that is gone is an error, never `SIGPIPE`.
#[derive(Debug)]
pub struct Socket<S> {
    socket: S,
}

impl<S: AsFd> Socket<S> {
    /// The channel over `socket`, which must be in blocking mode.
    pub fn new(socket: S) -> Self {
        Self { socket }
    }

    /// The socket.
    pub fn get_ref(&self) -> &S {
        &self.socket
    }

    /// The socket, back.
    pub fn into_inner(self) -> S {
        self.socket
    }
}

#[async_trait]
impl<S: AsFd + Send> ChannelWriter for Socket<S> {
    async fn write_parts(&mut self, parts: &[Part<'_>]) -> io::Result<()> {
        let mut pieces = Pieces::default();
        for part in parts {
            pieces.push(part);
        }
        pieces.transfer(&self.socket, Direction::Write)
    }
}

#[async_trait]
impl<S: AsFd + Send> ChannelReader for Socket<S> {
    async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        receive(&self.socket, buffer, RecvFlags::empty())
    }

    async fn read_exact(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        let mut filled = 0;
        while filled < buffer.len() {
            match receive(&self.socket, &mut buffer[filled..], RecvFlags::WAITALL)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => filled += count,
            }
        }
        Ok(())
    }

    async fn read_pages(&mut self, pages: GuestPages<'_>) -> io::Result<()> {
        let mut pieces = Pieces::default();
        pieces.push(&Part::Guest(pages));
        pieces.transfer(&self.socket, Direction::Read)?;
        for &offset in pages.offsets() {
            pages.block().memory().mark_dirty(offset as usize, pages.page_size().bytes());
        }
        Ok(())
    }
}

fn receive(socket: &impl AsFd, buffer: &mut [u8], flags: RecvFlags) -> io::Result<usize> {
    let (count, _) = rustix::io::retry_on_intr(|| rustix::net::recv(socket, &mut *buffer, flags))?;
    Ok(count)
}

#[derive(Clone, Copy)]
enum Direction {
    Read,
    Write,
}

/// Pieces of memory for the kernel to read or to fill, in order. Pages that are neighbours in guest
/// memory are one piece.
#[derive(Default)]
struct Pieces<'a> {
    vectors: Vec<libc::iovec>,
    memory: PhantomData<Part<'a>>,
}

impl<'a> Pieces<'a> {
    fn push(&mut self, part: &Part<'a>) {
        match part {
            Part::Bytes([]) => {}
            Part::Bytes(bytes) => {
                let iov_base = bytes.as_ptr().cast_mut().cast();
                self.vectors.push(libc::iovec { iov_base, iov_len: bytes.len() });
            }
            Part::Guest(pages) => {
                let first = self.vectors.len();
                for slice in pages.slices() {
                    self.push_page(first, slice.ptr_guard_mut().as_ptr(), slice.len());
                }
            }
        }
    }

    /// Appends a page to the vectors from `first` on, which are pages of the same block.
    fn push_page(&mut self, first: usize, start: *mut u8, len: usize) {
        if let Some(last) = self.vectors[first..].last_mut() {
            if last.iov_base.addr() + last.iov_len == start.addr() {
                last.iov_len += len;
                return;
            }
        }
        self.vectors.push(libc::iovec { iov_base: start.cast(), iov_len: len });
    }

    /// Has the kernel read or fill all pieces. Those to fill must be guest memory.
    fn transfer(mut self, socket: &impl AsFd, direction: Direction) -> io::Result<()> {
        let mut vectors = &mut self.vectors[..];
        while !vectors.is_empty() {
            match transfer_some(socket, vectors, direction) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => vectors = skip(vectors, count),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn transfer_some(
    socket: &impl AsFd,
    vectors: &mut [libc::iovec],
    direction: Direction,
) -> io::Result<usize> {
    let socket = socket.as_fd().as_raw_fd();
    // SAFETY: all zero is a valid `msghdr`: no address, no vectors, no control data.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = vectors.as_mut_ptr();
    message.msg_iovlen = vectors.len().min(IOV_MAX) as _;
    let count = match direction {
        // SAFETY: the vectors point into byte slices and guest memory that `Pieces` keeps
        // borrowed; the kernel only reads them, and copes with a guest that writes meanwhile.
        Direction::Write => unsafe { libc::sendmsg(socket, &message, libc::MSG_NOSIGNAL) },
        // SAFETY: `read_pages`, the only reader, has pushed nothing but guest memory, which is
        // borrowed, may be written at any time by anybody, and is only accessed as volatile.
        Direction::Read => unsafe { libc::recvmsg(socket, &mut message, libc::MSG_WAITALL) },
    };
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}

/// What is left of `vectors` after `count` bytes.
fn skip(mut vectors: &mut [libc::iovec], mut count: usize) -> &mut [libc::iovec] {
    while let Some(first) = vectors.first_mut() {
        if count < first.iov_len {
            first.iov_base = first.iov_base.wrapping_byte_add(count);
            first.iov_len -= count;
            break;
        }
        count -= first.iov_len;
        vectors = &mut vectors[1..];
    }
    vectors
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use vm_memory::MmapRegion;

    use super::*;
    use crate::page_size::PageSize;
    use crate::ram::RamBlock;
    use crate::wire::BlockName;

    const PAGES: usize = 64;

    fn block() -> RamBlock {
        let memory = MmapRegion::<()>::new(PAGES * 4096).unwrap();
        RamBlock::new(BlockName::new("ram").unwrap(), memory)
    }

    /// Every page's offset, odd ones first, so that no two are neighbours.
    fn offsets() -> Vec<u64> {
        let pages = 0..PAGES as u64;
        pages
            .clone()
            .filter(|page| page % 2 == 1)
            .chain(pages.filter(|page| page % 2 == 0))
            .map(|page| page * 4096)
            .collect()
    }

    fn content(page: usize) -> Vec<u8> {
        (0..4096).map(|at| (at * 31 + page * 7) as u8).collect()
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri has no sockets")]
    fn pages_go_from_guest_memory_to_guest_memory_in_their_order() {
        let (left, right) = UnixStream::pair().unwrap();
        let (source, destination, offsets) = (block(), block(), offsets());
        for page in 0..PAGES {
            source.write(page as u64 * 4096, &content(page));
        }
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let pages = GuestPages::new(&source, PageSize::Kib4, &offsets).unwrap();
                let parts = [Part::Bytes(b"head"), Part::Guest(pages), Part::Bytes(b"tail")];
                pollster::block_on(Socket::new(left).write_parts(&parts)).unwrap();
            });
            let pages = GuestPages::new(&destination, PageSize::Kib4, &offsets).unwrap();
            let mut reader = Socket::new(right);
            let mut word = [0; 4];
            pollster::block_on(reader.read_exact(&mut word)).unwrap();
            assert_eq!(&word, b"head");
            pollster::block_on(reader.read_pages(pages)).unwrap();
            pollster::block_on(reader.read_exact(&mut word)).unwrap();
            assert_eq!(&word, b"tail");
            assert_eq!(pollster::block_on(reader.read(&mut word)).unwrap(), 0);
        });
        for page in 0..PAGES {
            let mut copy = vec![0; 4096];
            destination.slice(page as u64 * 4096, 4096).copy_to(&mut copy);
            assert!(copy == content(page), "page {page}");
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri has no sockets")]
    fn writing_nothing_is_done_at_once() {
        let (left, _right) = UnixStream::pair().unwrap();
        let mut socket = Socket::new(left);
        pollster::block_on(socket.write_parts(&[Part::Bytes(b""), Part::Bytes(b"")])).unwrap();
        pollster::block_on(socket.write_parts(&[])).unwrap();
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri has no sockets")]
    fn a_peer_that_is_gone_is_an_error() {
        let (left, right) = UnixStream::pair().unwrap();
        drop(right);
        let mut socket = Socket::new(left);
        let block = block();
        let pages = GuestPages::new(&block, PageSize::Kib4, &[0]).unwrap();
        let written = pollster::block_on(socket.write_parts(&[Part::Guest(pages)]));
        assert_eq!(written.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        let read = pollster::block_on(socket.read_pages(pages));
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
