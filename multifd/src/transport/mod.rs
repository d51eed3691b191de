//! Connections: where to, and how they are made.

mod address;
mod connect;
mod connection;
#[cfg(feature = "tls")]
mod input_lock;
mod introduction;
#[cfg(feature = "tls")]
mod kernel;
mod layer;
mod link;
mod listener;
mod network;
#[allow(unsafe_code, reason = "no crate here asks for it without a number that cannot be 0")]
mod peer_process;
#[cfg(feature = "tls")]
mod secured;
mod uri;
mod watched;

use std::io;
use std::time::Duration;

use socket2::{Domain, Socket, TcpKeepalive};

pub(crate) use connect::{Attempt, connect};
pub use connection::Connection;
pub(crate) use connection::{Impatient, Unsaid, WeakConnection};
#[cfg(feature = "token")]
pub(crate) use introduction::Binding;
pub(crate) use introduction::{Introduce, Introduction, MigrationId, Role};
pub(crate) use layer::{Secure, is_refusal};
pub(crate) use link::Link;
pub use listener::Listener;
pub(crate) use listener::is_shortage;
pub(crate) use network::is_allowed;
pub use network::{MalformedNetwork, Network};
#[cfg(feature = "tls")]
pub(crate) use secured::Secured;
pub use uri::{MalformedUri, Uri};
pub(crate) use watched::Watched;

/// How long a connection is silent before the other host is probed, and between two probes.
const PROBE_AFTER: Duration = Duration::from_secs(30);
const PROBE_INTERVAL: Duration = Duration::from_secs(10);

/// `who`, at the other end of `connection`: asked for while it is connected.
#[cfg(any(feature = "tls", feature = "token"))]
pub(crate) fn name_of(who: &str, connection: &Connection) -> String {
    match connection.peer() {
        Some(address) => format!("{who} at {address}"),
        None => who.to_owned(),
    }
}

/// What a TCP connection needs. A packet leaves in one write: waiting for more only costs time. And a
/// host that vanishes says nothing: probes find out.
fn set_up(socket: &Socket, domain: Domain) -> io::Result<()> {
    if domain != Domain::IPV4 && domain != Domain::IPV6 {
        return Ok(());
    }
    socket.set_tcp_nodelay(true)?;
    let probes = TcpKeepalive::new().with_time(PROBE_AFTER).with_interval(PROBE_INTERVAL);
    socket.set_tcp_keepalive(&probes)
}
