//! What the kernel can do.

use std::io;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;

use socket2::Socket;

use super::keys::{Protection, Version};
use super::sys::{self, Direction};

/// That the kernel can do a session's TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Support {
    /// It takes new keys for old (from Linux 6.14).
    pub(super) rekeys: bool,
}

impl Support {
    /// Tries it on a connection to this machine itself: of a real one there is no way back to rustls once the kernel
    /// has a key.
    pub(super) fn of(protection: Protection) -> Result<Self, String> {
        // As long as the listener is there, so is the other end.
        let (socket, _listener) = connected().map_err(|error| {
            format!("what the kernel can do could not be tried over loopback ({error})")
        })?;
        sys::attach(&socket).map_err(|error| why_not(&error))?;
        let trial = protection.trial();
        for direction in [Direction::Receiving, Direction::Sending] {
            sys::set_keys(&socket, direction, &trial).map_err(|error| {
                let Protection { version, cipher } = protection;
                format!("it does not take keys for {version:?} with {cipher:?} ({error})")
            })?;
        }
        let again = || sys::set_keys(&socket, Direction::Sending, &trial).is_ok();
        Ok(Self { rekeys: protection.version == Version::Tls13 && again() })
    }
}

/// Why a socket does not take the kernel's TLS.
pub(super) fn why_not(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::ENOENT) => {
            "the kernel has no TLS (its module tls: modprobe tls, or CONFIG_TLS)".to_owned()
        }
        Some(libc::ENOPROTOOPT | libc::EOPNOTSUPP) => {
            "the kernel has TLS for TCP alone, or none".to_owned()
        }
        _ => format!("the socket does not take the kernel's TLS ({error})"),
    }
}

fn connected() -> io::Result<(Socket, TcpListener)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let stream = TcpStream::connect(listener.local_addr()?)?;
    Ok((OwnedFd::from(stream).into(), listener))
}
