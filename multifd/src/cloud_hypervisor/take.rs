//! Taking a VM from Cloud Hypervisor.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::CloudHypervisorError;
use super::form::{self, Parts};
use super::protocol::{Command, Line, Request, Status, VERSION, slot_error};
use crate::stream::BlockInfo;
use crate::vm::Vm;

/// What is accepted of a Cloud Hypervisor, and how long is waited for it.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// How long a message, or the next piece of a long one, may take: 2 minutes unless said otherwise.
    pub message: Duration,
    /// The most bytes of a configuration: 16 MiB unless said otherwise.
    pub config: u64,
    /// The most bytes of devices' state: 256 MiB unless said otherwise.
    pub state: u64,
    /// The most bytes of RAM; any unless said otherwise. It is mapped, not copied.
    pub ram: u64,
}

impl Default for Limits {
    fn default() -> Self {
        let message = Duration::from_secs(120);
        Self { message, config: 16 << 20, state: 256 << 20, ram: u64::MAX }
    }
}

/// How many slots a VM may have. One has some for each DIMM.
const MOST_SLOTS: usize = 1024;

/// A slot of guest memory.
#[derive(Debug)]
#[non_exhaustive]
pub struct Slot {
    /// The RAM block that it is.
    pub info: BlockInfo,
    /// The file that has it, which Cloud Hypervisor has mapped, too.
    pub file: File,
    /// Where in the file it begins. The file is long enough; whether it stays so, is up to who has it.
    pub offset: u64,
}

/// A VM that Cloud Hypervisor hands over. It waits, with the guest stopped, until it is told that the VM is safe, or not. Dropping
/// this leaves the VM there.
#[derive(Debug)]
pub struct Handed {
    line: Line,
    vm: Vm,
    slots: Vec<Slot>,
    was_running: bool,
    over: bool,
}

/// Takes the VM that the Cloud Hypervisor at the other end of `stream` hands over.
///
/// # Errors
/// Whatever is not as its protocol has it, or beyond `limits`; then, or where it abandons the migration, the VM stays there.
pub fn take(stream: UnixStream, limits: &Limits) -> Result<Handed, CloudHypervisorError> {
    let line = Line::new(stream, limits.message);
    match receive(&line, limits) {
        Ok((vm, slots, was_running)) => Ok(Handed { line, vm, slots, was_running, over: false }),
        Err(error) => {
            // It may be gone. One that has given up has been answered.
            if !matches!(error, CloudHypervisorError::Abandoned) {
                _ = line.respond(Status::Error);
            }
            Err(error)
        }
    }
}

impl Handed {
    /// What the VM is beside its RAM.
    pub fn vm(&self) -> &Vm {
        &self.vm
    }

    /// Its guest memory, in the order of the RAM blocks.
    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// Whether the guest was running before, and so will run again where the VM is refused. One that was paused stays so.
    pub fn was_running(&self) -> bool {
        self.was_running
    }

    /// Whether Cloud Hypervisor still waits. To be asked before the VM is safe elsewhere for good.
    ///
    /// # Errors
    /// It has gone, or has said that it does not wait any more: the VM may go on there.
    pub fn check(&self) -> Result<(), CloudHypervisorError> {
        self.line.expect_silence()
    }

    /// Says that the VM is safe elsewhere: Cloud Hypervisor gives it up.
    ///
    /// # Errors
    /// It cannot be told, and may still have the VM.
    pub fn accept(mut self) -> Result<(), CloudHypervisorError> {
        self.over = true;
        let said = self.line.respond(Status::Ok);
        said.map_err(|error| CloudHypervisorError::Unclear(Box::new(error)))
    }

    /// Says that the VM is not taken: it stays where it is.
    pub fn refuse(self) {
        drop(self);
    }
}

impl Drop for Handed {
    fn drop(&mut self) {
        if !self.over {
            // Where it cannot be told, the end of the connection tells it.
            _ = self.line.respond(Status::Error);
        }
    }
}

