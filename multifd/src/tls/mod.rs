//! TLS for the main channel and every multifd channel, by rustls, as QEMU has it.
//!
//! The side that connects, a source or a relay's side to the destination, is the TLS client
//! ([`ClientTls`]); the side that listens is the server ([`ServerTls`]). Both read certificates and keys
//! from a folder with the names of QEMU's `tls-creds-x509` and of Cloud Hypervisor's `tls_dir`:
//!
//! | file | is | needed by |
//! |---|---|---|
//! | `ca-cert.pem` | the CAs whose certificates the other side may have | both |
//! | `ca-crl.pem` | what they have revoked | neither; read where it is there |
//! | `server-cert.pem`, `server-key.pem` | the server's certificate, with those between it and the CA, and its key | the server |
//! | `client-cert.pem`, `client-key.pem` | the client's | a client whose server asks for them, as is usual |
//!
//! TLS 1.2 and 1.3 are spoken. The server must have a certificate of a known CA for the name that it was
//! connected by; the client must have one, too, unless the server does [without](Clients::Unchecked).
//! A key that every user of the machine can read is refused.
//!
//! A connection may end without TLS's `close_notify`, as QEMU up to 9.2 ends its channels: whether
//! everything has come is known from the migration itself. One that ends within a record or within a
//! packet has failed. This side always says `close_notify`.
//!
//! The kernel can encrypt and decrypt in place of this library: see [`KernelTls`].
//!
//! TLS needs sockets: connections that [`Connection::from_stream`](crate::Connection::from_stream) makes
//! bring an encryption of their own.

mod client;
mod error;
mod folder;
mod kernel;
mod names;
mod server;

pub use client::ClientTls;
pub use error::{SetupError, TlsError};
#[cfg(test)]
pub(crate) use kernel::End;
pub use kernel::KernelTls;
pub(crate) use kernel::{Handover, Secret};
pub use names::NamePattern;
pub(crate) use names::name_in;
pub use server::{Clients, ServerTls};

use std::sync::Arc;

use rustls::crypto::CryptoProvider;

/// The provider of cryptography, in place of one that the process may have installed.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}
