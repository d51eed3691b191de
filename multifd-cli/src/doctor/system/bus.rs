//! The accelerators, as the kernel's driver idxd shows them in sysfs: `/sys/bus/dsa`.
//!
//! The kernel's `Documentation/ABI/stable/sysfs-driver-dma-idxd` describes these files. They call an
//! IAA `iax`. It shares its numbers with DSAs, another kind of device on the same bus.

use std::path::Path;

use serde::Serialize;

use super::attribute::{NumberOrNone, Unread, names, read, read_optional};
use super::queue::{State, WorkQueue};

/// The devices that are bound to the driver.
#[derive(Clone, Debug, Default)]
pub(in crate::doctor) struct Bus {
    pub(in crate::doctor) devices: Vec<Device>,
    /// Why some devices are not in the list.
    pub(in crate::doctor) unread: Vec<Unread>,
}

/// An accelerator.
#[derive(Clone, Debug, Serialize)]
pub(in crate::doctor) struct Device {
    /// `iax1`.
    pub(in crate::doctor) name: String,
    pub(in crate::doctor) number: u32,
    pub(in crate::doctor) state: State,
    pub(in crate::doctor) numa_node: Option<u32>,
    /// Whether the device can use a process' addresses: shared virtual memory.
    pub(in crate::doctor) pasid_enabled: bool,
    /// Entries of all its queues together.
    pub(in crate::doctor) max_work_queues_size: u32,
    pub(in crate::doctor) engines: Vec<Engine>,
    pub(in crate::doctor) queues: Vec<WorkQueue>,
    /// Why some engines or queues are not in the lists.
    #[serde(skip)]
    pub(in crate::doctor) unread: Vec<Unread>,
}

/// An engine, which processes the entries of its group's queues.
#[derive(Clone, Debug, Serialize)]
pub(in crate::doctor) struct Engine {
    /// The engine's number on its device.
    pub(in crate::doctor) number: u32,
    pub(in crate::doctor) group: Option<u32>,
}

impl Bus {
    /// Reads the devices; `None` if the driver is not loaded.
    pub(super) fn read(sys: &Path, dev: &Path) -> Result<Option<Self>, Unread> {
        let folder = sys.join("bus/dsa/devices");
        let names = match names(&folder) {
            Ok(names) => names,
            Err(Unread::Missing(_)) => return Ok(None),
            Err(unread) => return Err(unread),
        };
        let mut bus = Self::default();
        let mut numbers: Vec<u32> =
            names.iter().filter_map(|name| name.strip_prefix("iax")?.parse().ok()).collect();
        numbers.sort_unstable();
        for number in numbers {
            match Device::read(&folder, number) {
                Ok(mut device) => {
                    device.read_parts(&folder, &names, dev);
                    bus.devices.push(device);
                }
                Err(unread) => bus.unread.push(unread),
            }
        }
        Ok(Some(bus))
    }
}

impl Device {
    /// The device without its engines and queues.
    fn read(bus: &Path, number: u32) -> Result<Self, Unread> {
        let name = format!("iax{number}");
        let folder = bus.join(&name);
        Ok(Self {
            name,
            number,
            state: read(&folder, "state")?,
            numa_node: read_optional::<NumberOrNone>(&folder, "numa_node")?.and_then(|node| node.0),
            pasid_enabled: read(&folder, "pasid_enabled")?,
            max_work_queues_size: read(&folder, "max_work_queues_size")?,
            engines: Vec::new(),
            queues: Vec::new(),
            unread: Vec::new(),
        })
    }

    /// Adds the device's engines and queues, which are among the bus' `names`.
    fn read_parts(&mut self, bus: &Path, names: &[String], dev: &Path) {
        for name in names {
            let folder = bus.join(name);
            if let Some(number) = self.part(name, "engine") {
                match read::<NumberOrNone>(&folder, "group_id") {
                    Ok(group) => self.engines.push(Engine { number, group: group.0 }),
                    Err(unread) => self.unread.push(unread),
                }
            } else if let Some(number) = self.part(name, "wq") {
                let node = dev.join("iax").join(name);
                match WorkQueue::read(&folder, name.clone(), number, &node) {
                    Ok(queue) => self.queues.push(queue),
                    Err(unread) => self.unread.push(unread),
                }
            }
        }
        self.engines.sort_by_key(|engine| engine.number);
        self.queues.sort_by_key(|queue| queue.number);
    }

    /// The number of a part of this device: 3 of `wq1.3` on device 1.
    fn part(&self, name: &str, what: &str) -> Option<u32> {
        let (device, part) = name.strip_prefix(what)?.split_once('.')?;
        if device.parse() == Ok(self.number) { part.parse().ok() } else { None }
    }
}
