//! A CA for a test, and folders with what it issues.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use multifd::tls::{ClientTls, Clients, KernelTls, ServerTls};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber, date_time_ymd,
};
use tempfile::TempDir;

pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// The number of each client's certificate.
const CLIENT: &[u8] = &[42];

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "a test's CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Self { issuer }
    }

    /// A folder with everything for both sides, the server's for 127.0.0.1 and localhost.
    pub(crate) fn folder(&self) -> Folder {
        let folder = Folder::empty();
        folder.write("ca-cert.pem", &self.issuer.pem());
        self.issue(&folder, "server", |_| {});
        self.issue(&folder, "client", |_| {});
        folder
    }

    /// Issues a certificate that `setup` changes, and puts it with its key into `folder`.
    pub(crate) fn issue(
        &self,
        folder: &Folder,
        role: &str,
        setup: impl FnOnce(&mut CertificateParams),
    ) {
        let names = match role {
            "server" => vec!["127.0.0.1".to_owned(), "localhost".to_owned()],
            _ => vec!["source.example".to_owned()],
        };
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.remove(DnType::CommonName);
        params.distinguished_name.push(DnType::OrganizationName, "Example");
        params.distinguished_name.push(DnType::CommonName, role);
        params.serial_number = (role == "client").then(|| SerialNumber::from_slice(CLIENT));
        setup(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        folder.write(&format!("{role}-cert.pem"), &certificate.pem());
        folder.write(&format!("{role}-key.pem"), &key.serialize_pem());
    }

    /// Puts a list into `folder`, good until then, that has the client's certificate revoked or nothing.
    pub(crate) fn revoke(&self, folder: &Folder, client: bool, until: i32) {
        let revoked = RevokedCertParams {
            serial_number: SerialNumber::from_slice(CLIENT),
            revocation_time: date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(until, 1, 1),
            crl_number: SerialNumber::from_slice(&[1]),
            issuing_distribution_point: None,
            revoked_certs: client.then_some(revoked).into_iter().collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        folder.write("ca-crl.pem", &params.signed_by(&self.issuer).unwrap().pem().unwrap());
    }
}

/// All tests run with the kernel's TLS where `MULTIFD_KERNEL_TLS` is set: see `scripts/vm`.
fn kernel() -> KernelTls {
    match std::env::var_os("MULTIFD_KERNEL_TLS") {
        Some(_) => KernelTls::IfPossible,
        None => KernelTls::Off,
    }
}

/// A folder with certificates and keys.
pub(crate) struct Folder(TempDir);

impl Folder {
    pub(crate) fn empty() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }

    pub(crate) fn copy(&self, name: &str, from: &Self) {
        self.write(name, &fs::read_to_string(from.path().join(name)).unwrap());
    }

    pub(crate) fn remove(&self, name: &str) {
        fs::remove_file(self.path().join(name)).unwrap();
    }

    pub(crate) fn client(&self) -> ClientTls {
        ClientTls::from_dir(self.path()).unwrap().kernel(kernel())
    }

    pub(crate) fn server(&self) -> ServerTls {
        self.server_for(Clients::Known)
    }

    pub(crate) fn server_for(&self, clients: Clients) -> ServerTls {
        ServerTls::from_dir(self.path(), clients).unwrap().kernel(kernel())
    }
}
