//! A folder for TLS: no panic, the same verdict for each side however often it is read, and an error
//! that says which file.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::OnceLock;

use multifd::tls::{ClientTls, Clients, ServerTls};
use tempfile::TempDir;

use crate::parts;

/// The certificate and the key stand for both sides.
const FILES: [&[&str]; 4] = [
    &["ca-cert.pem"],
    &["server-cert.pem", "client-cert.pem"],
    &["server-key.pem", "client-key.pem"],
    &["ca-crl.pem"],
];

/// Runs the target on one input.
pub fn tls_folder(input: &[u8]) {
    static FOLDER: OnceLock<TempDir> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| tempfile::tempdir().expect("a folder"));
    let folder = folder.path();
    let (missing, parts) = parts(input);
    for (number, names) in FILES.iter().enumerate() {
        for name in *names {
            let path = folder.join(name);
            match parts.get(number).filter(|_| missing & 1 << number == 0) {
                Some(text) => write(&path, text),
                None => _ = fs::remove_file(&path),
            }
        }
    }
    let verdict = || {
        let server = ServerTls::from_dir(folder, Clients::Known).err();
        let client = ClientTls::from_dir(folder).err();
        [server, client].map(|error| error.map(|error| error.to_string()))
    };
    let said = verdict();
    assert_eq!(said, verdict());
    let folder = folder.to_str().expect("a name of letters");
    for error in said.iter().flatten() {
        assert!(error.contains(folder), "{error}");
    }
}

fn write(path: &Path, text: &[u8]) {
    let mut options = OpenOptions::new();
    let opened = options.write(true).create(true).truncate(true).mode(0o600).open(path);
    opened.and_then(|mut file| file.write_all(text)).expect("a file can be written");
}
