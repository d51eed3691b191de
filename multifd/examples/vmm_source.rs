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
use multifd::precopy::{AtTimeout, Guest, GuestError, NotMoved, Policy, Precopy, Snapshot};
use multifd::stream::FullSection;
use multifd::{Error, PageSet, Source, Stats};
use toy_vmm::{Failure, Memory, Options, PAGE_SIZE, Regions, Vcpu};

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
        Ok(stats) => {
            // The guest runs over there. It must never run here again: two of them would write to
            // the same disks and answer on the same network address.
            println!("sent {} bytes", stats.wire_bytes());
            println!("memory: {}", toy_vmm::digest(&memory)?);
            println!("moved, at count {}", vcpu.pause()?);
            Ok(ExitCode::SUCCESS)
        }
        Err(unclear @ NotMoved::Unclear(_)) => {
            // The guest may run over there. Whoever can look there decides, not this program. A VMM
            // must not end here, as this example does: it keeps the paused guest until it is told,
            // since this may be the only one.
            eprintln!("{}", toy_vmm::chain(&unclear));
            Ok(ExitCode::from(3))
        }
        Err(NotMoved::Running(error) | NotMoved::Paused(error)) => {
            // The guest is still ours alone. Its memory was only read, so it goes on as if nothing
            // had happened. (It is paused here only to see how far it is.)
            let before = vcpu.pause()?;
            vcpu.resume();
            std::thread::sleep(Duration::from_millis(200));
            println!("migration failed: {}", toy_vmm::chain(&error));
            println!("the guest runs on here, from count {before} to {}", vcpu.pause()?);
            Ok(ExitCode::FAILURE)
        }
    }
}

/// Migrates the guest, which runs meanwhile.
fn migrate(memory: &Memory, vcpu: &mut Vcpu, options: &Options) -> Result<Stats, NotMoved> {
    let source = connect(memory, options).map_err(NotMoved::Running)?;
    let policy = Policy::new()
        .downtime(Duration::from_millis(10))
        .throttle(20, 10, 99)
        .timeout(Duration::from_secs(60), AtTimeout::Cancel);
    // A VMM keeps `source.cancel_token()` for the user who changes their mind, and a clone of the
    // `Precopy`, whose `snapshot()` it shows.
    println!("sending {} pages", memory_pages(memory));
    let mut guest = Migrating { memory: Regions(memory.clone()), vcpu, counter: 0 };
    Precopy::new(policy).run(source, &mut guest)
}

fn connect(memory: &Memory, options: &Options) -> Result<Source, Error> {
    let registry = multifd::registry()?;
    let block = RamBlock::new(BlockName::new(toy_vmm::BLOCK)?, Regions(memory.clone()));
    Source::builder(&registry, Arc::new(Ram::new(PAGE_SIZE, [block])?))
        .compression(options.compression)
        .channels(options.channels)
        .connect(&options.uri)
}

fn memory_pages(memory: &Memory) -> u64 {
    use multifd::core::ram::BlockMemory;
    Regions(memory.clone()).bytes() / PAGE_SIZE.bytes() as u64
}

/// The guest as pre-copy needs it. Its dirty tracking, the bitmaps of its regions, is always on. (With
/// KVM: set `KVM_MEM_LOG_DIRTY_PAGES` before the migration begins.)
struct Migrating<'a> {
    memory: Regions,
    vcpu: &'a mut Vcpu,
    /// The register, from when the guest is paused.
    counter: u64,
}

impl Guest for Migrating<'_> {
    /// Each bitmap is cleared before the pages are read, never after: a page that the guest writes in
    /// between is then sent once more than needed. The other way round its last content would be
    /// lost.
    ///
    /// With KVM, whose log misses what the VMM itself writes (virtio, for one), both are merged: the
    /// words of `KVM_GET_DIRTY_LOG` and, as here, those of the bitmap.
    fn dirtied(&mut self, pages: &mut PageSet) -> Result<(), GuestError> {
        for (part, region) in self.memory.parts() {
            pages.merge_bitmap_at(0, part, &region.get_mmap().bitmap().get_and_reset())?;
        }
        Ok(())
    }

    fn pause(&mut self) -> Result<(), GuestError> {
        self.counter = self.vcpu.pause()?;
        Ok(())
    }

    fn device_state(&mut self) -> Result<Option<Vec<u8>>, GuestError> {
        let body = &self.counter.to_be_bytes();
        let state = FullSection { name: "toy-vcpu", version: 1, body };
        Ok(Some(state.to_device_state(PAGE_SIZE)?))
    }

    fn throttle(&mut self, percent: u8) -> Result<(), GuestError> {
        println!("the guest is slowed down by {percent} %");
        self.vcpu.throttle(percent);
        Ok(())
    }

    fn progress(&mut self, snapshot: &Snapshot) {
        println!(
            "round {}: {} KiB left, which take {} ms; dirtied at {} MiB/s, sent at {} MiB/s",
            snapshot.rounds,
            snapshot.bytes_left >> 10,
            snapshot.estimate.as_millis(),
            snapshot.dirty_rate as u64 >> 20,
            snapshot.bandwidth as u64 >> 20,
        );
    }
}
