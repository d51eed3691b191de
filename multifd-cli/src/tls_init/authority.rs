//! CAs: a new one, or one that has been made before.

use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PublicKeyData, date_time_ymd,
};
use sha2::{Digest, Sha256};
use x509_cert::Certificate;
use x509_cert::der::{Decode, Encode};

use super::{File, valid};
use crate::failure::Failure;
use crate::file;

/// A CA of this program's.
pub(super) struct Authority {
    pub(super) issuer: Issuer<'static, KeyPair>,
    /// Its certificate, as PEM.
    pub(super) certificate: String,
    /// Until when it is valid, in seconds since 1970.
    pub(super) until: Option<u64>,
}

/// The files of a CA.
pub(super) const CERTIFICATE: &str = "ca-cert.pem";
pub(super) const KEY: &str = "ca-key.pem";

/// The most bytes of one of them: no certificate or key is as long.
const MOST: u64 = 1 << 20;

/// Every user of the machine.
const OTHERS: u32 = 0o007;

impl Authority {
    /// A new one, which is valid for so many days.
    pub(super) fn new(days: u32) -> Result<Self, rcgen::Error> {
        let key = KeyPair::generate()?;
        let params = valid(params(&key), days);
        let certificate = params.self_signed(&key)?.pem();
        Ok(Self { issuer: Issuer::new(params, key), certificate, until: None })
    }

    /// The one whose certificate and key are in `folder`.
    pub(super) fn open(folder: &Path) -> Result<Self, Failure> {
        let (certificate_path, key_path) = (folder.join(CERTIFICATE), folder.join(KEY));
        let certificate = read(&certificate_path)?;
        let key = read_key(&key_path)?;
        let not_ours = |path: &PathBuf, why: &str| {
            Failure::new(format!(
                "{} {why}: give the folder of a CA that tls-init has made, or have the CA's own tools \
                 issue the certificates",
                path.display()
            ))
        };
        let key = KeyPair::from_pem(&key)
            .map_err(|_| not_ours(&key_path, "is not a private key of this program's"))?;
        let certificate = pem::parse(&certificate).ok();
        let parsed =
            certificate.as_ref().and_then(|pem| Certificate::from_der(pem.contents()).ok());
        let (Some(certificate), Some(parsed)) = (certificate, parsed) else {
            return Err(not_ours(&certificate_path, "is not a certificate"));
        };
        let own = &parsed.tbs_certificate;
        let public = own.subject_public_key_info.to_der().unwrap_or_default();
        if public != key.subject_public_key_info() {
            let why = format!("is not the certificate of the key {}", key_path.display());
            return Err(not_ours(&certificate_path, &why));
        }
        if own.subject.to_string() != format!("CN={}", name(&key)) {
            return Err(not_ours(&certificate_path, "is not a CA's that tls-init has made"));
        }
        let until = own.validity.not_after.to_unix_duration().as_secs();
        if until <= now() {
            return Err(Failure::new(format!(
                "the CA in {} has expired: make another one, and folders for all hosts anew",
                folder.display()
            )));
        }
        let issuer = Issuer::new(params(&key), key);
        // What has been looked at, and nothing that may stand beside it in the file.
        Ok(Self { issuer, certificate: pem::encode(&certificate), until: Some(until) })
    }

    /// Its files, the key among them.
    pub(super) fn files(&self) -> Vec<File> {
        let key = self.issuer.key().serialize_pem();
        vec![self.certificate_file(), File { name: KEY, text: key, secret: true }]
    }

    pub(super) fn certificate_file(&self) -> File {
        File { name: CERTIFICATE, text: self.certificate.clone(), secret: false }
    }

    /// Has what it issues be valid no longer than it is itself.
    pub(super) fn outlast(&self, params: &mut CertificateParams) {
        let Some(until) = self.until else { return };
        let until = date_time_ymd(1970, 1, 1) + std::time::Duration::from_secs(until);
        params.not_after = params.not_after.min(until);
    }
}

/// What a CA says of itself. Its name is its key's, so that two CAs are not taken for each other.
fn params(key: &KeyPair) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name(key));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn name(key: &KeyPair) -> String {
    let id = Sha256::digest(key.der_bytes());
    format!("multifd CA {:02x}{:02x}{:02x}{:02x}", id[0], id[1], id[2], id[3])
}

fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn read(path: &Path) -> Result<String, Failure> {
    text(path, file::read(path, MOST)?)
}

/// Reads a key, which is nobody's alone where every user can read it.
fn read_key(path: &Path) -> Result<String, Failure> {
    let failed = |error| Failure::io(format!("cannot read {}", path.display()), &error);
    let (file, _) = file::open(path)?;
    // Of the file that is read, whatever its name comes to stand for.
    let mode = file.metadata().map_err(failed)?.permissions().mode();
    if mode & OTHERS != 0 {
        return Err(Failure::new(format!(
            "every user of this machine can get at the CA's key {path} (mode {:04o}): chmod o= {path}",
            mode & 0o777,
            path = path.display()
        )));
    }
    let mut bytes = Vec::new();
    file.take(MOST).read_to_end(&mut bytes).map_err(failed)?;
    text(path, bytes)
}

fn text(path: &Path, bytes: Vec<u8>) -> Result<String, Failure> {
    String::from_utf8(bytes)
        .map_err(|_| Failure::new(format!("{} is not a PEM file; check the path", path.display())))
}
