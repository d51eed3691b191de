//! Where a service answers those that watch it: on this machine alone.

use std::fs;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use multifd::Uri;
use socket2::{Domain, SockAddr, Socket, Type};

use crate::failure::Failure;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 128;

/// A listening socket, which does not wait in `accept`.
#[derive(Debug)]
pub(super) struct Bound {
    pub(super) socket: Socket,
    /// With the port that was picked where port 0 was asked for.
    pub(super) uri: Uri,
    _file: Option<SocketFile>,
}

/// The file of a Unix socket, which is removed in the end.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    /// Its device and inode.
    id: (u64, u64),
}

impl Bound {
    /// Listens on `uri`: on the first of a name's addresses that can be listened on.
    pub(super) fn new(uri: &Uri) -> Result<Self, Failure> {
        let addresses = addresses(uri)?;
        let mut failed = None;
        for address in addresses {
            match Self::at(&address, uri) {
                Ok(bound) => return Ok(bound),
                Err(error) => failed = Some(error),
            }
        }
        let error = failed.unwrap_or_else(|| io::ErrorKind::AddrNotAvailable.into());
        Err(cannot_listen(uri, &error))
    }

    fn at(address: &SockAddr, uri: &Uri) -> io::Result<Self> {
        let socket = Socket::new(address.domain(), Type::STREAM, None)?;
        if address.domain() != Domain::UNIX {
            socket.set_reuse_address(true)?;
        }
        socket.bind(address)?;
        // From here on: what fails later removes it.
        let file = address.as_pathname().and_then(SocketFile::at);
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        let uri = match socket.local_addr()?.as_socket() {
            Some(bound) => Uri::Tcp { host: bound.ip().to_string(), port: bound.port() },
            None => uri.clone(),
        };
        Ok(Self { socket, uri, _file: file })
    }
}

impl SocketFile {
    fn at(path: &Path) -> Option<Self> {
        Some(Self { path: path.to_owned(), id: id_of(path)? })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // By now it may be another's.
        if id_of(&self.path) == Some(self.id) {
            _ = fs::remove_file(&self.path);
        }
    }
}

fn id_of(path: &Path) -> Option<(u64, u64)> {
    let metadata = fs::symlink_metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

/// The addresses of this machine that `uri` stands for. None may be one that others reach.
fn addresses(uri: &Uri) -> Result<Vec<SockAddr>, Failure> {
    let found = match uri {
        Uri::Unix(path) => {
            return SockAddr::unix(path)
                .map(|at| vec![at])
                .map_err(|error| cannot_listen(uri, &error));
        }
        Uri::Tcp { host, port } if !host.is_empty() => (&**host, *port).to_socket_addrs(),
        _ => return Err(elsewhere(uri)),
    };
    let found: Vec<SocketAddr> = found.map_err(|error| cannot_listen(uri, &error))?.collect();
    if found.iter().all(|address| address.ip().to_canonical().is_loopback()) {
        Ok(found.into_iter().map(SockAddr::from).collect())
    } else {
        Err(elsewhere(uri))
    }
}

fn elsewhere(uri: &Uri) -> Failure {
    Failure::usage(format!(
        "--metrics {uri} would answer other machines, in the clear: listen on 127.0.0.1, [::1] or a Unix socket, and \
         put a proxy with TLS in front for others"
    ))
}

fn cannot_listen(uri: &Uri, error: &io::Error) -> Failure {
    let doing = format!("cannot listen on {uri} for --metrics");
    match (error.kind(), uri) {
        (io::ErrorKind::AddrInUse, Uri::Unix(_)) => {
            Failure::new(format!("{doing}: it exists; remove the file if nothing listens there"))
        }
        (io::ErrorKind::AddrInUse, _) => {
            Failure::new(format!("{doing}: it is in use; pick another port"))
        }
        _ => Failure::io(doing, error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    #[test]
    fn what_other_machines_could_reach_is_refused_with_what_to_do_instead() {
        for text in ["tcp::9464", "tcp:0.0.0.0:9464", "tcp:[::]:0", "tcp:192.0.2.7:1", "vsock:2:1"]
        {
            let error = Bound::new(&text.parse().unwrap()).unwrap_err().to_string();
            assert!(error.contains(text) && error.contains("a proxy"), "{error}");
        }
    }

    #[test]
    fn a_free_port_of_this_machine_is_named() {
        for text in ["tcp:127.0.0.1:0", "tcp:localhost:0"] {
            let bound = Bound::new(&text.parse().unwrap()).unwrap();
            assert!(matches!(&bound.uri, Uri::Tcp { port, .. } if *port != 0), "{}", bound.uri);
        }
    }

    #[test]
    fn a_port_or_a_file_that_is_taken_is_an_error_that_says_what_to_do() {
        let taken = Bound::new(&"tcp:127.0.0.1:0".parse().unwrap()).unwrap();
        let error = Bound::new(&taken.uri).unwrap_err().to_string();
        assert!(error.contains("pick another port"), "{error}");
        let folder = tempfile::tempdir().unwrap();
        let uri = Uri::Unix(folder.path().join("sock"));
        let _taken = Bound::new(&uri).unwrap();
        let error = Bound::new(&uri).unwrap_err().to_string();
        assert!(error.contains("remove the file"), "{error}");
    }

    #[test]
    fn a_socket_file_goes_in_the_end_and_anothers_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sock");
        let uri = Uri::Unix(path.clone());
        let bound = Bound::new(&uri).unwrap();
        UnixStream::connect(&path).unwrap();
        drop(bound);
        assert!(!path.exists());
        let bound = Bound::new(&uri).unwrap();
        fs::remove_file(&path).unwrap();
        let _other = UnixListener::bind(&path).unwrap();
        drop(bound);
        assert!(path.exists());
    }
}
