//! What the fuzz targets share.

use std::sync::Arc;

use multifd_conformance::ends::Receiver;
use multifd_core::ram::{Ram, RamBlock};
use multifd_core::vm_memory::MmapRegion;
use multifd_core::wire::BlockName;
use multifd_core::{MultiFdMethods, PageSize};

/// The most parts of an input.
const MOST_PARTS: usize = 5;

/// Cuts an input into parts: a byte of choice, then parts with a length of 4 bytes (little-endian)
/// before each. The last may be cut off.
pub fn parts(input: &[u8]) -> (u8, Vec<&[u8]>) {
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
pub fn restored(codec: &dyn MultiFdMethods, payloads: &[&[u8]], pages: usize) -> Vec<Vec<u8>> {
    let mut receiver = Receiver::new(codec);
    payloads.iter().map_while(|payload| receiver.receive(payload, pages).ok()).collect()
}

/// RAM of one block, that of the recordings.
pub fn ram() -> Arc<Ram> {
    let memory = MmapRegion::<()>::new(4 << 20).expect("there is memory");
    let block = RamBlock::new(BlockName::new("pc.ram").expect("a name"), memory).fresh();
    Arc::new(Ram::new(PageSize::Kib4, [block]).expect("one block of whole pages"))
}
