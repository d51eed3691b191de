//! What the tests share.

pub mod inflate;
pub mod pages;
pub mod simulated;
pub mod streams;

use std::time::Duration;

use multifd_conformance::ends::{Receiver, Sender};
use multifd_core::{Availability, Error, MethodDescriptor, PageSize};
use multifd_qpl::{Options, Path};
use qpl_sys::Library;

/// Why tests with libqpl are left out here. Where `QPL_LIBRARY` names one, they are not.
pub fn without_libqpl() -> Option<String> {
    match Library::open() {
        Err(error) if Library::named().is_none() => Some(error.to_string()),
        _ => None,
    }
}

/// The hardware path for tests, whose devices may never answer.
pub static IMPATIENT: Options = {
    let mut options = Options::new(Path::Hardware);
    options.timeout = Duration::from_millis(200);
    options
};

/// Why tests with an IAA are left out here. Where one is simulated, they are not.
pub fn without_hardware() -> Option<String> {
    match (Path::Hardware.descriptor().probe)() {
        _ if simulated::is_child() => None,
        Availability::Available(_) => None,
        Availability::Unavailable(reason) => Some(reason),
    }
}

/// The codec on each engine that is there.
pub fn engines() -> Vec<(Path, MethodDescriptor)> {
    let mut paths = vec![Path::Portable];
    for (path, without) in
        [(Path::Software, without_libqpl()), (Path::Hardware, without_hardware())]
    {
        match without {
            None => paths.push(path),
            Some(reason) => eprintln!("without path {path}: {reason}"),
        }
    }
    let descriptor = |path| match path {
        Path::Hardware => IMPATIENT.descriptor(),
        path => path.descriptor(),
    };
    paths.into_iter().map(|path| (path, descriptor(path))).collect()
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
