//! A VM of Cloud Hypervisor's as a VM that migrates.

use multifd_core::PageSize;
use multifd_core::wire::BlockName;
use serde::Deserialize;

use super::CloudHypervisorError;
use crate::early_state::EarlyState;
use crate::stream::{BlockInfo, Configuration, FullSection};
use crate::vm::Vm;

/// The machine type of a VM that is Cloud Hypervisor's.
pub const MACHINE: &str = "cloud-hypervisor";

/// The sections that have its parts.
const CONFIG: &str = "cloud-hypervisor-config";
const STATE: &str = "cloud-hypervisor-state";
/// The version of both.
const VERSION: u32 = 1;

/// The size of pages in which its memory migrates.
pub(super) const PAGE_SIZE: PageSize = PageSize::Kib4;

/// What it is: its two JSON documents, as Cloud Hypervisor has written them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Parts<'a> {
    pub(super) config: &'a [u8],
    pub(super) state: &'a [u8],
    pub(super) was_running: bool,
}

/// A memory slot of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Mapping {
    pub(super) slot: u32,
    /// Bytes.
    pub(super) size: u64,
    /// Where it begins in its file.
    pub(super) file_offset: u64,
}

#[derive(Deserialize)]
struct Config {
    memory_manager_data: MemoryManager,
}

#[derive(Deserialize)]
struct MemoryManager {
    guest_ram_mappings: Vec<Mapping>,
}

/// The memory slots of the configuration `json`.
pub(super) fn mappings(json: &[u8]) -> Result<Vec<Mapping>, CloudHypervisorError> {
    let wrong = |why: String| CloudHypervisorError::Config(why);
    let config: Config = serde_json::from_slice(json).map_err(|error| wrong(error.to_string()))?;
    let mappings = config.memory_manager_data.guest_ram_mappings;
    if mappings.is_empty() {
        return Err(wrong("it has no memory".to_owned()));
    }
    for (index, mapping) in mappings.iter().enumerate() {
        let Mapping { slot, size, file_offset } = *mapping;
        let page = PAGE_SIZE.bytes() as u64;
        if size == 0 || size % page != 0 || file_offset % page != 0 {
            return Err(wrong(format!(
                "slot {slot} has {size} bytes at {file_offset}, which are not whole pages"
            )));
        }
        // Offsets of files are signed.
        if file_offset.checked_add(size).is_none_or(|end| i64::try_from(end).is_err()) {
            return Err(wrong(format!("slot {slot} ends behind the end of every file")));
        }
        if mappings[..index].iter().any(|other| other.slot == slot) {
            return Err(wrong(format!("slot {slot} is there twice")));
        }
    }
    Ok(mappings)
}

/// The RAM block of a slot.
pub(super) fn block(mapping: &Mapping) -> Result<BlockInfo, CloudHypervisorError> {
    let name = BlockName::new(&format!("slot{}", mapping.slot));
    let name = name.map_err(|error| CloudHypervisorError::Config(error.to_string()))?;
    Ok(BlockInfo::new(name, mapping.size))
}

/// The VM that is made of these parts.
pub(super) fn vm(parts: Parts<'_>, mappings: &[Mapping]) -> Result<Vm, CloudHypervisorError> {
    let Parts { config, state, was_running } = parts;
    let wrong =
        |error: crate::stream::StreamErrorKind| CloudHypervisorError::Config(error.to_string());
    let config = FullSection { name: CONFIG, version: VERSION, body: config };
    let body = [&[u8::from(was_running)], state].concat();
    let state = FullSection { name: STATE, version: VERSION, body: &body };
    Ok(Vm {
        configuration: Configuration::new(MACHINE),
        blocks: mappings.iter().map(block).collect::<Result<_, _>>()?,
        // As QEMU's.
        section_id: 2,
        footers: true,
        early_state: EarlyState::from(config.to_early_state().map_err(wrong)?),
        device_state: state.to_device_state(PAGE_SIZE).map_err(wrong)?,
        ..Vm::default()
    })
}

