//! `qzip`, the program of QATzip, reads what the codec makes, and the codec reads what `qzip` makes.
//! `scripts/qatzip` gets it, and names it in `MULTIFD_QZIP`; without, nothing is tested here.

use std::env;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use multifd_conformance::ends::{PAGE_BYTES, Receiver, Sender, noise};
use multifd_core::PACKET_BYTES;
use multifd_core::codec::PacketMethods;
use multifd_qatzip::Qatzip;

use crate::support::packet;

fn codec() -> PacketMethods<Qatzip> {
    PacketMethods::new(Qatzip::new())
}

/// The program, if there is one. Says so where there is not.
fn qzip() -> Option<PathBuf> {
    let program = env::var_os("MULTIFD_QZIP").map(PathBuf::from);
    if program.is_none() {
        // Not by eprintln, which is captured: it is to be seen.
        _ = writeln!(
            std::io::stderr(),
            "skipped: MULTIFD_QZIP names no qzip; scripts/qatzip gets it"
        );
    }
    program
}

/// Has `qzip` make the file `to` from `from`.
fn run(qzip: &Path, options: &[&str], from: &Path, to: &Path) -> Vec<u8> {
    // It adds .gz to the name that it is given, when it compresses.
    let name = to.with_extension("");
    let output = Command::new(qzip)
        .args(["-k", "-f"])
        .args(options)
        .arg("-o")
        .args([&name, from])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{options:?}: {said}");
    fs::read(to).unwrap_or_else(|error| panic!("{options:?}: no {}: {error}; {said}", to.display()))
}

/// What packets hold: full ones, all noise, a page.
fn contents() -> [Vec<u8>; 4] {
    [packet(), noise(PACKET_BYTES), vec![0; PACKET_BYTES], packet()[..PAGE_BYTES].to_vec()]
}

#[test]
fn qzip_reads_what_the_codec_makes() {
    let Some(qzip) = qzip() else { return };
    let folder = tempfile::tempdir().unwrap();
    for pages in contents() {
        let from = folder.path().join("payload.gz");
        fs::write(&from, Sender::new(&codec(), None).send(&pages)).unwrap();
        let read = run(&qzip, &["-d"], &from, &folder.path().join("pages"));
        assert!(read == pages, "{} bytes of {}", read.len(), pages.len());
    }
}

#[test]
fn the_codec_reads_what_qzip_makes() {
    let Some(qzip) = qzip() else { return };
    let folder = tempfile::tempdir().unwrap();
    // With the extra field or without; one member, or, in pieces of 64 KiB, several.
    let forms: [&[&str]; 6] = [
        &["-O", "gzipext"],
        &["-O", "gzipext", "-L", "9"],
        &["-O", "gzipext", "-H", "static"],
        &["-O", "gzip"],
        &["-O", "gzip", "-b", "65536"],
        &["-O", "gzipext", "-b", "65536"],
    ];
    for pages in contents() {
        let from = folder.path().join("pages");
        fs::write(&from, &pages).unwrap();
        for form in forms {
            let payload = run(&qzip, form, &from, &folder.path().join("payload.gz"));
            let received = Receiver::new(&codec()).receive(&payload, pages.len() / PAGE_BYTES);
            assert!(received.unwrap() == pages, "{form:?}");
        }
    }
}
