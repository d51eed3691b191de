//! RAM to migrate, and a migration of it in this process.

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread::JoinHandle;

use multifd::core::ram::{Ram, RamBlock};
use multifd::core::vm_memory::MmapRegion;
use multifd::core::wire::BlockName;
use multifd::core::{Compression, PageSize, Registry};
use multifd::stream::{BlockInfo, Configuration, MainEncoder, SyncForm};
use multifd::{
    Arrived, Connection, Destination, DestinationBuilder, Error, Incoming, PageSet, Source,
    SourceBuilder, Stats, Unfinished, Uri,
};

/// What ended a migration, whosever the guest is.
pub(crate) fn cause(unfinished: Unfinished) -> Error {
    let (Unfinished::Failed(error) | Unfinished::Unclear(error)) = unfinished;
    error
}

pub(crate) fn registry() -> Registry {
    multifd::registry().unwrap()
}

/// RAM with these blocks, of which nothing is assumed.
pub(crate) fn ram(blocks: &[(&str, usize)]) -> Arc<Ram> {
    let block = |&(name, bytes): &(&str, usize)| {
        RamBlock::new(BlockName::new(name).unwrap(), MmapRegion::<()>::new(bytes).unwrap())
    };
    Arc::new(Ram::new(PageSize::Kib4, blocks.iter().map(block)).unwrap())
}

/// RAM of 1.5 MiB: every third page is zero, the others are text-like or noise.
pub(crate) fn guest() -> Arc<Ram> {
    let ram = ram(&[("pc.ram", 1 << 20), ("/rom@etc/acpi/tables", 128 << 10), ("vga", 384 << 10)]);
    for block in ram.blocks() {
        for page in (0..block.bytes() / 4096).filter(|page| page % 3 != 0) {
            fill(&ram, block.name().as_str(), page, page as u8);
        }
    }
    ram
}

/// Fills a page with content of `kind`: noise for odd kinds, text for even ones.
pub(crate) fn fill(ram: &Ram, block: &str, page: u64, kind: u8) {
    let mut state = u64::from(kind) << 32 | page;
    let bytes: Vec<u8> = (0..4096)
        .map(|at| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            if kind % 2 == 1 { (state >> 56) as u8 } else { b"migrate "[at % 8] ^ (kind >> 4) }
        })
        .collect();
    ram.block(block).unwrap().write(page * 4096, &bytes);
}

pub(crate) fn content(ram: &Ram, block: &str) -> Vec<u8> {
    let block = ram.block(block).unwrap();
    let mut bytes = vec![0; block.bytes() as usize];
    block.slice(0, bytes.len()).copy_to(&mut bytes[..]);
    bytes
}

pub(crate) fn assert_equal(left: &Ram, right: &Ram) {
    assert_eq!(left.blocks().len(), right.blocks().len());
    for block in left.blocks() {
        let name = block.name().as_str();
        let (left, right) = (content(left, name), content(right, name));
        let different = left.iter().zip(&right).position(|(left, right)| left != right);
        assert_eq!(different, None, "the first different byte of {name}");
    }
}

/// RAM as the source announces it, freshly mapped.
pub(crate) fn provide(incoming: &Incoming<'_>) -> Result<Arc<Ram>, Error> {
    let blocks = incoming.blocks.iter().map(|info| {
        let memory = MmapRegion::<()>::new(info.bytes as usize).unwrap();
        RamBlock::new(info.name.clone(), memory).fresh()
    });
    Ok(Arc::new(Ram::new(incoming.page_size, blocks)?))
}

/// A main channel up to its first sync.
pub(crate) fn announcement(ram: &Ram) -> Vec<u8> {
    announced(ram, false)
}

/// As [`announcement`], of a source that waits for a confirmation.
pub(crate) fn announcement_with_return_path(ram: &Ram) -> Vec<u8> {
    announced(ram, true)
}

