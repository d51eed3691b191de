//! Whole migrations with method none over loopback TCP: without TLS, with TLS by the kernel, and with TLS by
//! rustls.
//!
//! `cargo bench -p multifd-benches --bench tls -- 9` repeats 9 times; the three take turns in one run, the figures
//! are medians.
#![allow(clippy::print_stdout, reason = "the table is what this program is for")]

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use multifd::core::ram::{Ram, RamBlock};
use multifd::core::vm_memory::MmapRegion;
use multifd::core::wire::BlockName;
use multifd::core::{Compression, Registry};
use multifd::tls::{ClientTls, KernelTls, ServerTls};
use multifd::{Destination, PageSet, Source};
use multifd_benches::{PAGE_SIZE, mark_if_busy};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

const CHANNELS: u8 = 2;
const BYTES: usize = 512 << 20;

/// Who encrypts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Nobody,
    Kernel,
    Rustls,
}

fn main() {
    let repetitions = std::env::args().find_map(|arg| arg.parse().ok()).unwrap_or(5);
    mark_if_busy();
    let registry = Registry::collected().expect("no codec is registered twice");
    let (from, to) = (new_ram(), new_ram());
    fill(&from);
    let tls = certificates();
    let before = taken_over();
    let mut times = [const { Vec::new() }; 3];
    // The first pass of each only warms up.
    for _ in 0..=repetitions {
        for (times, by) in times.iter_mut().zip([By::Nobody, By::Kernel, By::Rustls]) {
            times.push(migrate(&registry, &from, &to, &tls, by));
        }
    }
    if taken_over() == before {
        println!("this kernel has no TLS: what is called its own is that of rustls\n");
    }
    let gib = BYTES as f64 / f64::from(1 << 30);
    println!("{gib:.2} GiB, {CHANNELS} channels, {repetitions} repetitions\n");
    let [plain, kernel, rustls] = times.map(|times| gib / median(times));
    println!("{:<12} {:>7} {:>9}", "", "GiB/s", "of plain");
    for (name, speed) in [("plain", plain), ("kernel TLS", kernel), ("rustls", rustls)] {
        println!("{name:<12} {speed:>7.2} {:>9.2}", speed / plain);
    }
    println!("\ntarget: the kernel's at least 0.8 of plain, rustls' 0.35");
}

fn new_ram() -> Arc<Ram> {
    let memory = MmapRegion::<()>::new(BYTES).expect("there is memory for the guest");
    let name = BlockName::new("pc.ram").expect("a valid name");
    Arc::new(Ram::new(PAGE_SIZE, [RamBlock::new(name, memory)]).expect("whole pages"))
}

/// No page is zero.
fn fill(ram: &Ram) {
    for page in 0..BYTES / PAGE_SIZE.bytes() {
        let content = vec![1 + (page % 251) as u8; PAGE_SIZE.bytes()];
        ram.blocks()[0].write((page * PAGE_SIZE.bytes()) as u64, &content);
    }
}

/// The two sides of TLS 1.3, with the ciphers that rustls prefers.
fn certificates() -> (Arc<ClientConfig>, Arc<ServerConfig>) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]);
    let rcgen::CertifiedKey { cert, signing_key } = made.expect("a certificate");
    let provider = || Arc::new(rustls::crypto::ring::default_provider());
    let key = PrivateKeyDer::Pkcs8(signing_key.serialize_der().into());
    let mut server = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .expect("its own key");
    server.send_tls13_tickets = 0;
    let mut roots = RootCertStore::empty();
    roots.add(cert.der().clone()).expect("a certificate");
    let client = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    (Arc::new(client), Arc::new(server))
}

/// What the kernel says of the connections that it has done TLS for.
fn taken_over() -> Option<String> {
    fs::read_to_string("/proc/net/tls_stat").ok()
}

/// Moves all memory. Connecting and ending are part of the time.
fn migrate(
    registry: &Registry,
    from: &Arc<Ram>,
    to: &Arc<Ram>,
    (client, server): &(Arc<ClientConfig>, Arc<ServerConfig>),
    by: By,
) -> Duration {
    let kernel = if by == By::Kernel { KernelTls::IfPossible } else { KernelTls::Off };
    let any_port = "tcp:127.0.0.1:0".parse().expect("an address");
    let mut destination =
        Destination::builder(registry).compression(Compression::None).channels(CHANNELS);
    let mut source = Source::builder(registry, Arc::clone(from))
        .compression(Compression::None)
        .channels(CHANNELS);
    if by != By::Nobody {
        destination = destination.tls(ServerTls::from(Arc::clone(server)).kernel(kernel));
        let client = ClientTls::from(Arc::clone(client)).kernel(kernel);
        source = source.tls(client.hostname("localhost").expect("a name"));
    }
    let listening = destination.listen(&any_port).expect("a free port");
    let uri = listening.uri().clone();
    let all = PageSet::all(from);
    let began = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let source = source.connect(&uri).expect("the destination listens");
            source.finish(&all, None).expect("the migration succeeds");
        });
        let arrived = listening.receive(|_| Ok(Arc::clone(to)));
        arrived.and_then(multifd::Arrived::confirm).expect("the migration succeeds");
    });
    began.elapsed()
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.remove(0);
    times.sort();
    times[times.len() / 2].as_secs_f64()
}
