//! What is fuzzed of multifd: each target is a function over an input, which panics where what must hold
//! does not. The folder `fuzz` of the repository runs them under libFuzzer; the test here runs them over
//! the inputs that are kept, in `kept`.

mod channel;
mod descriptor;
mod destination;
mod inspect;
mod main_channel;
mod manifest;
mod mapped_ram;
mod qatzip;
mod qpl;
mod relay;
mod return_path;
mod tls_folder;
mod uadk;
mod zlib;
mod zstd;

use std::sync::{Arc, OnceLock};

pub use channel::channel;
pub use descriptor::descriptor;
pub use destination::destination;
pub use inspect::inspect;
pub use main_channel::main_channel;
pub use manifest::manifest;
pub use mapped_ram::mapped_ram;
pub use qatzip::qatzip;
pub use qpl::qpl;
pub use relay::relay;
pub use return_path::return_path;
pub use tls_folder::tls_folder;
pub use uadk::uadk;
pub use zlib::zlib;
pub use zstd::zstd;

use multifd::{Error, Incoming};
use multifd_conformance::ends::Receiver;
use multifd_core::ram::{Ram, RamBlock};
use multifd_core::vm_memory::MmapRegion;
use multifd_core::wire::BlockName;
use multifd_core::{MultiFdMethods, PageSize, Registry};

/// A target, which panics where what must hold does not.
pub type Target = fn(&[u8]);

/// Every target by its name.
pub const TARGETS: [(&str, Target); 15] = [
    ("channel", channel),
    ("descriptor", descriptor),
    ("destination", destination),
    ("inspect", inspect),
    ("main_channel", main_channel),
    ("manifest", manifest),
    ("mapped_ram", mapped_ram),
    ("qatzip", qatzip),
    ("qpl", qpl),
    ("relay", relay),
    ("return_path", return_path),
    ("tls_folder", tls_folder),
    ("uadk", uadk),
    ("zlib", zlib),
    ("zstd", zstd),
];

/// The most parts of an input.
const MOST_PARTS: usize = 5;

/// Cuts an input into parts: a byte of choice, then parts with a length of 4 bytes (little-endian)
/// before each. The last may be cut off.
pub(crate) fn parts(input: &[u8]) -> (u8, Vec<&[u8]>) {
    let Some((&choice, mut rest)) = input.split_first() else { return (0, Vec::new()) };
    let mut parts = Vec::new();
    while let Some((length, behind)) = rest.split_first_chunk::<4>() {
        let length = u32::from_le_bytes(*length) as usize;
        let (part, behind) = behind.split_at(length.min(behind.len()));
        parts.push(part);
        rest = behind;
        if parts.len() == MOST_PARTS {
            break;
        }
    }
    (choice, parts)
}

/// The input that is cut into these parts.
pub fn join(choice: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut input = vec![choice];
    for part in parts {
        input.extend((part.len() as u32).to_le_bytes());
        input.extend_from_slice(part);
    }
    input
}

/// What comes of the payloads of one channel, each of whose packets has `pages` pages: the pages, up
/// to the first payload that is refused.
pub(crate) fn restored(
    codec: &dyn MultiFdMethods,
    payloads: &[&[u8]],
    pages: usize,
) -> Vec<Vec<u8>> {
    let mut receiver = Receiver::new(codec);
    payloads.iter().map_while(|payload| receiver.receive(payload, pages).ok()).collect()
}

/// RAM of one block, that of the recordings.
pub(crate) fn ram() -> Arc<Ram> {
    let memory = MmapRegion::<()>::new(4 << 20).expect("there is memory");
    let block = RamBlock::new(BlockName::new("pc.ram").expect("a name"), memory).fresh();
    Arc::new(Ram::new(PageSize::Kib4, [block]).expect("one block of whole pages"))
}

/// The most RAM that is provided.
const MOST_RAM: u64 = 64 << 20;

/// RAM as the source announces it, up to a limit.
pub(crate) fn provide(incoming: &Incoming<'_>) -> Result<Arc<Ram>, Error> {
    let total = incoming.blocks.iter().fold(0, |sum: u64, block| sum.saturating_add(block.bytes));
    if total > MOST_RAM {
        return Err(Error::caller("too much RAM"));
    }
    let blocks = incoming.blocks.iter().map(|info| {
        let memory = MmapRegion::<()>::new(info.bytes as usize).map_err(Error::caller)?;
        Ok(RamBlock::new(info.name.clone(), memory).fresh())
    });
    let blocks: Vec<_> = blocks.collect::<Result<_, Error>>()?;
    Ok(Arc::new(Ram::new(incoming.page_size, blocks)?))
}

/// The codecs that are built in.
pub(crate) fn registry() -> &'static Registry {
    static REGISTRY: OnceLock<Registry> = OnceLock::new();
    REGISTRY.get_or_init(|| multifd::registry().expect("the bundled codecs"))
}

/// The codec that a number stands for.
pub(crate) fn codec(choice: u8) -> &'static Arc<dyn MultiFdMethods> {
    let codecs = registry().iter().count();
    registry().iter().nth(usize::from(choice) % codecs).expect("one of them")
}

/// Each block's name and bytes.
pub(crate) fn content(ram: &Ram) -> Vec<(String, Vec<u8>)> {
    let content = |block: &Arc<RamBlock>| {
        let mut bytes = vec![0; block.bytes() as usize];
        block.slice(0, bytes.len()).copy_to(&mut bytes[..]);
        (block.name().to_string(), bytes)
    };
    ram.blocks().iter().map(content).collect()
}
