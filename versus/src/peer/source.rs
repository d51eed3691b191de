//! A source.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use multifd_interop::qemu::Qemu;
use serde::Deserialize;
use serde_json::json;

use super::program::command;
use super::{Program, machine, set_up, wait_for_completion};
use crate::codec::Codec;
use crate::error::Error;
use crate::measure::Bench;
use crate::{cpu, route::Route};

/// A source that is ready to migrate.
pub(crate) enum Source {
    Qemu(Box<Qemu>),
    /// `multifd send`, whose process starts with the migration.
    Multifd(Command),
}

/// What a source has done.
pub(crate) struct Sent {
    /// From the command to migrate, or from connecting, until the destination has confirmed.
    pub(crate) seconds: f64,
    pub(crate) cpu: Duration,
    pub(crate) wire_bytes: u64,
}

impl Source {
    pub(crate) fn start(bench: &Bench<'_>, route: Route, codec: Codec) -> Result<Self, Error> {
        let (image, args) = (&bench.image, bench.args);
        if route.is_from_qemu() {
            let machine = machine(image.mib);
            let mut qemu = Qemu::with_memory(&bench.qemu, &image.memory(), &machine)?;
            set_up(&mut qemu, codec, args)?;
            return Ok(Self::Qemu(Box::new(qemu)));
        }
        let mut send = command(&args.multifd, codec, &args.runner);
        send.args(["send", "--json", "--compression", codec.compression()]);
        send.args(["--channels", &args.channels.to_string()]);
        send.arg("--from").arg(image.path());
        if codec.has_levels() {
            send.args(["--level", &args.level.to_string()]);
        }
        if let Some(path) = codec.qpl_path() {
            send.args(["--qpl-path", path]);
        }
        Ok(Self::Multifd(send))
    }

    /// Migrates to `uri`.
    pub(crate) fn migrate(self, uri: &str) -> Result<Sent, Error> {
        match self {
            Self::Qemu(qemu) => from_qemu(*qemu, uri),
            Self::Multifd(command) => from_multifd(command, uri),
        }
    }
}

fn from_qemu(mut qemu: Qemu, uri: &str) -> Result<Sent, Error> {
    let id = qemu.process_id();
    let (before, began) = (cpu::of_process(id)?, Instant::now());
    qemu.migrate(uri)?;
    wait_for_completion(&mut qemu)?;
    let seconds = began.elapsed().as_secs_f64();
    let cpu = cpu::of_process(id)?.saturating_sub(before);
    let info = qemu.execute("query-migrate", &json!({}))?;
    let wire_bytes = info["ram"]["transferred"].as_u64();
    let wire_bytes = wire_bytes.ok_or_else(|| Error::Other("QEMU counts no bytes".to_owned()))?;
    Ok(Sent { seconds, cpu, wire_bytes })
}

/// What `multifd send --json` says, as far as it matters here.
#[derive(Deserialize)]
struct Said {
    seconds: f64,
    wire_bytes: u64,
}

fn from_multifd(mut command: Command, uri: &str) -> Result<Sent, Error> {
    let mut program = Program::start(command.args(["--to", uri]).stdout(Stdio::piped()))?;
    let said = program.rest()?;
    let cpu = program.cpu()?;
    program.end()?;
    let Said { seconds, wire_bytes } = serde_json::from_str(&said)
        .map_err(|error| Error::Other(format!("multifd send: {error}: {said}")))?;
    Ok(Sent { seconds, cpu, wire_bytes })
}
