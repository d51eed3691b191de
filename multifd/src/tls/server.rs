//! The side that listens.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, OtherError, ServerConfig,
    ServerConnection, SignatureScheme,
};

use super::error::{NotAllowed, SetupError, TlsError};
use super::folder::{Folder, Role};
use super::kernel::{End, KernelTls, Wish};
use super::names::{self, NamePattern};
use super::provider;
use crate::error::Error;
use crate::transport::{Connection, Secure, Secured, name_of};

/// What the side that listens needs for TLS: who it is, and whom it lets in.
#[derive(Clone)]
pub struct ServerTls {
    config: Arc<ServerConfig>,
    kernel: Wish,
}

/// Which clients a server lets in.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub enum Clients {
    /// Those with a certificate of a known CA.
    #[default]
    Known,
    /// Of those, the ones with a name, in the certificate's subject or its subjectAltName, that one of
    /// the patterns matches. Without a pattern, none.
    Named(Vec<NamePattern>),
    /// All: no client is asked for a certificate, and whoever reaches the port may send a VM. As QEMU's
    /// `verify-peer=no`.
    Unchecked,
}

impl ServerTls {
    /// Reads `server-cert.pem` and `server-key.pem`, and unless clients are not
    /// [checked](Clients::Unchecked) `ca-cert.pem` and, where it is there, `ca-crl.pem`, in the folder
    /// `dir`: see the [module](crate::tls).
    ///
    /// # Errors
    /// A file that is missing or malformed, a key that others can read or that is not the certificate's.
    pub fn from_dir(dir: impl AsRef<Path>, clients: Clients) -> Result<Self, SetupError> {
        let folder = Folder::new(dir.as_ref());
        let config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| folder.unusable(&error))?;
        let config = match clients {
            Clients::Unchecked => config.with_no_client_auth(),
            Clients::Known => config.with_client_cert_verifier(verifier(&folder)?),
            Clients::Named(allowed) => {
                let known = verifier(&folder)?;
                config.with_client_cert_verifier(Arc::new(Named { known, allowed }))
            }
        };
        let (chain, key) = folder.server_identity()?;
        let mut config = config
            .with_single_cert(chain, key)
            .map_err(|error| folder.mismatch(Role::Server, &error))?;
        // Each channel is a connection of its own, and none comes back.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Arc::new(config).into())
    }

    /// Has the kernel encrypt and decrypt, or not.
    #[must_use]
    pub fn kernel(self, kernel: KernelTls) -> Self {
        Self { kernel: Wish::new(kernel), ..self }
    }

    fn shake_hands(&self, connection: &Connection) -> Result<(), TlsError> {
        let handover = self.kernel.handover(End::Server, &self.config.key_log);
        let mut config = Arc::clone(&self.config);
        if let Some(handover) = &handover {
            let config = Arc::make_mut(&mut config);
            (config.enable_secret_extraction, config.key_log) = (true, handover.key_log());
        }
        let session = ServerConnection::new(config)?;
        Secured::shake_hands(connection, session.into(), handover.as_ref())
    }
}

/// With a configuration of the caller's own. It should send no tickets
/// ([`send_tls13_tickets`](ServerConfig::send_tls13_tickets)): no client comes back.
impl From<Arc<ServerConfig>> for ServerTls {
    fn from(config: Arc<ServerConfig>) -> Self {
        Self { config, kernel: Wish::default() }
    }
}

impl Secure for ServerTls {
    fn secure(&self, connection: &Connection, _: Option<&str>) -> Result<(), Error> {
        let peer = name_of("the source", connection);
        self.shake_hands(connection).map_err(|source| Error::Tls { peer, source })
    }
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTls").finish_non_exhaustive()
    }
}

/// Lets in who has a certificate of the folder's CAs.
fn verifier(folder: &Folder<'_>) -> Result<Arc<dyn ClientCertVerifier>, SetupError> {
    WebPkiClientVerifier::builder_with_provider(folder.authorities()?, provider())
        .with_crls(folder.revoked()?)
        .allow_unknown_revocation_status()
        .enforce_revocation_expiration()
        .build()
        .map_err(|error| folder.unusable(&error))
}

/// Of the known clients, those with an allowed name.
#[derive(Debug)]
struct Named {
    known: Arc<dyn ClientCertVerifier>,
    allowed: Vec<NamePattern>,
}

impl ClientCertVerifier for Named {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.known.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self.known.verify_client_cert(certificate, between, now)?;
        let names = names::of(certificate);
        if self.allowed.iter().any(|pattern| names.iter().any(|name| pattern.allows(name))) {
            return Ok(verified);
        }
        let names = names.iter().map(ToString::to_string).collect();
        let error = OtherError(Arc::new(NotAllowed { names }));
        Err(CertificateError::Other(error).into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.known.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.known.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.known.supported_verify_schemes()
    }
}
