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
use toy_vmm::{Failure, Memory, Options, PAGE_SIZE, Regions, Vcpu};
use vm_memory::{Bytes, GuestAddress};

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
    let counter = restore(&arrived.vm.device_state, &memory)?;
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
    let bytes = match incoming.blocks {
        [block] if block.name.as_str() == toy_vmm::BLOCK => block.bytes,
        _ => return Err(format!("this machine has one RAM block, {}", toy_vmm::BLOCK).into()),
    };
    if bytes > MOST_BYTES {
        return Err(format!("{bytes} bytes of memory; this host gives {MOST_BYTES}").into());
    }
    toy_vmm::map(bytes)
}

/// The memory as a RAM block. Pages are written right into the mappings.
fn share(memory: &Memory) -> Result<Arc<Ram>, Failure> {
    // A new memfd reads as zeros: zero pages need not be written, and so take no memory. Without
    // `fresh` they are written, which is right for memory that was in use.
    let block = RamBlock::new(BlockName::new(toy_vmm::BLOCK)?, Regions(memory.clone())).fresh();
    Ok(Arc::new(Ram::new(PAGE_SIZE, [block])?))
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
