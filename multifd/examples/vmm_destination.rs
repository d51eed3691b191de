//! The destination's side of a VMM: takes a guest in and runs it. See `vmm_source.rs` for how the
//! two are run.
//!
//! `take_in` and what follows it is what a VMM takes over. `toy_vmm` is what it has already.

#![allow(clippy::print_stdout, reason = "an example that shows what happens")]

mod toy_vmm;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use multifd::core::ram::{Ram, RamBlock};
use multifd::core::wire::BlockName;
use multifd::stream::FullSection;
use multifd::{Destination, Error, Incoming};
use toy_vmm::{Failure, Memory, Options, PAGE_SIZE, Vcpu};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryRegion};

/// The most guest memory that this host has to give. The sizes are the peer's word.
const MOST_BYTES: u64 = 1 << 30;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}", toy_vmm::chain(&*error));
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Failure> {
    let options = Options::parse("--listen")?;
    // Whatever fails in here, the guest is not here and must not run here: it is the source's.
    let (mut vcpu, counter) = take_in(&options)?;
    vcpu.resume();
    std::thread::sleep(Duration::from_millis(200));
    println!("the guest runs here, from count {counter} to {}", vcpu.pause()?);
    Ok(())
}

/// Waits for a guest and takes it in. Returns its vCPU, paused, with the value of its register.
fn take_in(options: &Options) -> Result<(Vcpu, u64), Failure> {
    let registry = multifd::registry()?;
    // A VMM keeps `destination.cancel_token()` to be able to end the wait. `uuid` makes sure that
    // it is the VM it waits for.
    let destination = Destination::builder(&registry)
        .compression(options.compression)
        .channels(options.channels)
        .listen(&options.uri)?;
    println!("listening on {}", destination.uri());

    let mut memory = Memory::default();
    let arrived = destination.receive(|incoming| {
        // The source is told of a failure in here, and its guest runs on.
        memory = map(incoming).map_err(Error::caller)?;
        share(&memory).map_err(Error::caller)
    })?;

    // Every page is in place, but the guest is still the source's. All that can fail comes now,
    // while it can go on there: dropping `arrived`, as every `?` here does, says so to the source.
    if arrived.missing_pages() > 0 {
        // This source sends every page at least once; with free page hinting it would not.
        return Err(format!("{} pages never came", arrived.missing_pages()).into());
    }
    let counter = restore(&arrived.device_state, &memory)?;
    let vcpu = Vcpu::new(memory.clone(), counter);
    println!("memory: {}", toy_vmm::digest(&memory)?);

    // The source gives the guest up. It runs only once this has worked: with an error here the
    // source may have taken it back.
    arrived.confirm()?;
    Ok((vcpu, counter))
}

/// Maps the memory that the source announces, if it is of a machine that can run here.
fn map(incoming: &Incoming<'_>) -> Result<Memory, Failure> {
    if incoming.page_size != PAGE_SIZE {
        return Err(format!("pages of {}, and not of {PAGE_SIZE}", incoming.page_size).into());
    }
    let sizes = incoming.blocks.iter().map(|block| block.bytes);
    let bytes = sizes.fold(0, u64::saturating_add);
    if bytes > MOST_BYTES {
        return Err(format!("{bytes} bytes of memory; this host gives {MOST_BYTES}").into());
    }
    toy_vmm::map(incoming.blocks.iter().map(|block| (block.name.as_str(), block.bytes)))
}

/// The memory as RAM blocks, one for each region. Pages are written right into the mappings.
fn share(memory: &Memory) -> Result<Arc<Ram>, Failure> {
    let block = |region: &vm_memory::GuestRegionMmap<_>| {
        let name = toy_vmm::block_name(region.start_addr()).ok_or("memory of no block")?;
        // New anonymous memory reads as zeros: zero pages need not be written, and so take no
        // memory. Without `fresh` they are written, which is right for memory that was in use.
        Ok(RamBlock::new(BlockName::new(name)?, region.get_mmap()).fresh())
    };
    let blocks = memory.iter().map(block).collect::<Result<Vec<_>, Failure>>()?;
    Ok(Arc::new(Ram::new(PAGE_SIZE, blocks)?))
}

/// The vCPU's register, from the device state. That it fits the memory is this guest's own check.
fn restore(device_state: &[u8], memory: &Memory) -> Result<u64, Failure> {
    let state = FullSection::of_device_state(device_state)
        .filter(|state| (state.name, state.version) == ("toy-vcpu", 1))
        .ok_or("the device state is not that of a toy VMM, version 1")?;
    let counter = u64::from_be_bytes(state.body.try_into()?);
    let in_memory: u64 = memory.read_obj(GuestAddress(0))?;
    if counter != in_memory {
        return Err(format!("the register has {counter}, the memory {in_memory}").into());
    }
    Ok(counter)
}