/// The configuration in early state that has come before the RAM.
pub(super) fn config(early_state: &[u8]) -> Result<&[u8], CloudHypervisorError> {
    match FullSection::of_early_state(early_state) {
        Some(FullSection { name: CONFIG, version: VERSION, body }) => Ok(body),
        Some(FullSection { name: CONFIG, .. }) => {
            Err(CloudHypervisorError::OtherVm("its configuration is of another version"))
        }
        _ => Err(CloudHypervisorError::OtherVm("it has no configuration of Cloud Hypervisor's")),
    }
}

impl<'a> Parts<'a> {
    /// The parts of a VM that has been one of Cloud Hypervisor's.
    pub(super) fn of(vm: &'a Vm) -> Result<Self, CloudHypervisorError> {
        let config = config(&vm.early_state.before_start)?;
        let other = CloudHypervisorError::OtherVm;
        let Some(FullSection { name: STATE, version, body }) =
            FullSection::of_device_state(&vm.device_state)
        else {
            return Err(other("it has no device state of Cloud Hypervisor's"));
        };
        match (version, body) {
            (VERSION, [was_running @ (0 | 1), state @ ..]) => {
                Ok(Self { config, state, was_running: *was_running == 1 })
            }
            _ => Err(other("its device state is of another version")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config_json(mappings: &str) -> Vec<u8> {
        format!(
            r#"{{"vm_config": {{"cpus": 2}}, "memory_manager_data": {{"guest_ram_mappings": [{mappings}]}}}}"#
        )
        .into_bytes()
    }

    const SLOTS: &str = r#"{"slot": 0, "gpa": 0, "size": 8192, "zone_id": "mem0", "virtio_mem": false, "file_offset": 0},
        {"slot": 3, "gpa": 4294967296, "size": 4096, "zone_id": "mem0", "virtio_mem": false, "file_offset": 8192}"#;

    #[test]
    fn a_vm_has_the_parts_that_it_is_made_of() {
        let config = config_json(SLOTS);
        let mappings = mappings(&config).unwrap();
        for was_running in [true, false] {
            let parts = Parts { config: &config, state: br#"{"id": "vm"}"#, was_running };
            let vm = vm(parts, &mappings).unwrap();
            assert_eq!(Parts::of(&vm).unwrap(), parts);
            let blocks = vm.blocks.iter().map(|block| (block.name.as_str(), block.bytes));
            assert_eq!(blocks.collect::<Vec<_>>(), [("slot0", 8192), ("slot3", 4096)]);
        }
    }

    #[test]
    fn a_configuration_whose_memory_cannot_be_is_refused() {
        let slot = |slot: u32, size: u64, offset: u64| {
            format!(r#"{{"slot": {slot}, "size": {size}, "file_offset": {offset}}}"#)
        };
        for (json, why) in [
            (config_json(""), "no memory"),
            (config_json(&slot(0, 0, 0)), "not whole pages"),
            (config_json(&slot(0, 4097, 0)), "not whole pages"),
            (config_json(&slot(0, 4096, 1)), "not whole pages"),
            (config_json(&slot(0, 4096, u64::MAX - 4095)), "behind the end"),
            (config_json(&slot(0, 1 << 62, 1 << 62)), "behind the end"),
            (config_json(&(slot(1, 4096, 0) + "," + &slot(1, 4096, 0))), "twice"),
            (config_json(r#"{"slot": -1}"#), "expected u32"),
            (b"{}".to_vec(), "memory_manager_data"),
            (b"[".to_vec(), "EOF"),
        ] {
            let error = mappings(&json).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn a_vm_of_another_kind_has_no_parts() {
        let config = config_json(SLOTS);
        let parts = Parts { config: &config, state: b"{}", was_running: true };
        let whole = vm(parts, &mappings(&config).unwrap()).unwrap();
        let other = FullSection { name: "other", version: 1, body: b"{}" };
        let newer = FullSection { name: CONFIG, version: 2, body: b"{}" };
        for (vm, why) in [
            (Vm::default(), "no configuration"),
            (
                Vm { early_state: other.to_early_state().unwrap().into(), ..whole.clone() },
                "no configuration",
            ),
            (
                Vm { early_state: newer.to_early_state().unwrap().into(), ..whole.clone() },
                "another version",
            ),
            (
                Vm { device_state: other.to_device_state(PAGE_SIZE).unwrap(), ..whole },
                "no device state",
            ),
        ] {
            let error = Parts::of(&vm).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}
