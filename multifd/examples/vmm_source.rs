//! The source's side of a VMM: migrates a running guest away.
//!
//! ```sh
//! cargo run --example vmm_destination -- --listen tcp:127.0.0.1:4444 --compression zstd &
//! cargo run --example vmm_source      -- --to     tcp:127.0.0.1:4444 --compression zstd
//! ```
//!
//! `migrate` and what follows it is what a VMM takes over. `toy_vmm` is what it has already.

#![allow(clippy::print_stdout, reason = "an example that shows what happens")]

mod toy_vmm;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use multifd::core::ram::{Ram, RamBlock};
use multifd::core::wire::BlockName;
use multifd::stream::FullSection;
use multifd::{Error, PageSet, Source, Unfinished};
use toy_vmm::{Failure, Memory, Options, PAGE_SIZE, Vcpu};
use vm_memory::{GuestMemoryBackend, GuestMemoryRegion};

/// When the rest is this small, the guest is stopped for it: 1 MiB takes 10 ms at 1 Gbit/s.
const REST_PAGES: u64 = 256;

/// When a guest dirties faster than the network carries, more rounds do not help.
const MOST_ROUNDS: u32 = 20;

fn main() -> ExitCode {
    run().unwrap_or_else(|error| {
        eprintln!("{}", toy_vmm::chain(&*error));
        ExitCode::FAILURE
    })
}

fn run() -> Result<ExitCode, Failure> {
    let options = Options::parse("--to")?;
    let memory = toy_vmm::boot()?;
    let mut vcpu = Vcpu::new(memory.clone(), 0);
    vcpu.resume();
    match migrate(&memory, &mut vcpu, &options) {
        Ok(Outcome::Moved) => {
            // The guest runs over there. It must never run here again: two of them would write to
            // the same disks and answer on the same network address.
            println!("memory: {}", toy_vmm::digest(&memory)?);
            println!("moved, at count {}", vcpu.pause()?);
            Ok(ExitCode::SUCCESS)
        }
        Ok(Outcome::Unclear(error)) => {
            // The guest may run over there. Whoever can look there decides, not this program.
            eprintln!("no answer from the destination: {}", toy_vmm::chain(&error));
            eprintln!("the guest stays paused; look whether it runs at the destination");
            Ok(ExitCode::from(3))
        }
        Err(error) => {
            // The destination has not confirmed and never will: the guest is still ours alone. Its
            // memory was only read, so it goes on as if nothing had happened.
            let before = vcpu.pause()?;
            vcpu.resume();
            std::thread::sleep(Duration::from_millis(200));
            println!("migration failed: {}", toy_vmm::chain(&*error));
            println!("the guest runs on here, from count {before} to {}", vcpu.pause()?);
            Ok(ExitCode::FAILURE)
        }
    }
}

/// How a migration ended that did not fail.
enum Outcome {
    /// The destination has confirmed that it has the guest.
    Moved,
    /// Everything may have been sent, and whether the destination confirmed is not known.
    Unclear(Error),
}

/// Migrates the guest, which runs meanwhile. With an error it is still this side's, and can be
/// resumed if it is paused; else it is paused and stays so.
fn migrate(memory: &Memory, vcpu: &mut Vcpu, options: &Options) -> Result<Outcome, Failure> {
    let ram = describe(memory)?;
    let registry = multifd::registry()?;
    // A VMM keeps `source.cancel_token()` for the user who changes their mind, and shows
    // `source.progress()`.
    let mut source = Source::builder(&registry, Arc::clone(&ram))
        .compression(options.compression)
        .channels(options.channels)
        .connect(&options.uri)?;

    // Dirty tracking starts before the first page is read: the first round sends everything, so
    // what was dirtied up to here is in it. (With KVM: set KVM_MEM_LOG_DIRTY_PAGES here.)
    take_dirty(memory, &mut PageSet::none(&ram));
    let mut pages = PageSet::all(&ram);
    for round in 1..=MOST_ROUNDS {
        println!("round {round}: {} pages", pages.len());
        source.round(&pages)?;
        pages = PageSet::none(&ram);
        take_dirty(memory, &mut pages);
        if pages.len() <= REST_PAGES {
            break;
        }
    }

    // The guest stops here, and with it all else that writes its memory: device back ends, vhost,
    // DMA. Only then is the bitmap final. What the last look at it took is not sent yet, so the
    // new pages are added to that.
    let counter = vcpu.pause()?;
    take_dirty(memory, &mut pages);
    println!("last round: {} pages", pages.len());
    let state = FullSection { name: "toy-vcpu", version: 1, body: &counter.to_be_bytes() }
        .to_device_state(PAGE_SIZE)?;
    match source.finish(&pages, Some(&state)) {
        Ok(stats) => {
            println!("sent {} bytes", stats.total().wire_bytes);
            Ok(Outcome::Moved)
        }
        // The destination cannot have the guest.
        Err(Unfinished::Failed(error)) => Err(error.into()),
        Err(Unfinished::Unclear(error)) => Ok(Outcome::Unclear(error)),
    }
}

/// The guest's memory as RAM blocks, one for each region, in the order of the regions. Nothing is
/// copied: the blocks share the mappings.
fn describe(memory: &Memory) -> Result<Arc<Ram>, Failure> {
    let block = |region: &vm_memory::GuestRegionMmap<_>| {
        let name = toy_vmm::block_name(region.start_addr()).ok_or("memory of no block")?;
        Ok(RamBlock::new(BlockName::new(name)?, region.get_mmap()))
    };
    let blocks = memory.iter().map(block).collect::<Result<Vec<_>, Failure>>()?;
    Ok(Arc::new(Ram::new(PAGE_SIZE, blocks)?))
}

/// Adds the pages that were dirtied since the last call to `pages`, and clears the bitmap.
///
/// It is cleared before the pages are read, never after: a page that the guest writes in between
/// is then sent once more than needed. The other way round its last content would be lost.
///
/// With KVM, whose log misses what the VMM itself writes (virtio, for one), both are merged: the
/// words of `KVM_GET_DIRTY_LOG` and, as here, those of the bitmap.
fn take_dirty(memory: &Memory, pages: &mut PageSet) {
    for (block, region) in memory.iter().enumerate() {
        pages.merge_bitmap(block, &region.get_mmap().bitmap().get_and_reset());
    }
}
