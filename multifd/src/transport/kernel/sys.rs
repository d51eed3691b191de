//! What the kernel's TLS is asked for: options of a socket, and records with their types.

use std::io;
use std::mem::size_of;
use std::os::fd::AsRawFd;
use std::ptr;

use socket2::Socket;

/// The types of records.
pub(super) const ALERT: u8 = 21;
pub(super) const HANDSHAKE: u8 = 22;

/// A direction of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    Sending,
    Receiving,
}

/// Has `socket`, which is connected, ready for keys. Nothing changes of what it sends and receives before it
/// has some.
pub(super) fn attach(socket: &Socket) -> io::Result<()> {
    set_option(socket, libc::IPPROTO_TCP, libc::TCP_ULP, b"tls")
}

/// Has what goes in `direction` from now on encrypted or decrypted. `info` is one of the kernel's
/// `struct tls12_crypto_info_…`.
pub(super) fn set_keys(socket: &Socket, direction: Direction, info: &[u8]) -> io::Result<()> {
    let name = match direction {
        Direction::Sending => libc::TLS_TX,
        Direction::Receiving => libc::TLS_RX,
    };
    set_option(socket, libc::SOL_TLS, name, info)
}

fn set_option(socket: &Socket, level: i32, name: i32, value: &[u8]) -> io::Result<()> {
    let len = value.len() as libc::socklen_t;
    // SAFETY: the kernel reads `len` bytes, which `value` has.
    let set =
        unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, value.as_ptr().cast(), len) };
    if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Control data: the type of a record. Its size is `CMSG_SPACE(1)`, as the kernel wants to fill it.
#[repr(C)]
struct Control {
    header: libc::cmsghdr,
    /// The first is the type.
    data: [u8; size_of::<usize>()],
}

impl Control {
    fn new(name: i32, record: u8) -> Self {
        // SAFETY: all zero is a valid `cmsghdr`, which is made of numbers alone.
        let mut header: libc::cmsghdr = unsafe { std::mem::zeroed() };
        header.cmsg_level = libc::SOL_TLS;
        header.cmsg_type = name;
        // The header's size is aligned as the data needs it.
        header.cmsg_len = (size_of::<libc::cmsghdr>() + 1) as _;
        let mut data = [0; size_of::<usize>()];
        data[0] = record;
        Self { header, data }
    }

    fn message(&mut self, vector: &mut libc::iovec) -> libc::msghdr {
        // SAFETY: all zero is a valid `msghdr`: no address, no vectors, no control data.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_iov = vector;
        message.msg_iovlen = 1;
        message.msg_control = ptr::from_mut(self).cast();
        message.msg_controllen = size_of::<Self>() as _;
        message
    }
}

/// Sends `bytes` as one record of the type `record`.
pub(super) fn send_record(
    socket: &Socket,
    record: u8,
    bytes: &[u8],
    flags: i32,
) -> io::Result<usize> {
    let mut vector =
        libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let mut control = Control::new(libc::TLS_SET_RECORD_TYPE, record);
    let message = control.message(&mut vector);
    let flags = flags | libc::MSG_NOSIGNAL;
    // SAFETY: the message has one vector of `bytes`, which the kernel only reads, and control data that is
    // initialised; both are there for as long as the call.
    let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, flags) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// Receives what is there now of one record, or of several of data. Returns their type and how many bytes; at the end, that
/// is 0 bytes without a type.
pub(super) fn receive_record(socket: &Socket, room: &mut [u8]) -> io::Result<(Option<u8>, usize)> {
    let mut vector = libc::iovec { iov_base: room.as_mut_ptr().cast(), iov_len: room.len() };
    let mut control = Control::new(0, 0);
    let mut message = control.message(&mut vector);
    // SAFETY: the message has one vector of `room`, and control data as large as it says. The kernel writes to
    // both and to the message alone, no more than there is.
    let received =
        unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT) };
    let count = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
    let has_type = message.msg_controllen > 0
        && control.header.cmsg_level == libc::SOL_TLS
        && control.header.cmsg_type == libc::TLS_GET_RECORD_TYPE;
    Ok((has_type.then_some(control.data[0]), count))
}