/// Receives everything up to the last request, which is not answered.
fn receive(line: &Line, limits: &Limits) -> Result<(Vm, Vec<Slot>, bool), CloudHypervisorError> {
    let start = expect(line, "Start", &[Command::Start])?;
    if start.version != VERSION {
        return Err(CloudHypervisorError::Version(start.version));
    }
    line.respond(Status::Ok)?;
    let (config, files) = receive_config(line, limits)?;
    let mappings = form::mappings(&config)?;
    let slots = slots(&mappings, files, limits)?;
    line.respond(Status::Ok)?;
    let request = expect(line, "State", &[Command::State])?;
    let state = line.payload("the devices' state", request.bytes, limits.state)?;
    line.respond(Status::Ok)?;
    let last = expect(line, "Complete", &[Command::Complete, Command::CompletePaused])?;
    let was_running = last.command == Command::Complete;
    let vm = form::vm(Parts { config: &config, state: &state, was_running }, &mappings)?;
    Ok((vm, slots, was_running))
}

/// The memory and the configuration, which is not answered yet.
fn receive_config(
    line: &Line,
    limits: &Limits,
) -> Result<(Vec<u8>, BTreeMap<u32, File>), CloudHypervisorError> {
    let mut files = BTreeMap::new();
    loop {
        let request = expect(line, "MemoryFd or Config", &[Command::MemoryFd, Command::Config])?;
        if request.command == Command::Config {
            let config = line.payload("the VM's configuration", request.bytes, limits.config)?;
            return Ok((config, files));
        }
        if request.bytes != 4 {
            let (what, bytes) = ("a MemoryFd", request.bytes);
            return Err(CloudHypervisorError::TooLong { what, bytes, limit: 4 });
        }
        let (slot, file) = line.memory()?;
        if files.len() == MOST_SLOTS {
            return Err(slot_error(slot, "is one too many"));
        }
        if files.insert(slot, file).is_some() {
            return Err(slot_error(slot, "came already"));
        }
        line.respond(Status::Ok)?;
    }
}

fn expect(
    line: &Line,
    wanted: &'static str,
    commands: &[Command],
) -> Result<Request, CloudHypervisorError> {
    let request = line.request(wanted)?;
    match request.command {
        found if commands.contains(&found) => Ok(request),
        Command::Abandon => {
            _ = line.respond(Status::Ok);
            Err(CloudHypervisorError::Abandoned)
        }
        Command::Memory => Err(CloudHypervisorError::NotLocal),
        found => Err(CloudHypervisorError::Unexpected { found: found.name(), wanted }),
    }
}

/// The slots of the configuration with their files.
fn slots(
    mappings: &[form::Mapping],
    mut files: BTreeMap<u32, File>,
    limits: &Limits,
) -> Result<Vec<Slot>, CloudHypervisorError> {
    let ram = mappings.iter().fold(0, |sum: u64, mapping| sum.saturating_add(mapping.size));
    if ram > limits.ram {
        let what = "the VM's RAM";
        return Err(CloudHypervisorError::TooLong { what, bytes: ram, limit: limits.ram });
    }
    let mut slots = Vec::new();
    for mapping in mappings {
        let form::Mapping { slot, size, file_offset } = *mapping;
        let file = files.remove(&slot).ok_or_else(|| slot_error(slot, "has not come"))?;
        let length =
            file.metadata().map_err(CloudHypervisorError::system("looking at guest memory"))?;
        if !length.is_file() {
            return Err(slot_error(slot, "is no memory, but another kind of descriptor"));
        }
        if length.len() < file_offset + size {
            let (why, end) = (length.len(), file_offset + size);
            return Err(slot_error(slot, &format!("has {why} bytes, but {end} are needed")));
        }
        slots.push(Slot { info: form::block(mapping)?, file, offset: file_offset });
    }
    match files.keys().next() {
        None => Ok(slots),
        Some(&slot) => Err(slot_error(slot, "is not in the VM's configuration")),
    }
}
