//! What an address stands for.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;

use socket2::{Domain, SockAddr, Socket, Type};

use super::Uri;

/// Where to connect for `uri`, in the order in which it is tried.
pub(super) fn to_connect(uri: &Uri) -> io::Result<Vec<SockAddr>> {
    match uri {
        Uri::Tcp { host, port } if host.is_empty() => {
            let here: [SocketAddr; 2] =
                [(Ipv4Addr::LOCALHOST, *port).into(), (Ipv6Addr::LOCALHOST, *port).into()];
            Ok(here.map(SockAddr::from).into())
        }
        Uri::Tcp { host, port } => look_up(host, *port),
        uri => one(uri),
    }
}

/// Where to listen for `uri`: at all of these.
pub(super) fn to_listen(uri: &Uri) -> io::Result<Vec<SockAddr>> {
    match uri {
        Uri::Tcp { host, port } if host.is_empty() => {
            // A socket of IPv6 takes connections of IPv4, too.
            let every: SocketAddr = match has_ipv6() {
                true => (Ipv6Addr::UNSPECIFIED, *port).into(),
                false => (Ipv4Addr::UNSPECIFIED, *port).into(),
            };
            Ok(vec![every.into()])
        }
        Uri::Tcp { host, port } => look_up(host, *port),
        uri => one(uri),
    }
}

/// The addresses of a host, each once. How long the look-up takes is for the system's resolver to say.
fn look_up(host: &str, port: u16) -> io::Result<Vec<SockAddr>> {
    let mut addresses: Vec<SocketAddr> = Vec::new();
    let found = (host, port).to_socket_addrs()?;
    for address in found.chain(other_loopback(host, port)) {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    if addresses.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
    }
    Ok(addresses.into_iter().map(SockAddr::from).collect())
}

/// Both addresses of `localhost`: the system's list of hosts often has one of them.
fn other_loopback(host: &str, port: u16) -> Vec<SocketAddr> {
    match host.eq_ignore_ascii_case("localhost") {
        true => vec![(Ipv4Addr::LOCALHOST, port).into(), (Ipv6Addr::LOCALHOST, port).into()],
        false => Vec::new(),
    }
}

fn one(uri: &Uri) -> io::Result<Vec<SockAddr>> {
    match uri {
        Uri::Unix(path) => Ok(vec![SockAddr::unix::<&PathBuf>(path)?]),
        Uri::Vsock { cid, port } => Ok(vec![SockAddr::vsock(*cid, *port)]),
        Uri::Tcp { .. } | Uri::Unnamed => {
            Err(io::Error::new(io::ErrorKind::InvalidInput, "there is no address"))
        }
    }
}

/// Whether an address is one that this machine does not have or cannot reach: of a family that is turned
/// off, or another machine's to listen on.
pub(super) fn is_elsewhere(error: &io::Error) -> bool {
    use io::ErrorKind::{AddrNotAvailable, NetworkUnreachable};

    // A family that the system does not know has no kind.
    matches!(error.kind(), AddrNotAvailable | NetworkUnreachable)
        || error.raw_os_error() == Some(libc::EAFNOSUPPORT)
}

fn has_ipv6() -> bool {
    let any: SocketAddr = (Ipv6Addr::UNSPECIFIED, 0).into();
    let bound = Socket::new(Domain::IPV6, Type::STREAM, None).and_then(|socket| {
        socket.set_only_v6(false)?;
        socket.bind(&any.into())
    });
    bound.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(addresses: Vec<SockAddr>) -> Vec<String> {
        let host = |address: SockAddr| address.as_socket().unwrap().ip().to_string();
        let mut hosts: Vec<_> = addresses.into_iter().map(host).collect();
        hosts.sort();
        hosts
    }

    #[test]
    fn localhost_is_both_loopback_addresses_whatever_the_system_lists() {
        for text in ["tcp:localhost:1", "tcp:LocalHost:1"] {
            let uri = text.parse().unwrap();
            assert_eq!(hosts(to_listen(&uri).unwrap()), ["127.0.0.1", "::1"]);
            assert_eq!(hosts(to_connect(&uri).unwrap()), ["127.0.0.1", "::1"]);
        }
    }

    #[test]
    fn an_empty_host_is_every_address_to_listen_and_this_machine_to_connect() {
        let uri = "tcp::1".parse().unwrap();
        let every = hosts(to_listen(&uri).unwrap());
        assert!(every == ["::"] || every == ["0.0.0.0"], "{every:?}");
        assert_eq!(hosts(to_connect(&uri).unwrap()), ["127.0.0.1", "::1"]);
    }

    #[test]
    fn no_address_is_nowhere() {
        to_connect(&Uri::Unnamed).unwrap_err();
        to_listen(&Uri::Unnamed).unwrap_err();
    }
}
