//! Sockets, with vectored reads and writes straight into and out of guest memory.

use std::io;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use multifd_core::channel::{Part, Parts};
use multifd_core::ram::GuestSlices;
use rustix::io::retry_on_intr;
use rustix::net::{RecvFlags, recv};

use super::{Receive, Transmit};

/// The most pieces that are moved at once: more than a packet has of any codec, fewer than Linux's
/// `IOV_MAX`.
const MOST_PIECES: usize = 512;

/// A blocking stream socket, TCP or Unix, as one end of a channel.
///
/// A packet leaves in one vectored write; with method none, pages go straight from and into guest
/// memory. A peer that is gone is an error, never `SIGPIPE`.
#[derive(Debug)]
pub struct Socket<S> {
    socket: S,
}

impl<S: AsFd> Socket<S> {
    /// The channel's end over `socket`, which must be in blocking mode.
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

    pub(crate) fn send(&self, parts: Parts<'_>) -> io::Result<usize> {
        let mut pieces = ToSend::default();
        parts.take_while(|part| pieces.push(part)).for_each(drop);
        pieces.send(self.socket.as_fd(), 0)
    }

    pub(crate) fn receive(&self, room: &mut [u8]) -> io::Result<usize> {
        let (count, _) = retry_on_intr(|| recv(&self.socket, &mut *room, RecvFlags::WAITALL))?;
        Ok(count)
    }

    pub(crate) fn receive_guest(&self, room: GuestSlices<'_>) -> io::Result<usize> {
        let mut pieces = ToFill::default();
        pieces.push(&room);
        pieces.fill(self.socket.as_fd())
    }
}

impl<S: AsFd + Send> Transmit for Socket<S> {
    async fn write(&mut self, parts: Parts<'_>) -> io::Result<usize> {
        self.send(parts)
    }
}

impl<S: AsFd + Send> Receive for Socket<S> {
    async fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        self.receive(room)
    }

    async fn read_guest(&mut self, room: GuestSlices<'_>) -> io::Result<usize> {
        self.receive_guest(room)
    }
}

/// Memory for the kernel to read, in order.
#[derive(Default)]
pub(super) struct ToSend<'a>(Pieces, PhantomData<Part<'a>>);

impl<'a> ToSend<'a> {
    /// Appends `part`, or the pieces of it that there is room for. Says whether that was all of it.
    pub(super) fn push(&mut self, part: &Part<'a>) -> bool {
        match part {
            Part::Bytes(bytes) => self.0.push(bytes.as_ptr().cast_mut(), bytes.len()),
            Part::Guest(pages) => self.0.push_guest(pages),
        }
    }

    /// Has the kernel read the first bytes, with more `flags`. Returns how many.
    pub(super) fn send(&mut self, socket: BorrowedFd<'_>, flags: libc::c_int) -> io::Result<usize> {
        let message = self.0.message();
        retry(|| {
            // SAFETY: the message has vectors that are all initialised and point into byte slices
            // and guest memory, which `self` keeps borrowed. The kernel only reads them, and copes
            // with a guest that writes its memory meanwhile. With `MSG_ZEROCOPY` it goes on to read the
            // memory's pages, which it holds, so that they are nobody else's even if they are unmapped.
            unsafe {
                libc::sendmsg(socket.as_raw_fd(), &raw const message, flags | libc::MSG_NOSIGNAL)
            }
        })
    }
}

/// Guest memory for the kernel to fill, in order. Nothing else can be put into it.
#[derive(Default)]
struct ToFill<'a>(Pieces, PhantomData<GuestSlices<'a>>);

impl<'a> ToFill<'a> {
    /// Appends `pages`, or the pieces of them that there is room for.
    fn push(&mut self, pages: &GuestSlices<'a>) {
        self.0.push_guest(pages);
    }

    /// Has the kernel fill the first bytes. Returns how many.
    fn fill(mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        let mut message = self.0.message();
        retry(|| {
            // SAFETY: the message has vectors that are all initialised and point into guest memory
            // alone, which `self` keeps borrowed, may be written at any time by anybody, and is
            // only ever accessed as volatile.
            unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_WAITALL) }
        })
    }
}

