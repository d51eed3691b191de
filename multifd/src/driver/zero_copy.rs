//! Guest memory that the kernel sends from where it is: `MSG_ZEROCOPY` of TCP.
//!
//! Each write of guest memory is numbered by the kernel, which says in the socket's error queue when it
//! reads that memory no more, and whether it has made a copy after all, as it does over loopback.

use std::io;
use std::mem::{MaybeUninit, size_of, size_of_val, zeroed};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use multifd_core::channel::{Part, Parts};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::sockopt::socket_error;

use super::socket::{ToSend, retry};

/// Socket option (`include/uapi/asm-generic/socket.h`).
const SO_ZEROCOPY: libc::c_int = 60;
/// Of a message in the error queue, and its code (`include/uapi/linux/errqueue.h`).
const SO_EE_ORIGIN_ZEROCOPY: u8 = 5;
const SO_EE_CODE_ZEROCOPY_COPIED: u8 = 1;

/// Writes of guest memory on all channels of a migration.
#[derive(Debug, Default)]
pub(crate) struct ZeroCopyCounters {
    /// All of them.
    pub(crate) writes: AtomicU64,
    /// Those whose memory was copied all the same.
    pub(crate) copied: AtomicU64,
}

/// The guest memory that a TCP socket still sends from.
#[derive(Debug)]
pub(crate) struct ZeroCopy {
    counters: Arc<ZeroCopyCounters>,
    /// Writes that the kernel has taken, and of these those that it is done with.
    sent: u64,
    done: u64,
}

impl ZeroCopy {
    /// Asks the kernel for it.
    ///
    /// # Errors
    /// The socket is not TCP, or the kernel has no such thing.
    pub(crate) fn over(socket: impl AsFd, counters: Arc<ZeroCopyCounters>) -> io::Result<Self> {
        let on: libc::c_int = 1;
        retry(|| {
            // SAFETY: the option's value is an `int`, which lives through the call.
            let set = unsafe {
                libc::setsockopt(
                    socket.as_fd().as_raw_fd(),
                    libc::SOL_SOCKET,
                    SO_ZEROCOPY,
                    (&raw const on).cast(),
                    size_of_val(&on) as libc::socklen_t,
                )
            };
            set as isize
        })?;
        Ok(Self { counters, sent: 0, done: 0 })
    }

    /// Sends the first bytes of `parts` and says how many: guest memory without a copy, what is around it,
    /// whose memory is used again, with one. `done` is told what is done meanwhile, where that has to be waited for.
    ///
    /// # Errors
    /// As of any write.
    pub(crate) fn send(
        &mut self,
        socket: BorrowedFd<'_>,
        parts: Parts<'_>,
        done: &dyn Fn(u64),
    ) -> io::Result<usize> {
        let mut parts = parts.peekable();
        let is_guest = |part: &Part<'_>| matches!(part, Part::Guest(_));
        let guest = parts.peek().is_some_and(is_guest);
        let mut pieces = ToSend::default();
        while let Some(part) = parts.next_if(|part| is_guest(part) == guest) {
            if !pieces.push(&part) {
                break;
            }
        }
        match guest {
            true => self.send_guest(socket, &mut pieces, done),
            // What follows is sent with it.
            false if parts.peek().is_some() => pieces.send(socket, libc::MSG_MORE),
            false => pieces.send(socket, 0),
        }
    }

