//! A destination that serves: many VMs are received, one after another and at once.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use multifd::core::MultiFdMethods;
use multifd::server::Newcomer;
use multifd::{DestinationBuilder, Incoming};

use super::Args;
use crate::arrival;
use crate::cancel::Interrupt;
use crate::failure::Failure;
use crate::mapping;
use crate::options::store::NewVm;
use crate::output::Output;
use crate::place::{Place, Target};
use crate::serve::guard::Guard;
use crate::serve::service::{Listen, differs, fill_in};
use crate::serve::task::{Done, Task};
use crate::size::Bytes;

/// Receives VMs from where it listens, each as `setup` says, until it is told to stop.
pub(super) fn serve(
    args: &Args,
    setup: &DestinationBuilder<'_>,
    codec: &dyn MultiFdMethods,
    listen: Listen,
    output: &Output,
) -> Result<(), Failure> {
    check_place(&args.store.new)?;
    let guard = Guard {
        channel_timeout: args.channel_timeout.channel_timeout,
        allow_from: args.admission.networks(args.listen.as_ref())?,
        tls: args.tls.server()?,
        token: args.token.token()?,
        tls_option: "--tls-creds",
    };
    let service = args.serve.start("recv", guard, listen, Interrupt::listen()?, output)?;
    let memory = Memory {
        taken: AtomicU64::new(0),
        most: args.store.ram_limit.unwrap_or_else(mapping::memory_of_this_machine),
    };
    service.run((codec.name(), None), |newcomer, task| {
        receive_one(args, setup.clone().threads(task.threads()), &memory, newcomer, task)
    })
}

/// Each VM needs a place of its own.
fn check_place(NewVm { to, force, .. }: &NewVm) -> Result<(), Failure> {
    let is_given = matches!(to, Place::CloudHypervisor(_));
    if is_given || *force || to.path().to_str().is_some_and(differs) {
        return Ok(());
    }
    Err(Failure::usage(format!(
        "with --serve every VM would go to {to}: put {{uuid}} into its name, and {{time}} where it may come again, or replace it each time with \
         --force"
    )))
}

fn receive_one(
    args: &Args,
    setup: DestinationBuilder<'_>,
    memory: &Memory,
    newcomer: Newcomer,
    task: &Task<'_>,
) -> Result<Done, Failure> {
    let (store, interrupt, output) = (&args.store, task.interrupt(), task.output());
    let NewVm { to, force, writing } = &store.new;
    let to = to.clone().at(|path| fill_in(path, newcomer.uuid()))?;
    let mut target = Target::create(&to, *force, false, writing, interrupt)?;
    let destination = setup.serve(newcomer)?;
    let _watch = interrupt.watch(destination.cancel_token());
    task.begin(destination.progress(), None);
    let (mut started, mut taken) = (None, None);
    let arrived = destination.receive(|incoming| {
        started = Some(Instant::now());
        taken = Some(memory.take(incoming)?);
        target.provide(incoming, store.ram_limit)
    });
    let arrived = arrived.map_err(|error| interrupt.or(error))?;
    let confirmed = arrived.return_path;
    let started = started.unwrap_or_else(Instant::now);
    let limit = args.limits.progress_timeout();
    let stored = arrival::store(arrived, target, store, limit, started, interrupt, output)?;
    let (place, kind) = stored.place_and_kind();
    let (place, moved) = (place.to_owned(), stored.moved());
    Ok(Done {
        confirmed,
        moved: format!("stored {kind} in {place}; moved {moved}"),
        stored: Some(place),
    })
}

/// The memory of all VMs that are received at once.
struct Memory {
    taken: AtomicU64,
    most: u64,
}

/// That of one of them, until it is stored.
struct Taken<'a> {
    memory: &'a Memory,
    bytes: u64,
}

impl Memory {
    fn take(&self, incoming: &Incoming<'_>) -> Result<Taken<'_>, multifd::Error> {
        let bytes = arrival::announced(incoming);
        let add = |taken: u64| taken.checked_add(bytes).filter(|&all| all <= self.most);
        let added = self.taken.fetch_update(Ordering::AcqRel, Ordering::Acquire, add);
        added.map_err(|taken| {
            multifd::Error::caller(format!(
                "the source has {} of RAM, and those that are received already have {} of the {} that are accepted \
                 for all together; allow more with --ram-limit",
                Bytes(bytes),
                Bytes(taken),
                Bytes(self.most)
            ))
        })?;
        Ok(Taken { memory: self, bytes })
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.memory.taken.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}