/// Where pieces of memory are, without a say on what may be done with them. Pages that are
/// neighbours in guest memory are one piece.
struct Pieces {
    vectors: [MaybeUninit<libc::iovec>; MOST_PIECES],
    /// How many of the vectors are initialised, from the first on.
    len: usize,
    /// Where the last piece ends, if it is guest memory.
    end: Option<*mut u8>,
}

impl Default for Pieces {
    fn default() -> Self {
        Self { vectors: [MaybeUninit::uninit(); MOST_PIECES], len: 0, end: None }
    }
}

impl Pieces {
    fn push_guest(&mut self, pages: &GuestSlices<'_>) -> bool {
        self.end = None;
        let pushed = pages.iter().all(|slice| {
            let start = slice.ptr_guard_mut().as_ptr();
            self.extend(start, slice.len()) || self.push(start, slice.len())
        });
        self.end = None;
        pushed
    }

    /// Makes the last piece longer, if that ends at `start`.
    fn extend(&mut self, start: *mut u8, len: usize) -> bool {
        if self.end != Some(start) {
            return false;
        }
        let Some(last) = self.len.checked_sub(1) else { return false };
        // SAFETY: the vectors up to `len` are initialised.
        let last = unsafe { self.vectors[last].assume_init_mut() };
        last.iov_len += len;
        self.end = Some(start.wrapping_add(len));
        true
    }

    fn push(&mut self, start: *mut u8, len: usize) -> bool {
        let Some(vector) = self.vectors.get_mut(self.len) else { return false };
        vector.write(libc::iovec { iov_base: start.cast(), iov_len: len });
        self.len += 1;
        self.end = Some(start.wrapping_add(len));
        true
    }

    /// The pieces as the kernel takes them. They must outlive it.
    fn message(&mut self) -> libc::msghdr {
        // SAFETY: all zero is a valid `msghdr`: no address, no vectors, no control data.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_iov = self.vectors.as_mut_ptr().cast();
        message.msg_iovlen = self.len as _;
        message
    }
}

