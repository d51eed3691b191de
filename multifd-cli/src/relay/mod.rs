//! `multifd relay`.

mod inspect;
mod progress;
mod record;
mod serve;

use std::path::PathBuf;
use std::sync::Arc;

use multifd::core::MultiFdMethods;
use multifd::inspect::Report as Inspected;
use multifd::relay::{Relay, RelayBuilder, Relayed, Tap, Wire};
use multifd::{Side, Uri};
use serde::Serialize;

use crate::cancel::Interrupt;
use crate::failure::Failure;
use crate::inspect::{chart, json, text};
use crate::options::admission::{self, Admission};
use crate::options::codec::{self, channel_count};
use crate::options::cpu::Cpu;
use crate::options::limits::{Bandwidth, ChannelTimeout, Limits};
use crate::options::tls::BothTls;
use crate::options::token::BothTokenFiles;
use crate::options::zstd::Zstd;
use crate::output::{self, Output};
use crate::qpl::Qpl;
use crate::serve::service::{Listen, Serve, check_plain};
use crate::summary::Summary;
use inspect::Inspection;
use record::Recorder;

/// Relay a migration, with another codec or number of channels on the other side.
///
/// It stands between a source (multifd send, or a QEMU that migrates with the capability multifd)
/// and a destination (multifd recv, or a QEMU with -incoming), relays one migration live and ends, or with
/// --serve many, until it is told to stop. It
/// takes the place of the other side: give it the compression and the channels of each side. It keeps
/// no RAM, and writes files only with --record and --chart. The source may switch to postcopy, but not
/// with the capability postcopy-preempt. XBZRLE and devices that migrate in parts (VFIO) cannot be
/// relayed.
///
/// With the capability return-path at the source, it is done when the destination has confirmed the
/// migration; without, when the destination has closed its connection after the last byte.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  multifd relay --listen tcp::4444 --to tcp:host:4444 --from-compression zstd --to-compression zlib
  multifd relay --listen tcp::4444 --to unix:/tmp/vm.sock --from-channels 2 --to-channels 8
  multifd relay --listen tcp::4444 --to tcp:host:4444 --inspect --chart migration.svg

A compressed tunnel between two QEMUs, on the source's and on the destination's host:
  multifd relay --listen tcp:127.0.0.1:4444 --to tcp:there:5555 --to-compression zstd
  multifd relay --listen tcp::5555 --to tcp:127.0.0.1:4444 --from-compression zstd

A service on the destination's host, for many VMs, each of whose QEMUs listens on a socket of its own:
  multifd relay --serve --listen tcp::5555 --from-tls-creds tls --from-token-file token \\
    --to unix:/run/vms/{uuid}.sock --metrics tcp:127.0.0.1:9464 --audit /var/log/multifd/relay")]
