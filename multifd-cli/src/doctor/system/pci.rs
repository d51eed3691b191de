//! The accelerators on the PCI bus, with or without a driver.

use std::fs;
use std::path::Path;

use super::attribute::{Hex, Unread, names, read};

const INTEL: Hex = Hex(0x8086);
const IAA: Hex = Hex(0x0cfe);

/// An IAA on the PCI bus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::doctor) struct PciDevice {
    /// `0000:6a:02.0`.
    pub(in crate::doctor) address: String,
    /// The driver that it is bound to.
    pub(in crate::doctor) driver: Option<String>,
}

/// The IAAs below `sys`.
pub(super) fn read_all(sys: &Path) -> Result<Vec<PciDevice>, Unread> {
    let folder = sys.join("bus/pci/devices");
    let mut addresses = names(&folder)?;
    addresses.sort_unstable();
    // A device whose identity cannot be read is not known to be an IAA.
    addresses.retain(|address| {
        let device = folder.join(address);
        read(&device, "vendor") == Ok(INTEL) && read(&device, "device") == Ok(IAA)
    });
    let device = |address: String| {
        let driver = fs::read_link(folder.join(&address).join("driver")).ok();
        let driver = driver.and_then(|link| Some(link.file_name()?.to_string_lossy().into_owned()));
        PciDevice { address, driver }
    };
    Ok(addresses.into_iter().map(device).collect())
}