pub(super) fn retry(mut attempt: impl FnMut() -> isize) -> io::Result<usize> {
    loop {
        match usize::try_from(attempt()) {
            Ok(count) => return Ok(count),
            Err(_) => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => {}
                error => return Err(error),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;
    use std::sync::Arc;

    use multifd_core::channel::{Received, RecvMachine, SendConfig, SendMachine, Target};
    use multifd_core::none::Plain;
    use multifd_core::ram::{GuestPages, PageBatch, Ram, RamBlock};
    use multifd_core::vm_memory::MmapRegion;
    use multifd_core::wire::BlockName;
    use multifd_core::{ChannelConfig, Error, PageSize};
    use pollster::block_on;

    use super::super::{RecvChannel, SendChannel, open};
    use super::*;

    const PAGES: usize = 128;

    fn ram() -> Arc<Ram> {
        let memory = MmapRegion::<()>::new(PAGES * 4096).unwrap();
        let block = RamBlock::new(BlockName::new("ram").unwrap(), memory);
        Arc::new(Ram::new(PageSize::Kib4, [block]).unwrap())
    }

    /// Some neighbours, then every page's offset, odd ones first, so that no two are neighbours.
    fn offsets() -> Vec<u64> {
        let (even, odd): (Vec<_>, Vec<_>) = (8..PAGES as u64).partition(|page| page % 2 == 0);
        (0..8).chain(odd).chain(even).map(|page| page * 4096).collect()
    }

    fn content(page: u64) -> Vec<u8> {
        (0..4096).map(|at| (at * 31 + page * 7) as u8).collect()
    }

    #[test]
    fn pages_go_from_guest_memory_to_guest_memory_in_their_order() {
        let (left, right) = UnixStream::pair().unwrap();
        let (source, destination) = (ram(), ram());
        for page in 0..PAGES as u64 {
            source.blocks()[0].write(page * 4096, &content(page));
        }
        let sending = std::thread::spawn({
            let source = Arc::clone(&source);
            move || {
                let config = SendConfig::new(ChannelConfig::new(0, PageSize::Kib4, 0));
                block_on(async {
                    let machine = SendMachine::new(&Plain, config).await?;
                    let mut channel = SendChannel::new(machine, Socket::new(left));
                    channel.send().await?;
                    let block = Arc::clone(&source.blocks()[0]);
                    channel.machine().pages(PageBatch::new(block, PageSize::Kib4, offsets())?)?;
                    channel.send().await?;
                    channel.finish().await.map(drop)
                })
            }
        });
        block_on(async {
            let mut socket = Socket::new(right);
            open(&mut socket, &mut multifd_core::channel::Opening::new()).await?;
            let machine = RecvMachine::new(&Plain, 0, PageSize::Kib4, Arc::default()).await?;
            let mut channel = RecvChannel::new(machine, socket);
            let mut next = async || {
                channel.next(|_| Ok::<_, Error>(Target::Ram(Arc::clone(&destination)))).await
            };
            assert_eq!(next().await?, Received::Pages);
            assert_eq!(next().await?, Received::End);
            Ok::<_, Error>(())
        })
        .unwrap();
        sending.join().unwrap().unwrap();
        for page in 0..PAGES as u64 {
            let mut copy = vec![0; 4096];
            destination.blocks()[0].slice(page * 4096, 4096).copy_to(&mut copy[..]);
            assert!(copy == content(page), "page {page}");
        }
    }

    /// The pieces of guest memory that the kernel gets.
    fn pieces(offsets: &[u64], skip: usize) -> Vec<usize> {
        let ram = ram();
        let pages = GuestPages::new(&ram.blocks()[0], PageSize::Kib4, offsets).unwrap();
        let mut pieces = Pieces::default();
        pieces.push_guest(&GuestSlices::new(pages, skip));
        // SAFETY: these vectors are initialised.
        let len = |at: usize| unsafe { pieces.vectors[at].assume_init_ref() }.iov_len;
        (0..pieces.len).map(len).collect()
    }

    #[test]
    fn pages_that_are_neighbours_in_guest_memory_are_one_piece() {
        assert_eq!(pieces(&[0, 4096, 8192, 0x8000, 0x7000], 0), [12288, 4096, 4096]);
        assert_eq!(pieces(&[0, 4096, 8192, 0x8000, 0x7000], 5000), [7288, 4096, 4096]);
        assert!(pieces(&[0, 4096], 8192).is_empty());
    }

    #[test]
    fn more_pieces_than_there_is_room_for_wait_for_the_next_write() {
        let mut pieces = ToSend::default();
        let pushed = (0..1000).take_while(|_| pieces.push(&Part::Bytes(b"x"))).count();
        assert_eq!(pushed, MOST_PIECES);
        let (left, mut right) = UnixStream::pair().unwrap();
        assert_eq!(pieces.send(left.as_fd(), 0).unwrap(), MOST_PIECES);
        drop(left);
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut right, &mut bytes).unwrap();
        assert_eq!(bytes, vec![b'x'; MOST_PIECES]);
    }

    #[test]
    fn a_peer_that_is_gone_is_an_error_to_write_to_and_the_end_to_read_from() {
        let (left, right) = UnixStream::pair().unwrap();
        drop(right);
        let ram = ram();
        let pages = GuestPages::new(&ram.blocks()[0], PageSize::Kib4, &[0]).unwrap();
        let pages = GuestSlices::new(pages, 0);
        let mut to_send = ToSend::default();
        to_send.push(&Part::Guest(pages));
        assert_eq!(to_send.send(left.as_fd(), 0).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        let mut socket = Socket::new(left);
        assert_eq!(block_on(socket.read_guest(pages)).unwrap(), 0);
        assert_eq!(block_on(socket.read(&mut [0; 4])).unwrap(), 0);
    }
}
