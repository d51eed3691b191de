//! A VM that arrives: memory for it, and its way into a place.

use std::sync::Arc;
use std::time::{Duration, Instant};

use multifd::core::ram::{Ram, RamBlock};
use multifd::{Arrived, Error, Incoming};
use serde::Serialize;

use crate::cancel::Interrupt;
use crate::failure::{Failure, chain};
use crate::mapping;
use crate::options::store::Store;
use crate::output::{self, Output};
use crate::place::{How, StoredVm, Target};
use crate::size::Bytes;
use crate::summary::Summary;

/// Memory for the RAM that a source announces, at most `limit` bytes: if `None`, as much as this
/// machine has.
pub(crate) fn provide(incoming: &Incoming<'_>, limit: Option<u64>) -> Result<Arc<Ram>, Error> {
    check_ram(incoming, limit, "allow more with --ram-limit")?;
    memory(incoming)
}

/// Memory for a VM that is stored here: at most as much as this machine has.
pub(crate) fn provide_stored(incoming: &Incoming<'_>) -> Result<Arc<Ram>, Error> {
    check_ram(incoming, None, "use a larger machine")?;
    memory(incoming)
}

fn memory(incoming: &Incoming<'_>) -> Result<Arc<Ram>, Error> {
    let blocks = incoming.blocks.iter().map(|block| {
        let memory = mapping::anonymous(block.bytes).map_err(Error::caller)?;
        Ok(RamBlock::new(block.name.clone(), memory).fresh().with_huge_pages())
    });
    let blocks: Vec<_> = blocks.collect::<Result<_, Error>>()?;
    Ok(Arc::new(Ram::new(incoming.page_size, blocks)?))
}

/// Fails where a source announces more than `limit` bytes of RAM: if `None`, more than this machine has.
/// `advice` is what to do then.
pub(crate) fn check_ram(
    incoming: &Incoming<'_>,
    limit: Option<u64>,
    advice: &str,
) -> Result<(), Error> {
    let announced = announced(incoming);
    let machine = incoming.configuration.machine.as_deref();
    let blocks = incoming.blocks.len();
    tracing::debug!(machine, blocks, ram = %Bytes(announced), "a source begins");
    let limit = limit.unwrap_or_else(mapping::memory_of_this_machine);
    if announced > limit {
        return Err(Error::caller(format!(
            "the source has {} of RAM, but at most {} is accepted; {advice}",
            Bytes(announced),
            Bytes(limit)
        )));
    }
    Ok(())
}

/// Stores the VM under its name and tells the source that it has arrived. What is returned is yet to
/// be [`report`]ed.
pub(crate) fn store(
    mut arrived: Arrived,
    target: Target,
    args: &Store,
    limit: Option<Duration>,
    started: Instant,
    interrupt: &Interrupt,
    output: &Output,
) -> Result<Stored, Failure> {
    if !args.allow_missing_pages {
        check_all_arrived(&arrived)?;
    }
    let page_bytes = arrived.ram.page_size().bytes();
    let image = target.place().to_string();
    // What somebody else has been given cannot be taken back.
    if target.is_given() {
        arrived.commit().map_err(|error| interrupt.or(error))?;
    }
    let how = How { domain: None, writing: &args.new.writing, limit };
    let there = match target.store((&arrived.vm, &arrived.ram), how, &|| Ok(()), interrupt, output)
    {
        Err(failure) if failure.is_unclear() => {
            arrived.leave_unclear();
            return Err(failure);
        }
        stored => stored?,
    };
    tracing::debug!("everything is in its place; the source is told");
    let confirmed = arrived.confirm();
    let stored = match &confirmed {
        // The source may have let its VM go.
        Ok(_) | Err(Error::Unconfirmed(_)) => there.keep(),
        Err(_) => there.take_away(),
    };
    let stats = confirmed.map_err(|error| match error {
        Error::Unconfirmed(_) => Failure::unclear(chain(&error)),
        error => interrupt.or(error),
    })?;
    let summary = Summary::new(&stats, page_bytes, started.elapsed());
    let refused_connections = stats.refused_connections;
    Ok(Stored { image, vm: stored, refused_connections, summary })
}

/// Bytes of all RAM that a source has announced.
pub(crate) fn announced(incoming: &Incoming<'_>) -> u64 {
    incoming.blocks.iter().map(|block| block.bytes).fold(0, u64::saturating_add)
}

/// Fails if a page never arrived.
fn check_all_arrived(arrived: &Arrived) -> Result<(), Failure> {
    match arrived.missing_pages() {
        0 => Ok(()),
        count => Err(Failure::new(format!(
            "{count} pages of the VM never arrived: the source skips free pages (free-page-hint, \
             virtio-mem), for which there is --allow-missing-pages, which takes them as zero; or it is at \
             fault"
        ))),
    }
}

/// A VM that has been stored.
#[derive(Serialize)]
pub(crate) struct Stored {
    image: String,
    vm: StoredVm,
    /// Connections that were refused: they were not of the migration.
    refused_connections: u64,
    #[serde(flatten)]
    summary: Summary,
}

impl Stored {
    /// Where it is, and what it is, in words.
    pub(crate) fn place_and_kind(&self) -> (&str, String) {
        (&self.image, self.vm.shown())
    }

    /// What was moved, in words.
    pub(crate) fn moved(&self) -> String {
        self.summary.sentence()
    }
}

/// Prints what was stored.
pub(crate) fn report(stored: &Stored, args: &Store, output: &Output) -> Result<(), Failure> {
    if args.json {
        return output::print_json(stored);
    }
    let Stored { image, vm, summary, .. } = stored;
    output.say(&format!("stored {} in {image}", vm.shown()))?;
    output.say(&format!("moved {}", summary.sentence()))
}
