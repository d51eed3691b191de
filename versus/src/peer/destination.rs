//! A destination.

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use multifd_interop::qemu::Qemu;
use serde_json::json;
use tempfile::TempDir;

use super::program::command;
use super::{LOW, Program, credentials, machine, set_up, wait_for_completion};
use crate::compare::{Expected, pieces};
use crate::cpu;
use crate::destination::COMPARE;
use crate::error::Error;
use crate::image::{Image, RAM};
use crate::measure::Migration;
use crate::route::Route;
use crate::setting::Setting;

/// A destination that listens, and the CPU time that it had taken when it began to.
pub(crate) struct Destination {
    peer: Peer,
    before: Duration,
}

enum Peer {
    Qemu(Box<Qemu>),
    /// multifd, into memory.
    Memory(Program),
    /// `multifd recv`, into this folder.
    Stored(Program, PathBuf),
}

impl Destination {
    /// Starts one. Returns its address, too.
    pub(crate) fn start(migration: &Migration<'_>) -> Result<(Self, String), Error> {
        let (peer, uri) = match migration.route {
            Route::QemuToQemu | Route::MultifdToQemu => qemu(migration)?,
            Route::QemuToMultifd | Route::MultifdToMultifd => memory(migration)?,
            Route::Stored => stored(migration)?,
        };
        let before = peer.cpu()?;
        Ok((Self { peer, before }, uri))
    }

    /// Waits until it has everything, and if `compare` compares the RAM. Returns the CPU time that
    /// the migration took.
    pub(crate) fn finish(self, image: &Image, compare: bool) -> Result<Duration, Error> {
        let Self { mut peer, before } = self;
        match &mut peer {
            Peer::Qemu(qemu) => wait_for_completion(qemu)?,
            Peer::Memory(program) => drop(program.line()?),
            Peer::Stored(program, _) => drop(program.rest()?),
        }
        let cpu = peer.cpu()?.saturating_sub(before);
        peer.end(image, compare)?;
        Ok(cpu)
    }
}

impl Peer {
    /// The CPU time since it was started.
    fn cpu(&self) -> Result<Duration, Error> {
        match self {
            Self::Qemu(qemu) => cpu::of_process(qemu.process_id()),
            Self::Memory(program) | Self::Stored(program, _) => program.cpu(),
        }
    }

    fn end(self, image: &Image, compare: bool) -> Result<(), Error> {
        match self {
            Self::Qemu(mut qemu) if compare => compare_qemu(&mut qemu, image),
            Self::Qemu(_) => Ok(()),
            Self::Memory(mut program) => {
                if compare {
                    program.tell(COMPARE)?;
                }
                program.end()
            }
            Self::Stored(program, folder) => {
                program.end()?;
                if compare {
                    let mut expected = Expected::open(&image.ram())?;
                    expected.check_file(&folder.join(RAM), image.guest.size.bytes())?;
                }
                fs::remove_dir_all(folder).map_err(Error::io("remove what was stored"))
            }
        }
    }
}

fn qemu(migration: &Migration<'_>) -> Result<(Peer, String), Error> {
    let size = migration.bench.image.guest.size;
    let prealloc = if migration.setting == Setting::Touched { ",prealloc=on" } else { "" };
    let memory = format!("memory-backend-ram,id={RAM},size={}M{prealloc}", size.mib());
    let mut arguments = machine(size);
    arguments.extend(credentials(migration, "server"));
    arguments.extend(["-incoming", "defer"].map(str::to_owned));
    let host = &migration.network.destination;
    let mut qemu = Qemu::with_memory(&host.qemu, &memory, &arguments)?;
    set_up(&mut qemu, migration)?;
    let uri = qemu.listen_on_a_port(host.address)?;
    Ok((Peer::Qemu(Box::new(qemu)), uri))
}

fn memory(migration: &Migration<'_>) -> Result<(Peer, String), Error> {
    let (args, host) = (migration.bench.args, &migration.network.destination);
    let own = std::env::current_exe().map_err(Error::io("find this program"))?;
    let mut destination = command(&own, host, migration.codec, &args.runner);
    destination.args(["destination", "--listen", host.address]);
    destination.args(["--channels", &args.channels.to_string()]);
    destination.args(["--compression", &migration.codec.to_string()]);
    destination.arg("--expect").arg(migration.bench.image.ram());
    if migration.setting == Setting::Touched {
        destination.arg("--touched");
    }
    if let Some(folder) = migration.certificates() {
        destination.arg("--tls-creds").arg(folder);
    }
    let mut program = Program::start(destination.stdout(Stdio::piped()))?;
    let uri = program.line()?;
    Ok((Peer::Memory(program), uri))
}

fn stored(migration: &Migration<'_>) -> Result<(Peer, String), Error> {
    let (args, host) = (migration.bench.args, &migration.network.destination);
    let folder = migration.bench.image.stored();
    let mut recv = command(&args.multifd, host, migration.codec, &args.runner);
    recv.args(["recv", "--listen", &format!("tcp:{}:0", host.address)]);
    recv.args(["--channels", &args.channels.to_string()]);
    recv.args(["--compression", migration.codec.compression(), "--to"]).arg(&folder);
    if let Some(path) = migration.codec.qpl_path() {
        recv.args(["--qpl-path", path]);
    }
    if let Some(folder) = migration.certificates() {
        recv.arg("--tls-creds").arg(folder);
    }
    let mut program = Program::start(recv.stdout(Stdio::null()).stderr(Stdio::piped()))?;
    let uri = program.listening()?;
    Ok((Peer::Stored(program, folder), uri))
}

/// Below 1 MiB a PC's processor sees other memory in places.
const HOLE: std::ops::Range<u64> = 0xa_0000..0x10_0000;

/// From here on, a PC's processor sees the RAM that is not below [`LOW`].
const HIGH: u64 = 4 << 30;

/// Compares what QEMU's processor sees with the RAM.
fn compare_qemu(qemu: &mut Qemu, image: &Image) -> Result<(), Error> {
    // In memory where that is possible.
    let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| TempDir::new());
    let saved = folder.map_err(Error::io("make a folder"))?;
    let saved = saved.path().join("saved");
    let mut expected = Expected::open(&image.ram())?;
    let end = image.guest.size.bytes();
    let parts = [(0, HOLE.start), (HOLE.end, end.min(LOW)), (LOW, end)];
    for (at, length) in parts.into_iter().flat_map(|(begin, end)| pieces(begin, end)) {
        let address = if at < LOW { at } else { at - LOW + HIGH };
        let arguments = json!({ "val": address, "size": length, "filename": saved });
        qemu.execute("pmemsave", &arguments)?;
        let found = fs::read(&saved).map_err(Error::io("read what QEMU saved"))?;
        expected.check(at, &found)?;
    }
    Ok(())
}
