//! `multifd recv`.

mod serve;

use std::sync::Arc;
use std::time::Instant;

use multifd::core::wire::Uuid;
use multifd::{Destination, DestinationBuilder, Uri};

use crate::arrival;
use crate::cancel::Interrupt;
use crate::failure::Failure;
use crate::options::admission::{self, Admission};
use crate::options::codec::{self, Agreed};
use crate::options::cpu::Cpu;
use crate::options::limits::{ChannelTimeout, Limits};
use crate::options::store::{NewVm, Store};
use crate::options::tls::FromTls;
use crate::options::token::TokenFile;
use crate::options::zstd::Zstd;
use crate::output::{self, Output};
use crate::place::{FORMS, Target};
use crate::qpl::Qpl;
use crate::serve::service::{Listen, Serve, check_plain};

/// Receive a VM into an image folder or a file.
///
/// The source is `multifd send`, or a QEMU that migrates with the capability multifd. It is told
/// that the VM has arrived when everything is on the disk, or taken by a Cloud Hypervisor. If anything fails
/// before that, nothing is left and the guest continues at the source. Turn the capability return-path on at a QEMU: a
/// source without it cannot be told of a failure.
///
/// With --serve it goes on until it is told to stop, also with several at once. {uuid} and {time} in --to stand for
/// the VM's UUID and when it came.
#[derive(Debug, clap::Args)]
#[command(after_help = format!("\
{FORMS}

Examples:
  multifd recv --listen tcp::4444 --to vm --compression zstd --channels 4
  multifd recv --listen unix:/tmp/vm.sock --to vm --force
  multifd recv --listen tcp::4444 --to qemu-file:vm.mapped
  multifd recv --listen tcp::4444 --to vm --tls-creds tls
  multifd recv --serve --listen tcp::4444 --to 'vms/{{uuid}}-{{time}}' --tls-creds tls --token-file token"))]
pub(crate) struct Args {
    /// Where to listen: tcp:HOST:PORT (port 0: any free one), unix:PATH or vsock:CID:PORT. With --serve a socket
    /// of systemd's may take its place
    #[arg(short, long, value_name = "URI", required_unless_present = "serve")]
    listen: Option<Uri>,
    #[command(flatten)]
    store: Store,
    #[command(flatten)]
    agreed: Agreed,
    /// The only VM to accept; any if not given
    #[arg(long)]
    uuid: Option<Uuid>,
    #[command(flatten)]
    admission: Admission,
    #[command(flatten)]
    channel_timeout: ChannelTimeout,
    #[command(flatten)]
    limits: Limits,
    #[command(flatten)]
    serve: Serve,
    #[command(flatten)]
    tls: FromTls,
    #[command(flatten)]
    token: TokenFile,
    #[command(flatten)]
    qpl: Qpl,
    #[command(flatten)]
    zstd: Zstd,
    #[command(flatten)]
    cpu: Cpu,
}

pub(crate) fn run(args: &Args, output: &Output) -> Result<(), Failure> {
    // Before the threads, which inherit it.
    args.cpu.apply()?;
    let listen = args.serve.listen(args.listen.as_ref())?;
    if args.serve.serve && args.store.json {
        return Err(Failure::usage("--json is of one VM; with --serve there is --json-lines"));
    }
    let registry = args.zstd.in_registry(args.qpl.registry()?)?;
    let codec = codec::find(&registry, &args.agreed.compression, None)?;
    let setup = Destination::builder(&registry)
        .compression(Arc::clone(&codec))
        .channels(args.agreed.channels)
        .uuid(args.uuid)
        .channel_timeout(args.channel_timeout.channel_timeout)
        .progress_timeout(args.limits.progress_timeout())
        .time_limit(args.limits.time_limit)
        .device_state_limit(args.store.device_state_limit.in_memory());
    if !args.serve.serve {
        check_plain(&args.store.new.to.to_string())?;
    }
    match listen {
        Listen::At(uri) if !args.serve.serve => receive_one(args, setup, &uri, output),
        listen => serve::serve(args, &setup, &*codec, listen, output),
    }
}

/// Receives one VM.
fn receive_one(
    args: &Args,
    mut setup: DestinationBuilder<'_>,
    listen: &Uri,
    output: &Output,
) -> Result<(), Failure> {
    setup = setup.allow_from(args.admission.networks(Some(listen))?);
    let (tls, token) = (args.tls.server()?, args.token.token()?);
    let interrupt = Interrupt::listen()?;
    // Before listening: no source shall send a VM that cannot be stored.
    let NewVm { to, force, writing } = &args.store.new;
    let mut target = Target::create(to, *force, false, writing, &interrupt)?;
    let (is_open, has_token) = (tls.is_none(), token.is_some());
    if let Some(tls) = tls {
        setup = setup.tls(tls);
    }
    if let Some(token) = token {
        setup = setup.token(token);
    }
    let destination = setup.listen(listen)?;
    // Also with --quiet: a program that asked for port 0 waits for this line.
    output::note(&format!("listening on {}", destination.uri()));
    if is_open {
        admission::warn_of_network(destination.uri(), "--tls-creds", has_token, output);
    }
    let _watch = interrupt.watch(destination.cancel_token());
    let waiting = format!("waiting for a source on {}", destination.uri());
    let bar = output.line("receiving", &waiting);
    let progress = destination.progress();
    let mut started = None;
    let mut follow = None;
    let arrived = destination.receive(|incoming| {
        started = Some(Instant::now());
        let ram = target.provide(incoming, args.store.ram_limit)?;
        follow = Some(bar.follow(progress.clone(), ram.bytes()));
        Ok(ram)
    });
    drop((follow, bar));
    let arrived = arrived.map_err(|error| interrupt.or(error))?;
    let started = started.unwrap_or_else(Instant::now);
    let limit = args.limits.progress_timeout();
    let stored = arrival::store(arrived, target, &args.store, limit, started, &interrupt, output)?;
    output::went_through(arrival::report(&stored, &args.store, output));
    Ok(())
}
