//! `multifd recv`.

use std::sync::Arc;
use std::time::Instant;

use multifd::core::ram::{Ram, RamBlock};
use multifd::{Arrived, Destination, Error, Incoming};
use serde::Serialize;

use crate::args;
use crate::cancel::Interrupt;
use crate::codecs;
use crate::failure::Failure;
use crate::image::{self, Manifest, Place};
use crate::mapping;
use crate::output::{self, Output};
use crate::size::Bytes;
use crate::summary::Summary;

pub(crate) fn run(args: &args::Recv, output: &Output) -> Result<(), Failure> {
    let registry = args.qpl.registry()?;
    let codec = codecs::find(&registry, &args.agreed.compression, None)?;
    let interrupt = Interrupt::listen()?;
    // First of all: nobody is to send a VM that cannot be stored.
    let place = Place::new(&args.store.to, args.store.force)?;
    let destination = Destination::builder(&registry)
        .compression(codec.compression())
        .channels(args.agreed.channels)
        .uuid(args.uuid)
        .channel_timeout(args.channel_timeout)
        .device_state_limit(args.store.device_state_limit())
        .listen(&args.listen)?;
    // Whoever started us on port 0 waits for this line, whatever else is to be quiet.
    output::note(&format!("listening on {}", destination.uri()));
    let _watch = interrupt.watch(destination.cancel_token());
    let bar = output.bar("receiving", 0);
    let progress = destination.progress();
    let mut started = None;
    let mut follow = None;
    let arrived = destination.receive(|incoming| {
        started = Some(Instant::now());
        let ram = provide(incoming, args.store.ram_limit)?;
        bar.set_total(ram.bytes());
        follow = Some(bar.follow(progress.clone(), incoming.page_size.bytes()));
        Ok(ram)
    });
    drop((follow, bar));
    let arrived = arrived.map_err(|error| interrupt.or(error))?;
    let started = started.unwrap_or_else(Instant::now);
    store(arrived, place, &args.store, started, &interrupt, output)
}

/// Memory for the RAM that a source announces, unless it is more than `limit` bytes.
pub(crate) fn provide(incoming: &Incoming<'_>, limit: Option<u64>) -> Result<Arc<Ram>, Error> {
    let announced = incoming.blocks.iter().map(|block| block.bytes);
    let announced = announced.fold(0, u64::saturating_add);
    let machine = incoming.configuration.machine.as_deref();
    let blocks = incoming.blocks.len();
    tracing::debug!(machine, blocks, ram = %Bytes(announced), "a source begins");
    let limit = limit.unwrap_or_else(mapping::memory_of_this_machine);
    if announced > limit {
        return Err(Error::Caller(format!(
            "the source has {} of RAM, more than the {} to be taken; --ram-limit allows more",
            Bytes(announced),
            Bytes(limit)
        )));
    }
    let blocks = incoming.blocks.iter().map(|block| {
        let memory = mapping::anonymous(block.bytes).map_err(Error::Caller)?;
        Ok(RamBlock::new(block.name.clone(), memory).fresh().with_huge_pages())
    });
    let blocks: Vec<_> = blocks.collect::<Result<_, Error>>()?;
    Ok(Arc::new(Ram::new(incoming.page_size, blocks)?))
}

/// Stores the VM under its name, lets the source give its own up, and says so.
pub(crate) fn store(
    vm: Arrived,
    place: Place,
    args: &args::Store,
    started: Instant,
    interrupt: &Interrupt,
    output: &Output,
) -> Result<(), Failure> {
    if !args.allow_missing_pages {
        check_all_arrived(&vm)?;
    }
    let page_bytes = vm.ram.page_size().bytes();
    let bar = output.bar("storing", vm.ram.bytes());
    let manifest = image::write(place.folder(), &vm, interrupt, &bar)?;
    drop(bar);
    let placed = place.put()?;
    tracing::debug!("everything is on the disk; the source may give the VM up");
    let (stats, codec_stats) = vm.confirm().map_err(|error| interrupt.or(error))?;
    placed.keep();
    let summary = Summary::new(&stats, codec_stats, page_bytes, started.elapsed());
    report(&Stored { image: args.to.display().to_string(), vm: manifest, summary }, args, output)
}

/// A lost channel shows in nothing but its pages.
fn check_all_arrived(vm: &Arrived) -> Result<(), Failure> {
    match vm.missing_pages() {
        0 => Ok(()),
        count => Err(Failure::new(format!(
            "{count} pages of the VM never arrived: a channel is missing, or the source skips free \
             pages (free-page-hint, virtio-mem), which --allow-missing-pages takes as zero"
        ))),
    }
}

/// What has been stored.
#[derive(Serialize)]
struct Stored {
    image: String,
    vm: Manifest,
    #[serde(flatten)]
    summary: Summary,
}

fn report(stored: &Stored, args: &args::Store, output: &Output) -> Result<(), Failure> {
    if args.json {
        return output::print_json(stored);
    }
    let Stored { image, vm, summary } = stored;
    let machine = vm.machine.as_deref().unwrap_or("RAM without a machine");
    let blocks = match vm.blocks.len() {
        1 => "1 RAM block".to_owned(),
        count => format!("{count} RAM blocks"),
    };
    output.say(&format!("stored {machine} with {blocks} in {image}"))?;
    output.say(&format!("moved {}", summary.sentence()))
}