    fn send_guest(
        &mut self,
        socket: BorrowedFd<'_>,
        pieces: &mut ToSend<'_>,
        done: &dyn Fn(u64),
    ) -> io::Result<usize> {
        loop {
            match pieces.send(socket, libc::MSG_ZEROCOPY) {
                Ok(count) => {
                    self.sent += 1;
                    self.counters.writes.fetch_add(1, Relaxed);
                    self.collect(socket)?;
                    return Ok(count);
                }
                // More memory is locked than may be (RLIMIT_MEMLOCK), or there is no more room for what the
                // kernel has to say (net.core.optmem_max).
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    if self.done == self.sent {
                        let count = pieces.send(socket, 0)?;
                        self.counters.writes.fetch_add(1, Relaxed);
                        self.counters.copied.fetch_add(1, Relaxed);
                        return Ok(count);
                    }
                    done(self.wait(socket)?);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Waits until the kernel reads no guest memory any more: the peer's has all of it, or the connection is gone.
    /// `done` is told how many writes are done, as they are.
    ///
    /// # Errors
    /// The connection is gone.
    pub(crate) fn settle(&mut self, socket: BorrowedFd<'_>, done: &dyn Fn(u64)) -> io::Result<()> {
        while self.done < self.sent {
            done(self.wait(socket)?);
        }
        Ok(())
    }

    /// Waits until the kernel is done with one more write at least, and says with how many.
    fn wait(&mut self, socket: BorrowedFd<'_>) -> io::Result<u64> {
        loop {
            let writes = self.collect(socket)?;
            if writes > 0 {
                return Ok(writes);
            }
            // That there is an error, or something in the error queue, is told unasked.
            let mut looked = [PollFd::new(&socket, PollFlags::empty())];
            retry_on_intr(|| poll(&mut looked, None))?;
            let writes = self.collect(socket)?;
            if writes > 0 {
                return Ok(writes);
            }
            socket_error(socket)??;
            if looked[0].revents().contains(PollFlags::HUP) {
                return Err(Errno::PIPE.into());
            }
        }
    }

    /// Takes what the kernel has said, and says with how many writes it is done.
    fn collect(&mut self, socket: BorrowedFd<'_>) -> io::Result<u64> {
        let before = self.done;
        while let Some(done) = next_notification(socket)? {
            let writes = u64::from(done.ee_data.wrapping_sub(done.ee_info)) + 1;
            self.done += writes;
            if done.ee_code == SO_EE_CODE_ZEROCOPY_COPIED {
                self.counters.copied.fetch_add(writes, Relaxed);
            }
        }
        Ok(self.done - before)
    }
}

/// The next message of the error queue: from which write on (`ee_info`) to which (`ee_data`) the kernel is done.
fn next_notification(socket: BorrowedFd<'_>) -> io::Result<Option<libc::sock_extended_err>> {
    // A header, the message and an address, aligned as a header.
    let mut control = [MaybeUninit::<u64>::uninit(); 16];
    // SAFETY: all zero is a valid `msghdr`: no address, no vectors, no control data.
    let mut message: libc::msghdr = unsafe { zeroed() };
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control) as _;
    let flags = libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT;
    let received = retry(|| {
        // SAFETY: the control data lives through the call and is as long as is said; there is no other
        // memory to be filled.
        unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, flags) }
    });
    match received {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
        Err(error) => return Err(error),
    }
    // SAFETY: `recvmsg` has filled the control data and said how long it is.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
    // SAFETY: it is null or a header inside the control data, which is aligned for it.
    while let Some(header) = unsafe { next.as_ref() } {
        if is_error(header) {
            // SAFETY: it is a header inside the control data.
            let data = unsafe { libc::CMSG_DATA(header) };
            // SAFETY: the data behind a header of this kind and length begins with this structure.
            let error = unsafe { data.cast::<libc::sock_extended_err>().read_unaligned() };
            if error.ee_origin == SO_EE_ORIGIN_ZEROCOPY {
                return Ok(Some(error));
            }
            let code = i32::try_from(error.ee_errno).unwrap_or_default();
            return Err(io::Error::from_raw_os_error(code));
        }
        // Whoever made the socket may have asked for others, such as times.
        // SAFETY: the header is one of the message's.
        next = unsafe { libc::CMSG_NXTHDR(&raw const message, header) };
    }
    Err(io::Error::other("the socket's error queue has a message without an error"))
}

