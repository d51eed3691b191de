//! multifd as a destination that does what a QEMU does: fills its memory and confirms.
//!
//! It says where it listens, then what has arrived; then it waits until it is told [`COMPARE`], whereupon
//! it compares the RAM with what it must be, or its stdin ends, and ends.

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use multifd::core::Registry;
use multifd::core::ram::{Ram, RamBlock};
use multifd::core::vm_memory::{Bytes, MmapRegion};
use multifd::core::wire::BlockName;
use multifd::qpl::{Options, Qpl};
use multifd::tls::{Clients, ServerTls};
use multifd::{Destination, Incoming, Uri};

use crate::args;
use crate::codec::Codec;
use crate::compare::{Expected, pieces};
use crate::error::Error;
use crate::image::RAM;

/// The line upon which the RAM is compared.
pub(crate) const COMPARE: &str = "compare";

const PAGE: usize = 4096;

pub(crate) fn run(args: &args::Destination) -> Result<(), Error> {
    let registry = registry(args.compression)?;
    let compression = registry.by_name(args.compression.compression());
    let compression = compression.map_err(multifd::Error::from)?.compression();
    let mut setup =
        Destination::builder(&registry).compression(compression).channels(args.channels);
    if let Some(folder) = &args.tls_creds {
        let tls = ServerTls::from_dir(folder, Clients::Known);
        setup = setup.tls(tls.map_err(|error| Error::Other(error.to_string()))?);
    }
    let touched = args.touched.then(|| touched(&args.expect)).transpose()?;
    let destination = setup.listen(&Uri::Tcp { host: args.listen.clone(), port: 0 })?;
    say(&destination.uri().to_string())?;
    let arrived = destination.receive(|incoming| provide(incoming, touched))?;
    let ram = Arc::clone(&arrived.ram);
    let stats = arrived.confirm()?;
    say(&stats.wire_bytes().to_string())?;
    let mut told = String::new();
    io::stdin().read_line(&mut told).map_err(Error::io("read from stdin"))?;
    if told.trim_end() == COMPARE { compare(&ram, &args.expect) } else { Ok(()) }
}

fn registry(codec: Codec) -> Result<Registry, Error> {
    let registry = multifd::registry().map_err(multifd::Error::from)?;
    let Some(path) = codec.qpl_path() else { return Ok(registry) };
    let path = path.parse().map_err(|error| Error::Other(format!("{error}")))?;
    let qpl = Arc::new(Qpl::new(Options::new(path)));
    Ok(registry.replacing(qpl).map_err(multifd::Error::from)?)
}

/// New memory, as that of a QEMU that has just started; for the guest's RAM the block `touched`, if there
/// is one.
fn provide(
    incoming: &Incoming<'_>,
    mut touched: Option<RamBlock>,
) -> Result<Arc<Ram>, multifd::Error> {
    let blocks = incoming.blocks.iter().map(|block| {
        let fits = |touched: &mut RamBlock| {
            *touched.name() == block.name && touched.bytes() == block.bytes
        };
        if let Some(touched) = touched.take_if(fits) {
            return Ok(touched);
        }
        Ok(RamBlock::new(block.name.clone(), new_memory(block.bytes)?).fresh().with_huge_pages())
    });
    let blocks: Vec<_> = blocks.collect::<Result<_, multifd::Error>>()?;
    Ok(Arc::new(Ram::new(incoming.page_size, blocks)?))
}

/// The guest's RAM as that of a QEMU with `prealloc=on`: every page is there before the source connects.
fn touched(expected: &Path) -> Result<RamBlock, Error> {
    let reading = format!("read {}", expected.display());
    let bytes = expected.metadata().map_err(Error::io(reading))?.len();
    let name = BlockName::new(RAM).map_err(multifd::Error::from)?;
    let block = RamBlock::new(name, new_memory(bytes)?).with_huge_pages();
    let length = usize::try_from(bytes).unwrap_or(usize::MAX);
    let slice = block.slice(0, length);
    for at in (0..length).step_by(PAGE) {
        slice.write_obj(0_u8, at).map_err(|error| Error::Other(format!("no memory: {error}")))?;
    }
    // It is zero, and either program knows that.
    Ok(block.fresh())
}

fn new_memory(bytes: u64) -> Result<MmapRegion, multifd::Error> {
    MmapRegion::<()>::new(usize::try_from(bytes).unwrap_or(usize::MAX))
        .map_err(|error| multifd::Error::Caller(error.into()))
}

fn compare(ram: &Ram, expected: &Path) -> Result<(), Error> {
    let block = ram.block(RAM).ok_or_else(|| Error::Other(format!("no {RAM} has come")))?;
    let mut expected = Expected::open(expected)?;
    let mut found = Vec::new();
    for (at, length) in pieces(0, block.bytes()) {
        found.resize(length, 0);
        block.slice(at, length).copy_to(&mut found[..]);
        expected.check(at, &found)?;
    }
    Ok(())
}

fn say(line: &str) -> Result<(), Error> {
    let mut stdout = io::stdout();
    writeln!(stdout, "{line}").and_then(|()| stdout.flush()).map_err(Error::io("write to stdout"))
}
