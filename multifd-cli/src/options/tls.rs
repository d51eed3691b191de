//! TLS, on the sides that connect and on those that listen.

use std::path::{Path, PathBuf};

use multifd::tls::{ClientTls, Clients, KernelTls, ServerTls};

use crate::failure::{Failure, chain};

/// TLS to the destination.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Options of TLS")]
pub(crate) struct ToTls {
    /// Use TLS, with the certificates in this folder, whose files are named as QEMU's: see tls-init
    #[arg(long, value_name = "DIR")]
    tls_creds: Option<PathBuf>,
    /// The name in the destination's certificate, if it is not the host that is connected to
    #[arg(long, value_name = "NAME", requires = "tls_creds")]
    tls_hostname: Option<String>,
    /// Have the kernel encrypt and decrypt, where it can; else it says why
    #[arg(long, requires = "tls_creds")]
    tls_kernel: bool,
}

/// TLS from the source.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Options of TLS")]
pub(crate) struct FromTls {
    /// Use TLS, with the certificates in this folder, whose files are named as QEMU's: see tls-init
    #[arg(long, value_name = "DIR")]
    tls_creds: Option<PathBuf>,
    /// Want no certificate of the source: whoever reaches the port may send a VM
    #[arg(long, requires = "tls_creds", conflicts_with = "tls_allow")]
    tls_no_client_cert: bool,
    /// Let only sources in whose certificate has a name that fits (CN=host1,O=Example, *.example); may
    /// be repeated
    #[arg(long, value_name = "PATTERN", requires = "tls_creds")]
    tls_allow: Vec<String>,
    /// Have the kernel encrypt and decrypt, where it can; else it says why
    #[arg(long, requires = "tls_creds")]
    tls_kernel: bool,
}

/// TLS on both sides of a relay.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Options of TLS")]
pub(crate) struct BothTls {
    /// Use TLS with the source, with the certificates in this folder, whose files are named as QEMU's:
    /// see tls-init
    #[arg(long, value_name = "DIR")]
    from_tls_creds: Option<PathBuf>,
    /// Want no certificate of the source: whoever reaches the port may send a VM
    #[arg(long, requires = "from_tls_creds", conflicts_with = "from_tls_allow")]
    from_tls_no_client_cert: bool,
    /// Let only sources in whose certificate has a name that fits (CN=host1,O=Example, *.example); may
    /// be repeated
    #[arg(long, value_name = "PATTERN", requires = "from_tls_creds")]
    from_tls_allow: Vec<String>,
    /// Have the kernel encrypt and decrypt what goes to and from the source, where it can; else it says why
    #[arg(long, requires = "from_tls_creds")]
    from_tls_kernel: bool,
    /// Use TLS with the destination, with the certificates in this folder
    #[arg(long, value_name = "DIR")]
    to_tls_creds: Option<PathBuf>,
    /// The name in the destination's certificate, if it is not the host that is connected to
    #[arg(long, value_name = "NAME", requires = "to_tls_creds")]
    to_tls_hostname: Option<String>,
    /// Have the kernel encrypt and decrypt what goes to and from the destination, where it can; else it says
    /// why
    #[arg(long, requires = "to_tls_creds")]
    to_tls_kernel: bool,
}

impl ToTls {
    /// TLS, if it is asked for.
    pub(crate) fn client(&self) -> Result<Option<ClientTls>, Failure> {
        let name = self.tls_hostname.as_deref();
        self.tls_creds.as_deref().map(|dir| client(dir, name, self.tls_kernel)).transpose()
    }
}

impl FromTls {
    /// TLS, if it is asked for.
    pub(crate) fn server(&self) -> Result<Option<ServerTls>, Failure> {
        let server = |dir| server(dir, self.tls_no_client_cert, &self.tls_allow, self.tls_kernel);
        self.tls_creds.as_deref().map(server).transpose()
    }
}

impl BothTls {
    /// TLS with the source, if it is asked for.
    pub(crate) fn server(&self) -> Result<Option<ServerTls>, Failure> {
        let server = |dir| {
            let Self { from_tls_no_client_cert, from_tls_allow, from_tls_kernel, .. } = self;
            server(dir, *from_tls_no_client_cert, from_tls_allow, *from_tls_kernel)
        };
        self.from_tls_creds.as_deref().map(server).transpose()
    }

    /// TLS with the destination, if it is asked for.
    pub(crate) fn client(&self) -> Result<Option<ClientTls>, Failure> {
        let client = |dir| client(dir, self.to_tls_hostname.as_deref(), self.to_tls_kernel);
        self.to_tls_creds.as_deref().map(client).transpose()
    }
}

fn client(dir: &Path, name: Option<&str>, kernel: bool) -> Result<ClientTls, Failure> {
    let client = ClientTls::from_dir(dir).map_err(|error| Failure::new(chain(&error)))?;
    let client = client.kernel(by_kernel(kernel));
    match name {
        Some(name) => client.hostname(name).map_err(|error| Failure::usage(chain(&error))),
        None => Ok(client),
    }
}

fn server(
    dir: &Path,
    unchecked: bool,
    allow: &[String],
    kernel: bool,
) -> Result<ServerTls, Failure> {
    let clients = match (unchecked, allow) {
        (true, _) => Clients::Unchecked,
        (false, []) => Clients::Known,
        (false, patterns) => Clients::Named(patterns.iter().map(Into::into).collect()),
    };
    let server = ServerTls::from_dir(dir, clients).map_err(|error| Failure::new(chain(&error)))?;
    Ok(server.kernel(by_kernel(kernel)))
}

fn by_kernel(asked: bool) -> KernelTls {
    if asked { KernelTls::IfPossible } else { KernelTls::Off }
}
