//! Addresses in QEMU's notation.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Where to connect or listen: `tcp:HOST:PORT`, `unix:PATH` or `vsock:CID:PORT`, as QEMU's `migrate`
/// and `-incoming` take them, or `tcp://HOST:PORT`, as libvirt writes it.
///
/// HOST is a name or an address, IPv6 in brackets. To listen, an empty HOST is every address, of IPv6
/// and of IPv4, a name is all its addresses on this machine, and port 0 is any free port. To connect, an
/// empty HOST is this machine.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Uri {
    /// A TCP port.
    Tcp {
        /// The host's name or address, without brackets.
        host: String,
        /// The port.
        port: u16,
    },
    /// A Unix socket.
    Unix(PathBuf),
    /// A port of vsock, between a VM and its host.
    Vsock {
        /// The context: 2 is the host, 1 this machine, [`Uri::ANY_CID`] to listen on every one.
        cid: u32,
        /// The port.
        port: u32,
    },
    /// No address: connections that the program hands in, or a socket without a name. No text means
    /// it, and nobody can connect to it or listen on it.
    Unnamed,
}

/// A text that is not an address.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not an address: {why}; write tcp:HOST:PORT, unix:PATH or vsock:CID:PORT")]
pub struct MalformedUri {
    /// The text.
    pub text: String,
    /// What is wrong with it.
    pub why: &'static str,
}

impl Uri {
    /// Every context of this machine, to listen on vsock. Written as an empty CID.
    pub const ANY_CID: u32 = u32::MAX;

    fn parse(text: &str) -> Result<Self, &'static str> {
        let (scheme, rest) = text.split_once(':').ok_or("it starts with no scheme")?;
        match scheme {
            "unix" => unix(rest),
            "tcp" => tcp(rest),
            "vsock" => vsock(rest),
            "fd" => Err("a descriptor is handed over by the program, not by an address"),
            "exec" => Err("no command is run for a migration"),
            "file" => Err("a file is not a migration's other side"),
            "rdma" => Err("RDMA is not supported"),
            _ => Err("it starts with none of tcp:, unix: and vsock:"),
        }
    }
}

fn unix(path: &str) -> Result<Uri, &'static str> {
    match path {
        "" => Err("the path is empty"),
        path if path.contains('\0') => Err("the path contains a NUL"),
        path => Ok(Uri::Unix(path.into())),
    }
}

fn tcp(address: &str) -> Result<Uri, &'static str> {
    let address = match address.strip_prefix("//") {
        // As an authority it may end in a slash, and has no more.
        Some(authority) => authority.strip_suffix('/').unwrap_or(authority),
        None => address,
    };
    let (host, port) = address.rsplit_once(':').ok_or("the port is missing")?;
    if port.contains(',') {
        return Err("options behind the port are not supported");
    }
    if port.contains(['/', '?']) {
        return Err("something follows the port");
    }
    let port = decimal(port).ok_or("the port is not a number up to 65535")?;
    let host = match host.strip_prefix('[') {
        Some(rest) => {
            let inner = rest.strip_suffix(']').ok_or("']' is missing")?;
            if !inner.contains(':') {
                return Err("only an IPv6 address is written in brackets");
            }
            inner
        }
        None if host.contains(':') => return Err("an IPv6 address needs brackets"),
        None if host.contains('@') => return Err("there is no user in an address"),
        None if host.contains(['/', '?', ',', ']']) => return Err("the host is not a name"),
        None => host,
    };
    Ok(Uri::Tcp { host: host.to_owned(), port })
}

fn vsock(address: &str) -> Result<Uri, &'static str> {
    let (cid, port) = address.split_once(':').ok_or("the port is missing")?;
    let cid = match cid {
        "" => Uri::ANY_CID,
        cid => decimal(cid).ok_or("the CID is not a number of 32 bits")?,
    };
    let port = decimal(port).ok_or("the port is not a number of 32 bits")?;
    Ok(Uri::Vsock { cid, port })
}

/// A number in digits alone: no sign.
fn decimal<T: FromStr>(digits: &str) -> Option<T> {
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

impl FromStr for Uri {
    type Err = MalformedUri;

    fn from_str(text: &str) -> Result<Self, MalformedUri> {
        Self::parse(text).map_err(|why| MalformedUri { text: text.to_owned(), why })
    }
}

impl fmt::Display for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "tcp:[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "tcp:{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Vsock { cid: Self::ANY_CID, port } => write!(f, "vsock::{port}"),
            Self::Vsock { cid, port } => write!(f, "vsock:{cid}:{port}"),
            Self::Unnamed => f.write_str("(no address)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_as_they_are_written() {
        for text in [
            "tcp:127.0.0.1:4444",
            "tcp:[::1]:4444",
            "tcp::0",
            "tcp:localhost:1",
            "unix:/run/vm.sock",
            "unix://run/vm.sock",
            "vsock:2:1024",
            "vsock:4294967294:4294967295",
            "vsock::1024",
        ] {
            assert_eq!(text.parse::<Uri>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn the_spelling_of_libvirt_means_the_same() {
        for (text, same) in [
            ("tcp://127.0.0.1:49202", "tcp:127.0.0.1:49202"),
            ("tcp://[::1]:49202", "tcp:[::1]:49202"),
            ("tcp://destination:49202/", "tcp:destination:49202"),
        ] {
            assert_eq!(text.parse::<Uri>().unwrap().to_string(), same);
        }
    }

    #[test]
    fn anything_else_is_refused_with_why_and_what_to_write() {
        for (text, why) in [
            ("", "no scheme"),
            ("127.0.0.1", "no scheme"),
            ("http://host:80", "none of tcp:"),
            ("unix:", "path is empty"),
            ("unix:a\0b", "NUL"),
            ("tcp:host", "port is missing"),
            ("tcp:host:", "up to 65535"),
            ("tcp:host:+1", "up to 65535"),
            ("tcp:host:65536", "up to 65535"),
            ("tcp:::1:4444", "needs brackets"),
            ("tcp:[::1:1", "']' is missing"),
            ("tcp:[host]:1", "only an IPv6"),
            ("tcp://user@host:1", "no user"),
            ("tcp://host:1/path", "follows the port"),
            ("tcp://host/a:1", "not a name"),
            ("tcp:host:1,ipv4=on", "options"),
            ("vsock:2", "port is missing"),
            ("vsock:2:-1", "32 bits"),
            ("vsock:host:1", "the CID"),
            ("fd:3", "descriptor"),
            ("exec:cat", "no command"),
            ("file:/tmp/vm", "a file"),
            ("rdma:host:1", "RDMA"),
        ] {
            let error = text.parse::<Uri>().unwrap_err().to_string();
            assert!(error.contains("tcp:HOST:PORT") && error.contains(why), "{error}");
        }
    }
}
