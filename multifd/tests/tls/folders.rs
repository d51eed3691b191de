//! Folders that cannot be used.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use multifd::tls::{ClientTls, Clients, ServerTls, SetupError};

use crate::authority::{Authority, Folder};
use crate::common::chain;

fn server(folder: &Folder) -> Result<ServerTls, SetupError> {
    ServerTls::from_dir(folder.path(), Clients::Known)
}

fn client(folder: &Folder) -> Result<ClientTls, SetupError> {
    ClientTls::from_dir(folder.path())
}

#[test]
fn each_file_that_is_missing_is_named_with_what_makes_it() {
    for name in ["ca-cert.pem", "server-cert.pem", "server-key.pem"] {
        let folder = Authority::new().folder();
        folder.remove(name);
        let text = chain(&server(&folder).unwrap_err());
        assert!(text.contains(&format!("/{name}:")) && text.contains("multifd tls-init"), "{text}");
    }
    for name in ["ca-cert.pem", "client-cert.pem", "client-key.pem"] {
        let folder = Authority::new().folder();
        folder.remove(name);
        let text = chain(&client(&folder).unwrap_err());
        assert!(text.contains(&format!("/{name}:")), "{text}");
    }
}

#[test]
fn a_server_that_checks_no_client_needs_no_ca() {
    let folder = Authority::new().folder();
    folder.remove("ca-cert.pem");
    ServerTls::from_dir(folder.path(), Clients::Unchecked).unwrap();
}

#[test]
fn a_key_that_every_user_can_get_at_is_refused_with_the_command_that_mends_it() {
    for mode in [0o644, 0o601, 0o602] {
        let folder = Authority::new().folder();
        for name in ["server-key.pem", "client-key.pem"] {
            let path = folder.path().join(name);
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        }
        for error in [server(&folder).unwrap_err(), client(&folder).unwrap_err()] {
            let SetupError::PublicKey { path, .. } = &error else { panic!("{error}") };
            let text = error.to_string();
            assert!(text.ends_with(&format!("chmod o= {}", path.display())), "{text}");
        }
    }
    // A group may be the one that both sides' programs are in.
    let folder = Authority::new().folder();
    let path = folder.path().join("server-key.pem");
    fs::set_permissions(path, fs::Permissions::from_mode(0o640)).unwrap();
    server(&folder).unwrap();
}

#[test]
fn a_key_of_another_certificate_is_refused_with_both_files() {
    let (folder, other) = (Authority::new().folder(), Authority::new().folder());
    folder.copy("server-key.pem", &other);
    folder.copy("client-key.pem", &other);
    for (error, role) in
        [(server(&folder).unwrap_err(), "server"), (client(&folder).unwrap_err(), "client")]
    {
        let text = error.to_string();
        assert!(matches!(error, SetupError::KeyMismatch { .. }), "{text}");
        for name in [format!("{role}-key.pem"), format!("{role}-cert.pem")] {
            assert!(text.contains(&name), "{text}");
        }
    }
}

#[test]
fn what_is_not_pem_is_refused_with_the_file() {
    const CUT: &str = "-----BEGIN CERTIFICATE-----\nMIIB\n";
    const NOTHING: &str = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
    for name in ["ca-cert.pem", "ca-crl.pem", "server-cert.pem", "server-key.pem"] {
        for content in ["", "no certificate", CUT, NOTHING] {
            let folder = Authority::new().folder();
            folder.write(name, content);
            let error = server(&folder).unwrap_err();
            assert!(matches!(error, SetupError::Malformed { .. }), "{name} {content}: {error}");
            assert!(error.to_string().contains(name), "{content}: {error}");
        }
    }
}

#[test]
fn a_name_that_no_certificate_can_be_for_is_refused() {
    let folder = Authority::new().folder();
    for name in ["", "a b", "tcp:host:1"] {
        let error = folder.client().hostname(name).unwrap_err();
        assert!(matches!(error, SetupError::Name { .. }), "{error}");
    }
    for name in ["host", "host.example", "192.0.2.1", "2001:db8::1"] {
        folder.client().hostname(name).unwrap();
    }
}
