//! A source.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use multifd_interop::qemu::Qemu;
use serde::Deserialize;
use serde_json::json;

use super::program::command;
use super::{Program, credentials, machine, set_up, wait_for_completion};
use crate::cpu;
use crate::error::Error;
use crate::measure::Migration;

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
    /// In the same time.
    pub(crate) cpu: Duration,
    pub(crate) wire_bytes: u64,
}

impl Source {
    pub(crate) fn start(migration: &Migration<'_>) -> Result<Self, Error> {
        let (image, args) = (&migration.bench.image, migration.bench.args);
        let (host, codec) = (&migration.network.source, migration.codec);
        if migration.route.is_from_qemu() {
            let mut arguments = machine(image.guest.size);
            arguments.extend(credentials(migration, "client"));
            let mut qemu = Qemu::with_memory(&host.qemu, &image.memory(), &arguments)?;
            set_up(&mut qemu, migration)?;
            return Ok(Self::Qemu(Box::new(qemu)));
        }
        let mut send = command(&args.multifd, host, codec, &args.runner);
        send.args(["send", "--json", "--compression", codec.compression()]);
        send.args(["--channels", &args.channels.to_string()]);
        send.arg("--from").arg(image.path());
        if codec.has_levels() {
            send.args(["--level", &args.level.to_string()]);
        }
        if let Some(path) = codec.qpl_path() {
            send.args(["--qpl-path", path]);
        }
        if let Some(folder) = migration.certificates() {
            send.arg("--tls-creds").arg(folder);
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
    cpu_seconds: f64,
    wire_bytes: u64,
}

fn from_multifd(mut command: Command, uri: &str) -> Result<Sent, Error> {
    let mut program = Program::start(command.args(["--to", uri]).stdout(Stdio::piped()))?;
    let said = program.rest()?;
    let whole = program.cpu()?;
    program.end()?;
    let Said { seconds, cpu_seconds, wire_bytes } = serde_json::from_str(&said)
        .map_err(|error| Error::Other(format!("multifd send: {error}: {said}")))?;
    let cpu = Duration::try_from_secs_f64(cpu_seconds);
    let cpu = cpu.map_err(|error| Error::Other(format!("multifd send: {error}: {said}")))?;
    must_be_part(cpu, whole)?;
    Ok(Sent { seconds, cpu, wire_bytes })
}

/// What a program says of its CPU time is believed where it is a part of what the system has counted for
/// the whole process, in ticks of 10 ms.
fn must_be_part(said: Duration, whole: Duration) -> Result<(), Error> {
    if said <= whole + Duration::from_millis(20) {
        return Ok(());
    }
    Err(Error::Other(format!(
        "multifd send says that it took {said:.3?} of CPU time, and the system has counted {whole:.3?} for all of it"
    )))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that panics fails")]

    use super::*;

    #[test]
    fn a_part_that_is_larger_than_the_whole_is_not_believed() {
        let millis = Duration::from_millis;
        must_be_part(millis(1015), millis(1000)).unwrap();
        must_be_part(millis(1030), millis(1000)).unwrap_err();
    }
}
