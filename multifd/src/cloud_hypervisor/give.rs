//! Giving a VM to Cloud Hypervisor.

use std::fs::File;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use multifd_core::PageSize;
use multifd_core::ram::{Ram, RamBlock};
use multifd_core::vm_memory::{FileOffset, MmapRegion};
use rustix::fs::{MemfdFlags, memfd_create};

use super::CloudHypervisorError;
use super::form::{self, PAGE_SIZE, Parts};
use super::protocol::{Command, Line};
use crate::stream::BlockInfo;
use crate::vm::Vm;

/// Memory that Cloud Hypervisor can take over: a memfd for each slot.
#[derive(Debug)]
pub struct Memory {
    slots: Vec<(u32, File)>,
    ram: Arc<Ram>,
}

impl Memory {
    /// Memory, all zero, for a VM of Cloud Hypervisor's, with this early state before its RAM and these RAM blocks, in pages of
    /// `page_size`.
    ///
    /// # Errors
    /// A VM that is not Cloud Hypervisor's, or whose blocks are not those of its configuration; memory that cannot be had.
    pub fn new(
        early_state: &[u8],
        blocks: &[BlockInfo],
        page_size: PageSize,
    ) -> Result<Self, CloudHypervisorError> {
        let mappings = form::mappings(form::config(early_state)?)?;
        let own = mappings.iter().map(form::block).collect::<Result<Vec<_>, _>>()?;
        let other = "its RAM blocks are not those of its configuration";
        let same = own.iter().map(|block| (&block.name, block.bytes));
        if page_size != PAGE_SIZE || !same.eq(blocks.iter().map(|block| (&block.name, block.bytes)))
        {
            return Err(CloudHypervisorError::OtherVm(other));
        }
        let (mut slots, mut memory) = (Vec::new(), Vec::new());
        for (mapping, info) in mappings.iter().zip(own) {
            let (file, region) =
                memfd(mapping).map_err(CloudHypervisorError::system("mapping guest memory"))?;
            slots.push((mapping.slot, file));
            memory.push(RamBlock::new(info.name, region).fresh());
        }
        let ram = Ram::new(page_size, memory);
        let ram = ram.map_err(|error| CloudHypervisorError::Config(error.to_string()))?;
        Ok(Self { slots, ram: Arc::new(ram) })
    }

    /// The RAM, to be filled.
    pub fn ram(&self) -> &Arc<Ram> {
        &self.ram
    }
}

/// A slot's memfd, and its memory.
fn memfd(mapping: &form::Mapping) -> std::io::Result<(File, MmapRegion)> {
    let name = format!("multifd-slot{}", mapping.slot);
    let file = File::from(memfd_create(name, MemfdFlags::CLOEXEC)?);
    file.set_len(mapping.file_offset + mapping.size)?;
    let at = FileOffset::new(file.try_clone()?, mapping.file_offset);
    let length = usize::try_from(mapping.size).map_err(std::io::Error::other)?;
    let flags = libc::MAP_SHARED | libc::MAP_NORESERVE;
    let access = libc::PROT_READ | libc::PROT_WRITE;
    let region =
        MmapRegion::build(Some(at), length, access, flags).map_err(std::io::Error::other)?;
    Ok((file, region))
}

/// Gives the VM `vm`, whose RAM `memory` has, to the Cloud Hypervisor that waits at the other end of `stream`. Its guest runs
/// there when this returns, if it ran where the VM came from. Each answer is waited for `limit` at most.
///
/// # Errors
/// A VM that is not Cloud Hypervisor's, one that it refuses, a connection that fails. Where it does not answer to the last
/// command it [may have the VM](CloudHypervisorError::is_unclear).
pub fn give(
    stream: UnixStream,
    vm: &Vm,
    memory: &Memory,
    limit: Duration,
) -> Result<(), CloudHypervisorError> {
    let Parts { config, state, was_running } = Parts::of(vm)?;
    let line = Line::new(stream, limit);
    let said = |command, payload: &[u8]| match line.say(command, payload) {
        // It may have refused what came first, and not have heard the rest.
        Err(gone @ CloudHypervisorError::Closed(_)) => match line.expect_ok(command) {
            Err(refused @ CloudHypervisorError::Refused(_)) => Err(refused),
            _ => Err(gone),
        },
        Err(error) => Err(error),
        Ok(()) => line.expect_ok(command),
    };
    said(Command::Start, &[])?;
    for (slot, file) in &memory.slots {
        line.say_memory(*slot, file)?;
        line.expect_ok(Command::MemoryFd)?;
    }
    said(Command::Config, config)?;
    said(Command::State, state)?;
    let last = if was_running { Command::Complete } else { Command::CompletePaused };
    said(last, &[]).map_err(|error| match error {
        refused @ CloudHypervisorError::Refused(_) => refused,
        lost => CloudHypervisorError::Unclear(Box::new(lost)),
    })
}
