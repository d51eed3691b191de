//! What a service asks of the connections that come to it.

use std::time::Duration;

use multifd::server::{Server, ServerBuilder};
use multifd::tls::ServerTls;
use multifd::token::Token;
use multifd::{Network, Uri};

use crate::failure::Failure;
use crate::options::admission;
use crate::output::Output;

/// What a service asks of the connections that come to it.
pub(crate) struct Guard {
    pub(crate) channel_timeout: Duration,
    pub(crate) allow_from: Vec<Network>,
    pub(crate) tls: Option<ServerTls>,
    pub(crate) token: Option<Token>,
    /// The option that asks for TLS.
    pub(crate) tls_option: &'static str,
}

impl Guard {
    /// Warns of what it does not ask of those that come to these addresses.
    pub(super) fn warn(&self, uris: &[Uri], output: &Output) {
        for uri in uris.iter().filter(|_| self.tls.is_none()) {
            admission::warn_of_network(uri, self.tls_option, self.token.is_some(), output);
        }
    }

    /// Fails where networks are asked for that say nothing of these addresses.
    pub(super) fn check(&self, uris: &[Uri]) -> Result<(), Failure> {
        match uris.iter().find(|uri| !matches!(uri, Uri::Tcp { .. })) {
            Some(other) if !self.allow_from.is_empty() => Err(Failure::usage(format!(
                "--allow-from says nothing of {other}, which a service listens on as well: it is for TCP alone"
            ))),
            _ => Ok(()),
        }
    }

    pub(super) fn into_server(self) -> ServerBuilder {
        let mut server =
            Server::builder().channel_timeout(self.channel_timeout).allow_from(self.allow_from);
        if let Some(tls) = self.tls {
            server = server.tls(tls);
        }
        if let Some(token) = self.token {
            server = server.token(token);
        }
        server
    }
}
