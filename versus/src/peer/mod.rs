//! The two programs as source and as destination.

mod destination;
mod program;
mod source;

use std::time::Duration;

use multifd_interop::qemu::{Qemu, Settings};
use serde_json::json;

use crate::error::Error;
use crate::guest::GuestSize;
use crate::measure::Migration;

pub(crate) use destination::Destination;
pub(crate) use program::Program;
pub(crate) use source::Source;

/// Where a PC's RAM ends below 4 GiB, in bytes; the rest of it lies from 4 GiB on.
const LOW: u64 = 2 << 30;

/// How long a QEMU may be silent while it migrates.
const PATIENCE: Duration = Duration::from_secs(300);

/// The machine, as QEMU's arguments.
pub(crate) fn machine(size: GuestSize) -> Vec<String> {
    let low = format!("pc,max-ram-below-4g={LOW}");
    ["-machine", &low, "-m", &format!("{}M", size.mib())].map(str::to_owned).to_vec()
}

/// What a QEMU of this side (`server` or `client`) needs for the migration beside the machine.
fn credentials(migration: &Migration<'_>, side: &str) -> Vec<String> {
    let Some(folder) = migration.certificates() else { return Vec::new() };
    let folder = folder.display().to_string().replace(',', ",,");
    vec!["-object".to_owned(), format!("tls-creds-x509,id=tls,dir={folder},endpoint={side}")]
}

/// Sets up a QEMU on either side.
fn set_up(qemu: &mut Qemu, migration: &Migration<'_>) -> Result<(), Error> {
    let (codec, args) = (migration.codec, migration.bench.args);
    qemu.set_patience(PATIENCE)?;
    qemu.set_up(&Settings {
        compression: codec.compression(),
        channels: args.channels,
        ..Settings::default()
    })?;
    let events = json!({ "capabilities": [{ "capability": "events", "state": true }] });
    qemu.execute("migrate-set-capabilities", &events)?;
    if codec.has_levels() {
        let level = format!("multifd-{}-level", codec.compression());
        qemu.set_parameters(&json!({ level: args.level }))?;
    }
    if migration.certificates().is_some() {
        qemu.set_parameters(&json!({ "tls-creds": "tls" }))?;
    }
    Ok(())
}

/// Waits until the migration has succeeded.
fn wait_for_completion(qemu: &mut Qemu) -> Result<(), Error> {
    let status = qemu.wait_for_event("MIGRATION", |data| match data["status"].as_str() {
        Some(status @ ("completed" | "failed")) => Some(status.to_owned()),
        _ => None,
    })?;
    if status == "completed" {
        return Ok(());
    }
    let said = qemu.migration()?.error;
    Err(Error::Other(format!("QEMU's migration {status}: {said} {}", qemu.stderr())))
}
