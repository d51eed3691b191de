//! A destination.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use multifd_interop::guest::difference;
use multifd_interop::qemu::Qemu;
use serde_json::json;

use super::program::command;
use super::{Program, machine, set_up, wait_for_completion};
use crate::codec::Codec;
use crate::error::Error;
use crate::image::{Image, RAM};
use crate::measure::Bench;
use crate::{cpu, route::Route};

/// A destination that listens.
pub(crate) enum Destination {
    Qemu {
        qemu: Box<Qemu>,
        before: Duration,
    },
    /// multifd, into memory.
    Memory(Program),
    /// `multifd recv`, into this folder.
    Stored(Program, PathBuf),
}

impl Destination {
    /// Starts one. Returns its address, too.
    pub(crate) fn start(
        bench: &Bench<'_>,
        route: Route,
        codec: Codec,
    ) -> Result<(Self, String), Error> {
        if route.is_to_qemu() {
            return qemu(bench, codec);
        }
        let (args, image) = (bench.args, &bench.image);
        let channels = args.channels.to_string();
        if route == Route::Stored {
            let mut recv = command(&args.multifd, codec, &args.runner);
            recv.args(["recv", "--listen", "tcp:127.0.0.1:0", "--channels", &channels]);
            recv.args(["--compression", codec.compression(), "--to"]).arg(image.stored());
            if let Some(path) = codec.qpl_path() {
                recv.args(["--qpl-path", path]);
            }
            let mut program = Program::start(recv.stdout(Stdio::null()).stderr(Stdio::piped()))?;
            let uri = program.listening()?;
            return Ok((Self::Stored(program, image.stored()), uri));
        }
        let own = std::env::current_exe().map_err(Error::io("find this program"))?;
        let mut destination = command(&own, codec, &args.runner);
        destination.args(["destination", "--channels", &channels]);
        destination.args(["--compression", &codec.to_string(), "--expect"]).arg(image.ram());
        let mut program = Program::start(destination.stdout(Stdio::piped()))?;
        let uri = program.line()?;
        Ok((Self::Memory(program), uri))
    }

    /// Waits until it has everything, and compares the RAM. Returns the CPU time that the migration
    /// took.
    pub(crate) fn finish(self, image: &Image) -> Result<Duration, Error> {
        match self {
            Self::Qemu { mut qemu, before } => {
                wait_for_completion(&mut qemu)?;
                let cpu = cpu::of_process(qemu.process_id())?.saturating_sub(before);
                compare(&mut qemu, image)?;
                Ok(cpu)
            }
            Self::Memory(mut program) => {
                program.line()?;
                let cpu = program.cpu()?;
                program.end()?;
                Ok(cpu)
            }
            Self::Stored(mut program, folder) => {
                program.rest()?;
                let cpu = program.cpu()?;
                program.end()?;
                let stored = read(&folder.join(RAM))?;
                check(&read(&image.ram())?, &stored)?;
                fs::remove_dir_all(folder).map_err(Error::io("remove what was stored"))?;
                Ok(cpu)
            }
        }
    }
}

fn qemu(bench: &Bench<'_>, codec: Codec) -> Result<(Destination, String), Error> {
    let mib = bench.image.mib;
    let memory = format!("memory-backend-ram,id={RAM},size={mib}M");
    let mut arguments = machine(mib);
    arguments.extend(["-incoming", "defer"].map(str::to_owned));
    let mut qemu = Qemu::with_memory(&bench.qemu, &memory, &arguments)?;
    set_up(&mut qemu, codec, bench.args)?;
    let uri = listen(&mut qemu)?;
    let before = cpu::of_process(qemu.process_id())?;
    Ok((Destination::Qemu { qemu: Box::new(qemu), before }, uri))
}

/// Has QEMU listen on a free port. Returns the address.
fn listen(qemu: &mut Qemu) -> Result<String, Error> {
    qemu.execute("migrate-incoming", &json!({ "uri": "tcp:127.0.0.1:0" }))?;
    let info = qemu.execute("query-migrate", &json!({}))?;
    let port = info["socket-address"][0]["port"].as_str();
    let port = port.ok_or_else(|| Error::Other("QEMU does not say where it listens".to_owned()))?;
    Ok(format!("tcp:127.0.0.1:{port}"))
}

/// Below 1 MiB a PC's processor sees other memory in places.
const HOLE: std::ops::Range<u64> = 0xa_0000..0x10_0000;

/// Compares what QEMU's processor sees with the RAM.
fn compare(qemu: &mut Qemu, image: &Image) -> Result<(), Error> {
    let file = fs::File::open(image.ram()).map_err(Error::io("open the RAM"))?;
    for range in [0..HOLE.start, HOLE.end..image.mib << 20] {
        let length = range.end - range.start;
        let mut expected = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
        file.read_exact_at(&mut expected, range.start).map_err(Error::io("read the RAM"))?;
        let saved = qemu.file("saved");
        let arguments = json!({ "val": range.start, "size": length, "filename": saved });
        qemu.execute("pmemsave", &arguments)?;
        check(&expected, &read(&saved)?)?;
    }
    Ok(())
}

fn check(expected: &[u8], found: &[u8]) -> Result<(), Error> {
    difference(expected, found).map_or(Ok(()), |why| Err(Error::Other(why)))
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(Error::io(format!("read {}", path.display())))
}
