//! Migrations whose TLS the kernel does on one side or on both; where it has none, the library does it all the same.
//!
//! Under `scripts/vm` there is a kernel that has it. With `MULTIFD_KERNEL_TLS`, as there, it must; and all other tests
//! of this folder run with it, too.

use std::fs;
use std::io::Write;

use multifd::core::Compression;
use multifd::tls::{ClientTls, KernelTls};
use rustls::crypto::ring;

use crate::authority::Authority;
use crate::migrate::migrate;
use crate::peer;

/// Connections whose keys the kernel has got since it was started, in both directions; `None` where it has no TLS.
fn taken_over() -> Option<[u64; 2]> {
    let counts = fs::read_to_string("/proc/net/tls_stat").ok()?;
    let count = |name: &str| {
        let line = counts.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().parse::<u64>().ok()
    };
    Some([count("TlsTxSw")?, count("TlsRxSw")?])
}

const ON: KernelTls = KernelTls::IfPossible;
const OFF: KernelTls = KernelTls::Off;

#[test]
fn with_every_cipher_every_page_arrives_whichever_side_asks_the_kernel() {
    let folder = Authority::new().folder();
    let before = taken_over();
    let mut asked = 0;
    for suite in ring::ALL_CIPHER_SUITES {
        let versions = if suite.tls13().is_some() { peer::TLS13 } else { peer::TLS12 };
        // The certificates' keys are of elliptic curves.
        if format!("{:?}", suite.suite()).contains("RSA") {
            continue;
        }
        let mut provider = ring::default_provider();
        provider.cipher_suites = vec![*suite];
        let client = ClientTls::from(peer::client_by(&folder, versions, provider));
        for (by_client, by_server) in [(ON, ON), (ON, OFF), (OFF, ON)] {
            let server = folder.server().kernel(by_server);
            migrate(Compression::None, &client.clone().kernel(by_client), &server);
            // The main channel and three others.
            asked += [by_client, by_server].into_iter().filter(|&by| by == ON).count() as u64 * 4;
        }
    }
    assert_eq!(asked, 6 * 4 * 4);
    match (before, taken_over()) {
        // Other tests may add to it.
        (Some(before), Some(after)) => {
            assert!(after[0] >= before[0] + asked && after[1] >= before[1] + asked);
        }
        _ => {
            assert!(std::env::var_os("MULTIFD_KERNEL_TLS").is_none(), "this kernel has no TLS");
            let line = b"LEFT OUT: TLS by the kernel, which has none: it was done by the library\n";
            std::io::stderr().write_all(line).unwrap();
        }
    }
}

#[test]
fn every_codec_moves_every_page_with_the_kernels_tls() {
    let folder = Authority::new().folder();
    for compression in crate::common::all_compressions() {
        migrate(compression, &folder.client().kernel(ON), &folder.server().kernel(ON));
    }
}
