//! A relay that serves: many migrations, one after another and at once.

use multifd::Uri;
use multifd::core::MultiFdMethods;
use multifd::relay::{Relay, RelayBuilder, Relayed};
use multifd::server::Newcomer;

use super::{Args, summaries};
use crate::cancel::Interrupt;
use crate::failure::Failure;
use crate::output::Output;
use crate::serve::guard::Guard;
use crate::serve::service::{Listen, differs, fill_in};
use crate::serve::task::{Done, Task};

/// Relays migrations from where it listens, each as `setup` says, until it is told to stop.
pub(super) fn serve(
    args: &Args,
    setup: &RelayBuilder<'_>,
    [from, to]: [&dyn MultiFdMethods; 2],
    listen: Listen,
    output: &Output,
) -> Result<(), Failure> {
    let guard = Guard {
        channel_timeout: args.channel_timeout.channel_timeout,
        allow_from: args.admission.networks(args.listen.as_ref())?,
        tls: args.tls.server()?,
        token: args.token.from()?,
        tls_option: "--from-tls-creds",
    };
    let service = args.serve.start("relay", guard, listen, Interrupt::listen()?, output)?;
    service.run((from.name(), Some(to.name())), |newcomer, task| {
        relay_one(args, setup.clone().threads(task.threads()), newcomer, task)
    })
}

fn relay_one(
    args: &Args,
    setup: RelayBuilder<'_>,
    newcomer: Newcomer,
    task: &Task<'_>,
) -> Result<Done, Failure> {
    let destination = destination(&args.to, &newcomer)?;
    let relay: Relay = setup.serve(newcomer, &destination)?;
    let _watch = task.interrupt().watch(relay.cancel_token());
    let progress = relay.progress();
    task.begin(progress.from, Some(progress.to));
    let relayed = relay.run();
    let relayed: Relayed = relayed.map_err(|unfinished| task.interrupt().or(unfinished))?;
    let [from, to] = summaries(&relayed);
    let moved = format!("from the source {}; to {destination} {}", from.sentence(), to.sentence());
    Ok(Done { confirmed: relayed.confirmed, stored: None, moved })
}

/// Where a migration goes, which may differ from VM to VM.
fn destination(to: &Uri, newcomer: &Newcomer) -> Result<Uri, Failure> {
    let text = to.to_string();
    if !differs(&text) {
        return Ok(to.clone());
    }
    fill_in(&text, newcomer.uuid())
        .parse()
        .map_err(|error| Failure::new(format!("cannot connect to {text}: {error}")))
}
