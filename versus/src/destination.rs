//! multifd as a destination that does what a QEMU does: fills its memory and confirms.
//!
//! It says where it listens, then what has arrived; when it is told a line, it compares the RAM with
//! what it should be, and ends.

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use multifd::core::Registry;
use multifd::core::ram::{Ram, RamBlock};
use multifd::core::vm_memory::MmapRegion;
use multifd::qpl::{Options, Qpl};
use multifd::{Destination, Incoming, Uri};
use multifd_interop::guest::difference;

use crate::args;
use crate::codec::Codec;
use crate::error::Error;
use crate::image::RAM;

pub(crate) fn run(args: &args::Destination) -> Result<(), Error> {
    let registry = registry(args.compression)?;
    let compression = registry.by_name(args.compression.compression());
    let compression = compression.map_err(multifd::Error::from)?.compression();
    let destination = Destination::builder(&registry)
        .compression(compression)
        .channels(args.channels)
        .listen(&Uri::Tcp { host: "127.0.0.1".to_owned(), port: 0 })?;
    say(&destination.uri().to_string())?;
    let arrived = destination.receive(provide)?;
    let ram = Arc::clone(&arrived.ram);
    let stats = arrived.confirm()?;
    say(&stats.wire_bytes().to_string())?;
    io::stdin().read_line(&mut String::new()).map_err(Error::io("read from stdin"))?;
    compare(&ram, &args.expect)
}

fn registry(codec: Codec) -> Result<Registry, Error> {
    let registry = multifd::registry().map_err(multifd::Error::from)?;
    let Some(path) = codec.qpl_path() else { return Ok(registry) };
    let path = path.parse().map_err(|error| Error::Other(format!("{error}")))?;
    let qpl = Arc::new(Qpl::new(Options::new(path)));
    Ok(registry.replacing(qpl).map_err(multifd::Error::from)?)
}

/// New memory, as that of a QEMU that has just started.
fn provide(incoming: &Incoming<'_>) -> Result<Arc<Ram>, multifd::Error> {
    let blocks = incoming.blocks.iter().map(|block| {
        let memory = MmapRegion::<()>::new(usize::try_from(block.bytes).unwrap_or(usize::MAX))
            .map_err(|error| multifd::Error::Caller(error.into()))?;
        Ok(RamBlock::new(block.name.clone(), memory).fresh().with_huge_pages())
    });
    let blocks: Vec<_> = blocks.collect::<Result<_, multifd::Error>>()?;
    Ok(Arc::new(Ram::new(incoming.page_size, blocks)?))
}

fn compare(ram: &Ram, expected: &Path) -> Result<(), Error> {
    let block = ram.block(RAM).ok_or_else(|| Error::Other(format!("no {RAM} has come")))?;
    let mut found = vec![0; usize::try_from(block.bytes()).unwrap_or(usize::MAX)];
    block.slice(0, found.len()).copy_to(&mut found[..]);
    let expected = fs::read(expected).map_err(Error::io(format!("read {}", expected.display())))?;
    difference(&expected, &found).map_or(Ok(()), |why| Err(Error::Other(why)))
}

fn say(line: &str) -> Result<(), Error> {
    let mut stdout = io::stdout();
    writeln!(stdout, "{line}").and_then(|()| stdout.flush()).map_err(Error::io("write to stdout"))
}
