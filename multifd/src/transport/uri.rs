//! Addresses in QEMU's notation.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Where to connect or listen: `tcp:HOST:PORT` or `unix:PATH`, as QEMU's `migrate` and
/// `-incoming` take them.
///
/// HOST is a name or an address, IPv6 in brackets. To listen, an empty HOST is every address and
/// port 0 any free port.
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
}

/// A text that is no address.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is no address: {why}; write tcp:HOST:PORT or unix:PATH")]
pub struct MalformedUri {
    /// The text.
    pub text: String,
    /// What is wrong with it.
    pub why: &'static str,
}

impl FromStr for Uri {
    type Err = MalformedUri;

    fn from_str(text: &str) -> Result<Self, MalformedUri> {
        let refused = |why| MalformedUri { text: text.to_owned(), why };
        match text.split_once(':') {
            Some(("unix", "")) => Err(refused("the path is empty")),
            Some(("unix", path)) => Ok(Self::Unix(path.into())),
            Some(("tcp", address)) => {
                let (host, port) =
                    address.rsplit_once(':').ok_or_else(|| refused("the port is missing"))?;
                let port = port.parse().map_err(|_| refused("the port is no number to 65535"))?;
                let host = match host.strip_prefix('[') {
                    Some(rest) => {
                        rest.strip_suffix(']').ok_or_else(|| refused("']' is missing"))?
                    }
                    None if host.contains(':') => {
                        return Err(refused("an IPv6 address needs brackets"));
                    }
                    None => host,
                };
                Ok(Self::Tcp { host: host.to_owned(), port })
            }
            _ => Err(refused("it starts with neither tcp: nor unix:")),
        }
    }
}

impl fmt::Display for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "tcp:[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "tcp:{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_as_they_are_written() {
        for text in ["tcp:127.0.0.1:4444", "tcp:[::1]:4444", "tcp::0", "unix:/run/vm.sock"] {
            assert_eq!(text.parse::<Uri>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn anything_else_is_refused_with_what_to_write() {
        for text in [
            "",
            "unix:",
            "tcp:host",
            "tcp:host:",
            "tcp:host:65536",
            "tcp:::1:4444",
            "tcp:[::1:1",
            "fd:3",
        ] {
            let error = text.parse::<Uri>().unwrap_err().to_string();
            assert!(error.contains("tcp:HOST:PORT"), "{error}");
        }
    }
}
