//! The folder with certificates and keys.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};

use super::error::SetupError;
use crate::private_file::{self, Unreadable};

/// A folder in the form of QEMU's `tls-creds-x509`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Folder<'a>(&'a Path);

/// Whose certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Client,
    Server,
}

/// A certificate with those between it and the CA, and its key.
pub(super) type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

impl<'a> Folder<'a> {
    pub(super) fn new(path: &'a Path) -> Self {
        Self(path)
    }

    /// The CAs that the other side may have its certificate of.
    pub(super) fn authorities(&self) -> Result<Arc<RootCertStore>, SetupError> {
        let path = self.0.join("ca-cert.pem");
        let mut roots = RootCertStore::empty();
        for certificate in self.certificates(&path)? {
            let added = roots.add(certificate);
            added.map_err(|error| SetupError::Malformed {
                path: path.clone(),
                source: error.into(),
            })?;
        }
        Ok(Arc::new(roots))
    }

    /// What the CAs have revoked; nothing where nothing says so.
    pub(super) fn revoked(&self) -> Result<Vec<CertificateRevocationListDer<'static>>, SetupError> {
        let path = self.0.join("ca-crl.pem");
        match optional(&path)? {
            Some(bytes) => parse(&path, &bytes),
            None => Ok(Vec::new()),
        }
    }

    /// Who this side is; nobody where neither the certificate nor the key is there.
    pub(super) fn identity(&self, role: Role) -> Result<Option<Identity>, SetupError> {
        let (certificate, key) = self.paths(role);
        if optional(&certificate)?.is_none() && optional(&key)?.is_none() {
            return Ok(None);
        }
        Ok(Some((self.certificates(&certificate)?, private_key(&key)?)))
    }

    /// Who this side is, as server.
    pub(super) fn server_identity(&self) -> Result<Identity, SetupError> {
        let (certificate, key) = self.paths(Role::Server);
        Ok((self.certificates(&certificate)?, private_key(&key)?))
    }

    /// The error of a key and a certificate that do not go together.
    pub(super) fn mismatch(&self, role: Role, error: &rustls::Error) -> SetupError {
        let (certificate, key) = self.paths(role);
        match error {
            rustls::Error::InconsistentKeys(_) => SetupError::KeyMismatch { key, certificate },
            error => SetupError::Malformed { path: certificate, source: error.clone().into() },
        }
    }

    /// The error of what the folder holds, as a whole.
    pub(super) fn unusable(
        &self,
        error: &(impl std::error::Error + Clone + Send + Sync + 'static),
    ) -> SetupError {
        SetupError::Malformed { path: self.0.to_owned(), source: Box::new(error.clone()) }
    }

    fn paths(&self, role: Role) -> (PathBuf, PathBuf) {
        let role = match role {
            Role::Client => "client",
            Role::Server => "server",
        };
        (self.0.join(format!("{role}-cert.pem")), self.0.join(format!("{role}-key.pem")))
    }

    fn certificates(&self, path: &Path) -> Result<Vec<CertificateDer<'static>>, SetupError> {
        parse(path, &read(path)?)
    }
}

/// What a PEM file has of a kind, at least one.
fn parse<T: PemObject>(path: &Path, bytes: &[u8]) -> Result<Vec<T>, SetupError> {
    let malformed = |error: pem::Error| malformed(path, error);
    let all = T::pem_slice_iter(bytes).collect::<Result<Vec<_>, _>>().map_err(malformed)?;
    if all.is_empty() { Err(malformed(pem::Error::NoItemsFound)) } else { Ok(all) }
}

fn malformed(path: &Path, error: pem::Error) -> SetupError {
    SetupError::Malformed { path: path.to_owned(), source: Box::new(error) }
}

/// The key in a file that not every user can read.
fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, SetupError> {
    let mut bytes = Vec::new();
    private_file::read(path, u64::MAX, &mut bytes).map_err(|why| {
        let path = path.to_owned();
        match why {
            Unreadable::Missing => SetupError::Missing { path },
            Unreadable::Public { mode } => SetupError::PublicKey { path, mode },
            Unreadable::Io(source) => SetupError::Read { path, source },
        }
    })?;
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| malformed(path, error))
}

fn read(path: &Path) -> Result<Vec<u8>, SetupError> {
    let mut bytes = Vec::new();
    let read = open(path)?.read_to_end(&mut bytes);
    read.map_err(|source| SetupError::Read { path: path.to_owned(), source })?;
    Ok(bytes)
}

fn open(path: &Path) -> Result<File, SetupError> {
    let path = path.to_owned();
    File::open(&path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => SetupError::Missing { path },
        _ => SetupError::Read { path, source },
    })
}

fn optional(path: &Path) -> Result<Option<Vec<u8>>, SetupError> {
    match read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(SetupError::Missing { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