pub(crate) struct Args {
    /// Where to listen for the source: tcp:HOST:PORT (port 0: any free one), unix:PATH or vsock:CID:PORT. With
    /// --serve a socket of systemd's may take its place
    #[arg(short, long, value_name = "URI", required_unless_present = "serve")]
    listen: Option<Uri>,
    /// Where the destination listens: tcp:HOST:PORT, unix:PATH or vsock:CID:PORT. With --serve {uuid} in it
    /// stands for the VM's UUID
    #[arg(short, long, value_name = "URI")]
    to: Uri,
    /// The source's codec
    #[arg(long, value_name = "CODEC", default_value = "none", value_parser = codec::names())]
    from_compression: String,
    /// The destination's codec
    #[arg(long, value_name = "CODEC", default_value = "none", value_parser = codec::names())]
    to_compression: String,
    /// How many channels the source has
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = channel_count())]
    from_channels: u8,
    /// How many channels the destination expects
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = channel_count())]
    to_channels: u8,
    /// The level to compress with for the destination
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    to_level: Option<i32>,
    #[command(flatten)]
    admission: Admission,
    #[command(flatten)]
    channel_timeout: ChannelTimeout,
    /// Record both sides, in the folders from and to of this new folder, for multifd decode
    #[arg(long, value_name = "DIR", conflicts_with = "serve")]
    record: Option<PathBuf>,
    /// Inspect what the source sends, as multifd inspect does: errors are printed as they come, the
    /// rest at the end, even if the migration fails. What it finds does not change the exit status
    #[arg(long, conflicts_with = "serve")]
    inspect: bool,
    /// Draw packets by channel and pages by round of what is inspected, as SVG
    #[arg(long, value_name = "FILE", requires = "inspect")]
    chart: Option<PathBuf>,
    /// Print the result as JSON
    #[arg(long, conflicts_with = "serve")]
    json: bool,
    #[command(flatten)]
    bandwidth: Bandwidth,
    #[command(flatten)]
    limits: Limits,
    #[command(flatten)]
    serve: Serve,
    #[command(flatten)]
    tls: BothTls,
    #[command(flatten)]
    token: BothTokenFiles,
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
    let registry = args.zstd.in_registry(args.qpl.registry()?)?;
    let from = codec::find(&registry, &args.from_compression, None)?;
    let to = codec::find(&registry, &args.to_compression, args.to_level)?;
    let mut setup = Relay::builder(&registry)
        .from_compression(Arc::clone(&from))
        .from_channels(args.from_channels)
        .to_compression(Arc::clone(&to))
        .to_channels(args.to_channels)
        .to_level(args.to_level)
        .channel_timeout(args.channel_timeout.channel_timeout)
        .progress_timeout(args.limits.progress_timeout())
        .time_limit(args.limits.time_limit)
        .max_bandwidth(args.bandwidth.max_bandwidth);
    if let Some(tls) = args.tls.client()? {
        setup = setup.to_tls(tls);
    }
    if let Some(token) = args.token.to()? {
        setup = setup.to_token(token);
    }
    if !args.serve.serve {
        check_plain(&args.to.to_string())?;
    }
    match listen {
        Listen::At(uri) if !args.serve.serve => relay_one(args, setup, [from, to], &uri, output),
        listen => serve::serve(args, &setup, [&*from, &*to], listen, output),
    }
}

/// Relays one migration.
fn relay_one(
    args: &Args,
    mut setup: RelayBuilder<'_>,
    [from, to]: [Arc<dyn MultiFdMethods>; 2],
    listen: &Uri,
    output: &Output,
) -> Result<(), Failure> {
    setup = setup.allow_from(args.admission.networks(Some(listen))?);
    let (tls, token) = (args.tls.server()?, args.token.from()?);
    let interrupt = Interrupt::listen()?;
    let (is_open, has_token) = (tls.is_none(), token.is_some());
    if let Some(tls) = tls {
        setup = setup.from_tls(tls);
    }
    if let Some(token) = token {
        setup = setup.from_token(token);
    }
    let recorder = args.record.as_deref().map(Recorder::new).transpose()?.map(Arc::new);
    let inspection = args.inspect.then(|| Arc::new(Inspection::new(args.from_channels)));
    if let Some(tap) = Taps::of(recorder.as_ref(), inspection.as_ref()) {
        setup = setup.tap(Arc::new(tap));
    }
    let relay = setup.listen(listen, &args.to)?;
    // Also with --quiet: a program that asked for port 0 waits for this line.
    output::note(&format!("listening on {}", relay.uri()));
    if is_open {
        admission::warn_of_network(relay.uri(), "--from-tls-creds", has_token, output);
    }
    let _watch = interrupt.watch(relay.cancel_token());
    let progress = relay.progress();
    let listen = relay.uri().to_string();
    let line = output.line("relaying", &format!("waiting for a source on {listen}"));
    let follow = line.follow_text(progress::text(progress.clone(), listen));
    let relayed = relay.run();
    drop((follow, line));
    let recorded = recorder.map(|recorder| {
        let sides = [(&*from, progress.from.snapshot()), (&*to, progress.to.snapshot())];
        recorder.finish(sides, relayed.is_ok())
    });
    let inspected = inspection.map(|inspection| inspection.finish());
    let shown = inspected.as_ref().map_or(Ok(()), |inspected| show(args, inspected));
    let relayed = relayed.map_err(|unfinished| {
        let unfinished = Failure::from(unfinished);
        match (interrupt.check(), &args.record) {
            (Err(cancelled), Some(folder)) if !unfinished.is_unclear() => cancelled
                .saying(format!("cancelled; the incomplete recording is in {}", folder.display())),
            _ => interrupt.or(unfinished),
        }
    })?;
    output::went_through(report(args, [&*from, &*to], &relayed, inspected.as_ref(), output));
    recorded.transpose().map_err(|failure| {
        Failure::incomplete(format!(
            "the migration went through, but its recording is incomplete: {failure}"
        ))
    })?;
    shown.map_err(|failure| {
        Failure::incomplete(format!(
            "the migration went through, but its inspection is incomplete: {failure}"
        ))
    })
}

