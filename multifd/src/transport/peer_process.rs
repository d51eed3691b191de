//! The process on the other side of a Unix socket.

use std::num::NonZeroU32;
use std::os::fd::{AsRawFd, BorrowedFd};

/// The process that connected a Unix socket; none of other sockets, and none where this process cannot see it, as
/// in another container. Not by rustix, whose number of a process cannot be 0, which the kernel says then.
pub(super) fn of(socket: BorrowedFd<'_>) -> Option<NonZeroU32> {
    let mut found = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut bytes = libc::socklen_t::try_from(size_of_val(&found)).ok()?;
    // SAFETY: `found` is `bytes` long, all of which may be written, and any bytes make a `ucred`. Both live
    // longer than the call, and the descriptor is borrowed.
    let failed = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut found).cast(),
            &raw mut bytes,
        )
    };
    let process = if failed == 0 { u32::try_from(found.pid).ok()? } else { 0 };
    NonZeroU32::new(process)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn it_is_known_of_unix_sockets_alone() {
        let (own, _other) = UnixStream::pair().unwrap();
        assert_eq!(of(own.as_fd()).unwrap().get(), std::process::id());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let connected = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert_eq!(of(connected.as_fd()), None);
        assert_eq!(of(std::fs::File::open("/dev/null").unwrap().as_fd()), None);
    }
}