fn announced(ram: &Ram, return_path: bool) -> Vec<u8> {
    let blocks: Vec<_> = ram
        .blocks()
        .iter()
        .map(|block| BlockInfo::new(block.name().clone(), block.bytes()))
        .collect();
    let mut encoder = MainEncoder::new();
    encoder.header(&Configuration::default()).unwrap();
    if return_path {
        encoder.open_return_path().unwrap();
    }
    encoder.ram_start(2, 0, &blocks, SyncForm::Flush).unwrap();
    encoder.bytes().to_vec()
}

pub(crate) fn any_port() -> Uri {
    "tcp:127.0.0.1:0".parse().unwrap()
}

/// A destination that takes one migration in, in a thread.
pub(crate) fn receive(
    setup: impl FnOnce(DestinationBuilder<'_>) -> DestinationBuilder<'_>,
) -> (Uri, JoinHandle<Result<Arrived, Error>>) {
    let destination = setup(Destination::builder(&registry())).listen(&any_port()).unwrap();
    let uri = destination.uri().clone();
    (uri, std::thread::spawn(move || destination.receive(provide)))
}

/// A source of `ram` connected to `uri`.
pub(crate) fn send(
    ram: &Arc<Ram>,
    uri: &Uri,
    setup: impl FnOnce(SourceBuilder<'_>) -> SourceBuilder<'_>,
) -> Result<Source, Error> {
    setup(Source::builder(&registry(), Arc::clone(ram))).connect(uri)
}

pub(crate) fn all_compressions() -> Vec<Compression> {
    registry().iter().map(|methods| methods.compression()).collect()
}

/// An error with its causes, as the program prints it.
pub(crate) fn chain(error: &(impl std::error::Error + 'static)) -> String {
    let first: &(dyn std::error::Error + 'static) = error;
    let causes = std::iter::successors(Some(first), |&error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// Finishes `source`, a migration of `ram`, with its `last` pages: everything arrives equal and is
/// confirmed.
pub(crate) fn complete(
    source: Source,
    last: PageSet,
    ram: &Ram,
    received: JoinHandle<Result<Arrived, Error>>,
) -> Stats {
    let sent = std::thread::spawn(move || source.finish(&last, None));
    let arrived = received.join().unwrap().unwrap();
    assert_equal(ram, &arrived.ram);
    arrived.confirm().unwrap();
    sent.join().unwrap().unwrap()
}

/// Whether nothing but the test `name`, by its whole path, runs in this process. If other tests may, it
/// is run alone in a child, and passes there.
pub(crate) fn is_alone(name: &str) -> bool {
    const ALONE: &str = "MULTIFD_TEST_ALONE";
    if std::env::var_os(ALONE).is_some() {
        return true;
    }
    let mut child = std::process::Command::new(std::env::current_exe().unwrap());
    assert!(child.args(["--exact", name]).env(ALONE, "1").status().unwrap().success());
    false
}

/// Threads of this process.
pub(crate) fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}

/// Runs the tests of this program whose names contain `filter` with delays between threads, under a few
/// seeds. It is one of them itself, and does nothing then.
pub(crate) fn again_with_delays(filter: &str) {
    const SEED: &str = "MULTIFD_TEST_JITTER";
    if std::env::var_os(SEED).is_some() {
        return;
    }
    for seed in ["1", "2"] {
        let mut tests = std::process::Command::new(std::env::current_exe().unwrap());
        let output = tests.arg(filter).env(SEED, seed).output().unwrap();
        assert!(output.status.success(), "{seed}: {}", String::from_utf8_lossy(&output.stdout));
    }
}

/// One end of a pair of sockets, whose other end is handed in at a destination.
pub(crate) fn handed_in(destination: &Destination) -> Connection {
    let (near, far) = UnixStream::pair().unwrap();
    destination.entrance().add(Connection::from_socket(far).unwrap()).unwrap();
    Connection::from_socket(near).unwrap()
}
