//! What the tests share.
#![allow(dead_code, unreachable_pub, reason = "not every test needs all of it")]
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

pub mod inflate;
pub mod pages;
pub mod streams;

use multifd_conformance::ends::{Receiver, Sender};
use multifd_core::{Error, MethodDescriptor, PageSize};
use multifd_qpl::Path;
use qpl_sys::Library;

/// Why tests with libqpl are left out here. Where `QPL_LIBRARY` names one, they are not.
pub fn without_libqpl() -> Option<String> {
    match Library::open() {
        Err(error) if Library::named().is_none() => Some(error.to_string()),
        _ => None,
    }
}

/// The codec on each engine that is there.
pub fn engines() -> Vec<(Path, MethodDescriptor)> {
    let mut paths = vec![Path::Portable];
    match without_libqpl() {
        None => paths.push(Path::Software),
        Some(reason) => eprintln!("without libqpl: {reason}"),
    }
    paths.into_iter().map(|path| (path, path.descriptor())).collect()
}

/// The chunk that the codec makes of each page.
pub fn chunks(codec: &MethodDescriptor, page_size: PageSize, pages: &[u8]) -> Vec<Vec<u8>> {
    let payload = Sender::of_pages(codec, None, page_size).send(pages);
    let (lengths, mut data) = payload.split_at(pages.len() / page_size.bytes() * 4);
    let chunks = lengths.chunks_exact(4).map(|length| {
        let length = u32::from_be_bytes(length.try_into().unwrap());
        let (chunk, rest) = data.split_at(length as usize);
        data = rest;
        chunk.to_vec()
    });
    chunks.collect()
}

/// The page of a packet that has `chunk` alone.
pub fn receive_chunk(receiver: &mut Receiver, chunk: &[u8]) -> Result<Vec<u8>, Error> {
    let length = (chunk.len() as u32).to_be_bytes();
    receiver.receive(&[&length, chunk].concat(), 1)
}
