//! The two programs as source and as destination.

mod destination;
mod program;
mod source;

use multifd_interop::qemu::{Qemu, Settings};
use serde_json::json;

use crate::args::Measure;
use crate::codec::Codec;
use crate::error::Error;

pub(crate) use destination::Destination;
pub(crate) use program::Program;
pub(crate) use source::Source;

/// The machine, as QEMU's arguments.
pub(crate) fn machine(mib: u64) -> Vec<String> {
    ["-machine", "pc", "-m", &format!("{mib}M")].map(str::to_owned).to_vec()
}

/// Sets up a QEMU on either side.
fn set_up(qemu: &mut Qemu, codec: Codec, args: &Measure) -> Result<(), Error> {
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