/// Everything that sees the bytes.
#[derive(Debug)]
struct Taps(Vec<Arc<dyn Tap>>);

impl Taps {
    /// `None` if nothing sees them, since a tap costs time.
    fn of(recorder: Option<&Arc<Recorder>>, inspection: Option<&Arc<Inspection>>) -> Option<Self> {
        let recorder = recorder.map(|recorder| Arc::clone(recorder) as Arc<dyn Tap>);
        let inspection = inspection.map(|inspection| Arc::clone(inspection) as Arc<dyn Tap>);
        let taps: Vec<_> = recorder.into_iter().chain(inspection).collect();
        (!taps.is_empty()).then_some(Self(taps))
    }
}

impl Tap for Taps {
    fn pass(&self, side: Side, wire: Wire, bytes: &[u8]) {
        self.0.iter().for_each(|tap| tap.pass(side, wire, bytes));
    }
}

/// Prints the inspection as text, and draws its chart.
fn show(args: &Args, inspected: &Inspected) -> Result<(), Failure> {
    if !args.json {
        output::print(&(text::summary(inspected) + &text::findings(&inspected.findings)))?;
    }
    args.chart.as_deref().map_or(Ok(()), |path| chart::write(inspected, path))
}

/// What was moved, from the source and to the destination.
fn summaries(Relayed { from, to, page_size, elapsed, .. }: &Relayed) -> [Summary; 2] {
    [from, to].map(|stats| Summary::new(stats, page_size.bytes(), *elapsed))
}

#[derive(Serialize)]
struct Report<'a> {
    /// Whether the destination has confirmed the migration.
    confirmed: bool,
    /// Connections that were refused: they were not of the migration.
    refused_connections: u64,
    from: Moved<'a>,
    to: Moved<'a>,
    /// What the source has sent, if it was inspected.
    #[serde(skip_serializing_if = "Option::is_none")]
    inspection: Option<json::Summary<'a>>,
}

/// What was moved on one side.
#[derive(Serialize)]
struct Moved<'a> {
    codec: &'a str,
    channels: u8,
    #[serde(flatten)]
    summary: Summary,
}

fn report(
    args: &Args,
    [from, to]: [&dyn MultiFdMethods; 2],
    relayed: &Relayed,
    inspected: Option<&Inspected>,
    output: &Output,
) -> Result<(), Failure> {
    let confirmed = relayed.confirmed;
    let [of_from, of_to] = summaries(relayed);
    let from = Moved { codec: from.name(), channels: args.from_channels, summary: of_from };
    let to = Moved { codec: to.name(), channels: args.to_channels, summary: of_to };
    if args.json {
        return output::print_json(&Report {
            confirmed,
            refused_connections: relayed.refused.connections,
            from,
            to,
            inspection: inspected.map(json::summary),
        });
    }
    for (side, Moved { codec, channels, summary }) in [("from", &from), ("to", &to)] {
        let sentence = summary.sentence();
        output.say(&format!("{side} {codec} on {channels} channels: {sentence}"))?;
    }
    output.say(if confirmed {
        "the destination has confirmed the migration"
    } else {
        "the destination has closed its connection after the last byte; without a return path it cannot \
         confirm"
    })
}