fn is_error(header: &libc::cmsghdr) -> bool {
    // Its type is another with other C libraries.
    #[allow(clippy::unnecessary_cast, clippy::useless_conversion, reason = "not with all")]
    let len = header.cmsg_len as usize;
    matches!(
        (header.cmsg_level, header.cmsg_type),
        (libc::SOL_IP, libc::IP_RECVERR) | (libc::SOL_IPV6, libc::IPV6_RECVERR)
    ) && len >= size_of::<(libc::cmsghdr, libc::sock_extended_err)>()
}

#[cfg(test)]
mod tests {
    use std::net::{Shutdown, TcpListener, TcpStream};
    use std::os::unix::net::UnixStream;
    use std::thread;
    use std::time::Duration;

    use multifd_core::PageSize;
    use multifd_core::ram::{GuestPages, GuestSlices, RamBlock};
    use multifd_core::vm_memory::MmapRegion;
    use multifd_core::wire::BlockName;

    use super::*;

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (near, listener.accept().unwrap().0)
    }

    #[test]
    fn what_the_peer_has_not_taken_is_waited_for() {
        let (near, mut far) = pair();
        // A write that nobody takes ends.
        near.set_write_timeout(Some(Duration::from_millis(20))).unwrap();
        let ram =
            RamBlock::new(BlockName::new("ram").unwrap(), MmapRegion::<()>::new(1 << 20).unwrap());
        let offsets: Vec<_> = (0..256).map(|page| page * 4096).collect();
        let pages = GuestPages::new(&ram, PageSize::Kib4, &offsets).unwrap();
        let pages = GuestSlices::new(pages, 0);
        let mut zero_copy = ZeroCopy::over(&near, Arc::default()).unwrap();
        let mut sent = 0;
        let mut send = || {
            let mut pieces = ToSend::default();
            pieces.push(&Part::Guest(pages));
            zero_copy.send_guest(near.as_fd(), &mut pieces, &|_| ())
        };
        while let Ok(count) = send() {
            sent += count as u64;
        }
        // What has not left is in the memory still.
        assert!(zero_copy.done < zero_copy.sent, "{zero_copy:?}");
        let reading = thread::spawn(move || io::copy(&mut far, &mut io::sink()));
        let told = AtomicU64::new(zero_copy.done);
        zero_copy.settle(near.as_fd(), &|writes| _ = told.fetch_add(writes, Relaxed)).unwrap();
        assert_eq!((zero_copy.done, told.into_inner()), (zero_copy.sent, zero_copy.sent));
        drop(near);
        assert_eq!(reading.join().unwrap().unwrap(), sent);
    }

    #[test]
    fn waiting_for_what_never_comes_ends_when_the_connection_is_shut_down() {
        let (near, _far) = pair();
        let mut zero_copy = ZeroCopy::over(&near, Arc::default()).unwrap();
        zero_copy.sent = 1;
        let other = near.try_clone().unwrap();
        let waiting = thread::spawn(move || zero_copy.settle(near.as_fd(), &|_| ()));
        other.shutdown(Shutdown::Both).unwrap();
        assert_eq!(waiting.join().unwrap().unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn waiting_for_what_never_comes_ends_when_the_peer_resets_the_connection() {
        let (near, far) = pair();
        let mut zero_copy = ZeroCopy::over(&near, Arc::default()).unwrap();
        zero_copy.sent = 1;
        let waiting = thread::spawn(move || zero_copy.settle(near.as_fd(), &|_| ()));
        let far = socket2::Socket::from(far);
        far.set_linger(Some(Duration::ZERO)).unwrap();
        drop(far);
        assert_eq!(waiting.join().unwrap().unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }

    #[test]
    fn a_unix_socket_does_not_have_it() {
        let (near, _far) = UnixStream::pair().unwrap();
        ZeroCopy::over(near, Arc::default()).unwrap_err();
    }
}
