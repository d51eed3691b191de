//! Who may connect.

use multifd::{Network, Uri};

use crate::failure::Failure;
use crate::output::Output;

/// Who may connect.
#[derive(Debug, clap::Args)]
pub(crate) struct Admission {
    /// Take TCP connections from these networks alone, such as 192.0.2.0/24; several with commas
    #[arg(long, value_name = "NETWORK", value_delimiter = ',')]
    allow_from: Vec<Network>,
}

impl Admission {
    /// The networks that connections to `listen` may come from; any if there are none. Where it is not known, it is
    /// TCP.
    pub(crate) fn networks(&self, listen: Option<&Uri>) -> Result<Vec<Network>, Failure> {
        if self.allow_from.is_empty() {
            return Ok(Vec::new());
        }
        let (listen, instead) = match listen {
            Some(uri @ Uri::Unix(_)) => {
                (uri, "who may use a Unix socket, the permissions of its file and folder say")
            }
            Some(uri @ Uri::Vsock { .. }) => {
                (uri, "vsock connects this machine and its own guests alone")
            }
            _ => return Ok(self.allow_from.clone()),
        };
        Err(Failure::usage(format!("--allow-from is of no use with {listen}: {instead}")))
    }
}

/// Warns of listening at `uri` without TLS, which `option` asks for, where everybody on the way can read
/// what comes, and change it, though a token keeps those out who can only connect.
pub(crate) fn warn_of_network(uri: &Uri, option: &str, has_token: bool, output: &Output) {
    if is_on_network(uri) {
        let lack = match has_token {
            true => "not encrypted, and the token says who connects, not what they send then",
            false => "neither encrypted nor proven to be from the source",
        };
        output.warn(&format!(
            "what comes to {uri} is {lack}: use {option} DIR, or listen on 127.0.0.1 behind a tunnel"
        ));
    }
}

/// Whether other machines may connect to `uri`.
fn is_on_network(uri: &Uri) -> bool {
    let Uri::Tcp { host, .. } = uri else { return false };
    match host.parse::<std::net::IpAddr>() {
        Ok(address) => !address.to_canonical().is_loopback(),
        Err(_) => !host.eq_ignore_ascii_case("localhost"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_unix_and_vsock_are_not_on_the_network_and_all_else_is() {
        for (uri, on_network) in [
            ("tcp:127.0.0.1:1", false),
            ("tcp:127.8.8.8:1", false),
            ("tcp:[::1]:1", false),
            ("tcp:LocalHost:1", false),
            ("unix:/tmp/sock", false),
            ("vsock:2:1", false),
            ("tcp::1", true),
            ("tcp:0.0.0.0:1", true),
            ("tcp:[::]:1", true),
            ("tcp:192.0.2.7:1", true),
            ("tcp:there:1", true),
        ] {
            assert_eq!(is_on_network(&uri.parse().unwrap()), on_network, "{uri}");
        }
    }
}
