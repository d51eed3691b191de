//! The side that connects.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustls::client::{ResolvesClientCert, Resumption, WebPkiServerVerifier};
use rustls::pki_types::ServerName;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, ClientConnection, SignatureScheme};

use super::error::{SetupError, TlsError};
use super::folder::{Folder, Role};
use super::kernel::{End, KernelTls, Wish};
use super::provider;
use crate::error::Error;
use crate::transport::{Connection, Secure, Secured, name_of};

/// What the side that connects needs for TLS: whom it trusts, and who it is.
#[derive(Clone)]
pub struct ClientTls {
    config: Arc<ClientConfig>,
    /// In place of the name that was connected to.
    name: Option<ServerName<'static>>,
    kernel: Wish,
}

impl ClientTls {
    /// Reads `ca-cert.pem`, and where they are there `ca-crl.pem`, and `client-cert.pem` with
    /// `client-key.pem`, in the folder `dir`: see the [module](crate::tls).
    ///
    /// # Errors
    /// A file that is missing or malformed, a key that others can read or that is not the certificate's.
    pub fn from_dir(dir: impl AsRef<Path>) -> Result<Self, SetupError> {
        let folder = Folder::new(dir.as_ref());
        let verifier =
            WebPkiServerVerifier::builder_with_provider(folder.authorities()?, provider())
                .with_crls(folder.revoked()?)
                .allow_unknown_revocation_status()
                .enforce_revocation_expiration()
                .build()
                .map_err(|error| folder.unusable(&error))?;
        let config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| folder.unusable(&error))?
            .with_webpki_verifier(verifier);
        let mut config = match folder.identity(Role::Client)? {
            Some((chain, key)) => config
                .with_client_auth_cert(chain, key)
                .map_err(|error| folder.mismatch(Role::Client, &error))?,
            None => config.with_client_cert_resolver(Arc::new(NoCertificate::default())),
        };
        // Each channel is a connection of its own, and none comes back.
        config.resumption = Resumption::disabled();
        Ok(Arc::new(config).into())
    }

    /// Has the server's certificate be for `name`, a DNS name or an IP address, in place of the host
    /// that is connected to. Needed for whatever has none, such as a Unix socket.
    ///
    /// # Errors
    /// What is neither.
    pub fn hostname(self, name: &str) -> Result<Self, SetupError> {
        let parsed = ServerName::try_from(name.to_owned());
        let name = parsed.map_err(|_| SetupError::Name { name: name.to_owned() })?;
        Ok(Self { name: Some(name), ..self })
    }

    /// Has the kernel encrypt and decrypt, or not.
    #[must_use]
    pub fn kernel(self, kernel: KernelTls) -> Self {
        Self { kernel: Wish::new(kernel), ..self }
    }

    fn shake_hands(&self, connection: &Connection, host: Option<&str>) -> Result<(), TlsError> {
        let name = match (&self.name, host) {
            (Some(name), _) => name.clone(),
            // An address that is empty is this machine's.
            (None, Some("")) => ServerName::try_from("localhost").map_err(|_| TlsError::NoName)?,
            (None, Some(host)) => {
                // Of an IPv6 address, without the interface.
                let host = host.split_once('%').map_or(host, |(address, _)| address);
                ServerName::try_from(host.to_owned()).map_err(|_| TlsError::NoName)?
            }
            (None, None) => return Err(TlsError::NoName),
        };
        let handover = self.kernel.handover(End::Client, &self.config.key_log);
        let mut config = Arc::clone(&self.config);
        if let Some(handover) = &handover {
            let config = Arc::make_mut(&mut config);
            (config.enable_secret_extraction, config.key_log) = (true, handover.key_log());
        }
        let session = ClientConnection::new(config, name)?;
        Secured::shake_hands(connection, session.into(), handover.as_ref())
    }
}

/// With a configuration of the caller's own, such as one that resumes no session, trusts the system's
/// CAs or has its key in hardware.
impl From<Arc<ClientConfig>> for ClientTls {
    fn from(config: Arc<ClientConfig>) -> Self {
        Self { config, name: None, kernel: Wish::default() }
    }
}

impl Secure for ClientTls {
    fn secure(&self, connection: &Connection, host: Option<&str>) -> Result<(), Error> {
        let peer = name_of("the destination", connection);
        self.shake_hands(connection, host).map_err(|source| Error::Tls { peer, source })
    }
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientTls").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Says, when it is asked for a certificate, that there is none: a QEMU that wants one only closes the
/// connection.
#[derive(Debug, Default)]
struct NoCertificate {
    has_said: AtomicBool,
}

impl ResolvesClientCert for NoCertificate {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        // Once, not for each channel.
        if !self.has_said.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "the destination wants a client certificate, and there is none here: give client-cert.pem \
                 and client-key.pem"
            );
        }
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}
