//! What the tests share.

pub mod inflate;
pub mod log;
pub mod packet;
pub mod pages;
pub mod real;
pub mod simulated;
pub mod streams;

use std::time::Duration;

use multifd_conformance::ends::{Receiver, Sender};
use multifd_core::{Availability, Error, MethodStats, MultiFdMethods, PageSize};
use multifd_qpl::{Level, Options, Path, Qpl};
use qpl_sys::Library;

/// Why tests with libqpl are left out here. Where `QPL_LIBRARY` names one, they are not.
pub fn without_libqpl() -> Option<String> {
    match Library::open() {
        Err(error) if Library::named().is_none() => Some(error.to_string()),
        _ => None,
    }
}

/// The codec on `path`, with the defaults.
pub const fn on(path: Path) -> Qpl {
    Qpl::new(Options::new(path))
}

/// The portable path at `level`.
pub const fn at(level: Level) -> Qpl {
    Qpl::new(Options::new(Path::Portable).with_level(level))
}

/// The hardware path for tests, whose devices may never answer.
pub const IMPATIENT: Options =
    Options::new(Path::Hardware).with_timeout(Duration::from_millis(200));

/// Why tests with an IAA are left out here. Where one is simulated, they are not.
pub fn without_hardware() -> Option<String> {
    match on(Path::Hardware).probe() {
        _ if simulated::is_child() || real::is_child() => None,
        Availability::Unavailable(reason) => Some(reason),
        _ => None,
    }
}

/// Cases that the hardware path cannot pass. `bad_input` proves what it does instead.
pub const EXCEPT: [(&str, &str); 1] = [(
    "hostile::bytes_behind_the_payload_are_not_ignored",
    "libqpl does not say how much of a chunk a device has read",
)];

/// The codec on each engine that is there.
pub fn engines() -> Vec<(Path, Qpl)> {
    let mut paths = vec![Path::Portable];
    for (path, without) in
        [(Path::Software, without_libqpl()), (Path::Hardware, without_hardware())]
    {
        match without {
            None => paths.push(path),
            Some(reason) => eprintln!("without path {path}: {reason}"),
        }
    }
    let codec = |path| match path {
        Path::Hardware => Qpl::new(IMPATIENT),
        path => on(path),
    };
    paths.into_iter().map(|path| (path, codec(path))).collect()
}

/// The chunk that the codec makes of each page.
pub fn chunks(codec: &Qpl, page_size: PageSize, pages: &[u8]) -> Vec<Vec<u8>> {
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

/// The count called `name`.
#[track_caller]
pub fn count(stats: &MethodStats, name: &str) -> u64 {
    stats.get(name).unwrap_or_else(|| panic!("no {name} in {stats:?}"))
}

/// The page of a packet that has `chunk` alone.
pub fn receive_chunk(receiver: &mut Receiver, chunk: &[u8]) -> Result<Vec<u8>, Error> {
    let length = (chunk.len() as u32).to_be_bytes();
    receiver.receive(&[&length, chunk].concat(), 1)
}
