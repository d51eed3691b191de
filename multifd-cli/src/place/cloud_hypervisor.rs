//! VMs that Cloud Hypervisor hands over, and takes.

use std::io::ErrorKind;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use multifd::cloud_hypervisor::{self, CloudHypervisorError, Handed, Limits, Memory};
use multifd::core::ram::{Ram, RamBlock};
use multifd::{Vm, core};

use crate::cancel::Interrupt;
use crate::failure::{Failure, chain};
use crate::mapping::{self, Access};
use crate::options::device_state::DeviceStateLimit;
use crate::output;
use crate::progress::Bar;

/// Waits at `socket` for a Cloud Hypervisor that hands its VM over, and takes that. Each of its messages may take `limit`.
pub(super) fn take(
    socket: &Path,
    device_state: &DeviceStateLimit,
    limit: Option<Duration>,
) -> Result<(Handed, Arc<Ram>), Failure> {
    let listener = listen(socket)?;
    let path = socket.display();
    output::note(&format!(
        "listening on unix:{path} for Cloud Hypervisor: ch-remote --api-socket … send-migration \
         destination_url=unix:{path},local=on"
    ));
    let mut limits = Limits::default();
    limits.state = device_state.bytes();
    limits.message = any_time(limit);
    let handed = accept(&listener, socket, &limits);
    drop(listener);
    // There is one VM.
    _ = std::fs::remove_file(socket);
    let handed = handed?;
    let ram = map(socket, &handed)?;
    Ok((handed, Arc::new(ram)))
}

/// As a limit.
fn any_time(limit: Option<Duration>) -> Duration {
    // Ten years.
    limit.unwrap_or(Duration::from_secs(10 * 366 * 86400))
}

fn listen(socket: &Path) -> Result<UnixListener, Failure> {
    UnixListener::bind(socket).map_err(|error| {
        let hint = match error.kind() {
            ErrorKind::AddrInUse => " (if no program listens there, remove it)",
            _ => "",
        };
        Failure::io(format!("cannot listen on {}{hint}", socket.display()), &error)
    })
}

/// Takes the VM of the first that begins: whoever only connects is none.
fn accept(listener: &UnixListener, socket: &Path, limits: &Limits) -> Result<Handed, Failure> {
    loop {
        let (stream, _) = listener.accept().map_err(|error| {
            Failure::io(format!("cannot take a connection on {}", socket.display()), &error)
        })?;
        match cloud_hypervisor::take(stream, limits) {
            Err(CloudHypervisorError::Closed("Start")) => {
                tracing::warn!("somebody connected and left, who is no Cloud Hypervisor");
            }
            taken => return taken.map_err(|error| failure(socket, &error)),
        }
    }
}

/// The slots' memory, which is Cloud Hypervisor's own.
fn map(socket: &Path, handed: &Handed) -> Result<Ram, Failure> {
    let blocks = handed.slots().iter().map(|slot| {
        let cannot = |error| Failure::io(format!("cannot map {}", socket.display()), &error);
        let file = slot.file.try_clone().map_err(cannot)?;
        let name = format!("{} of {}", slot.info.name, socket.display());
        let (at, bytes) = (slot.offset, slot.info.bytes);
        let memory = mapping::of_file(Path::new(&name), file, at, bytes, Access::Read)?;
        Ok(RamBlock::new(slot.info.name.clone(), memory))
    });
    Ok(Ram::new(core::PageSize::Kib4, blocks.collect::<Result<Vec<_>, Failure>>()?)?)
}

/// Fails where no Cloud Hypervisor can wait at `socket`.
pub(super) fn check(socket: &Path) -> Result<(), Failure> {
    let is_socket = socket.metadata().is_ok_and(|metadata| metadata.file_type().is_socket());
    match is_socket {
        true => Ok(()),
        false => Err(Failure::new(format!(
            "cannot give a VM to {path}: no Cloud Hypervisor waits there; first: ch-remote --api-socket … \
             receive-migration receiver_url=unix:{path}",
            path = socket.display()
        ))),
    }
}

/// Gives the VM to the Cloud Hypervisor that waits at `socket`. Each of its answers may take `limit`.
pub(super) fn give(
    socket: &Path,
    vm: &Vm,
    memory: &Memory,
    limit: Option<Duration>,
) -> Result<(), Failure> {
    let connected = UnixStream::connect(socket);
    let stream = connected.map_err(|error| {
        Failure::io(format!("cannot give the VM to {}", socket.display()), &error)
    })?;
    cloud_hypervisor::give(stream, vm, memory, any_time(limit))
        .map_err(|error| failure(socket, &error))
}

/// Memory for the VM, with what `ram` has.
pub(super) fn copy(
    vm: &Vm,
    ram: &Ram,
    interrupt: &Interrupt,
    bar: &Bar,
) -> Result<Memory, Failure> {
    let memory = Memory::new(&vm.early_state.before_start, &vm.blocks, ram.page_size())
        .map_err(|error| Failure::new(chain(&error)))?;
    let mut buffer = vec![0; 1 << 20];
    for (from, to) in ram.blocks().iter().zip(memory.ram().blocks()) {
        let all = 0..from.bytes();
        for data in from.memory().data().unwrap_or_else(|| vec![all]) {
            for at in data.clone().step_by(buffer.len()) {
                interrupt.check()?;
                let count = (data.end - at).min(buffer.len() as u64) as usize;
                from.slice(at, count).copy_to(&mut buffer[..count]);
                to.write(at, &buffer[..count]);
                bar.add(count as u64);
            }
        }
    }
    Ok(memory)
}

fn failure(socket: &Path, error: &CloudHypervisorError) -> Failure {
    let line = format!("{}: {}", socket.display(), chain(error));
    if error.is_unclear() { Failure::unclear(line) } else { Failure::new(line) }
}

/// Fails where Cloud Hypervisor does not wait any more.
pub(super) fn expect_waiting(socket: &Path, handed: &Handed) -> Result<(), Failure> {
    handed.check().map_err(|error| failure(socket, &error))
}

/// Tells Cloud Hypervisor that the VM is safe.
pub(super) fn give_up(socket: &Path, handed: Handed) -> Result<(), Failure> {
    handed.accept().map_err(|error| failure(socket, &error))
}
