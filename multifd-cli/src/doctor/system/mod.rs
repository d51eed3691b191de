//! The state of a machine: read and parsed, not yet judged.

mod attribute;
mod bus;
mod distribution;
mod kernel;
mod libraries;
mod pci;
mod queue;

use std::path::{Path, PathBuf};

use multifd::qpl::{Options, Path as QplPath, Qpl};
use qpl_sys::{Library, OpenError, simulated_iaa};

use crate::options::codec;
pub(super) use attribute::Unread;
#[cfg(test)]
pub(super) use bus::Engine;
pub(super) use bus::{Bus, Device};
pub(super) use distribution::{Distribution, Package};
#[cfg(test)]
pub(super) use kernel::Iommu;
pub(super) use kernel::{Kernel, Release};
pub(super) use libraries::Libqpl;
pub(super) use pci::PciDevice;
pub(super) use queue::{Kind, Mode, Node, State, WorkQueue};

/// The folders that show a machine's state.
#[derive(Clone, Copy, Debug)]
pub(super) struct Roots<'a> {
    pub(super) sys: &'a Path,
    pub(super) dev: &'a Path,
    pub(super) proc: &'a Path,
    pub(super) etc: &'a Path,
}

/// The state of a machine.
#[derive(Clone, Debug)]
pub(super) struct System {
    pub(super) distribution: Distribution,
    pub(super) kernel: Kernel,
    pub(super) pci: Result<Vec<PciDevice>, Unread>,
    /// `None` if the driver is not loaded.
    pub(super) bus: Result<Option<Bus>, Unread>,
    pub(super) libqpl: Result<Libqpl, OpenError>,
    /// Whether the user names a libqpl, in place of the one that is installed.
    pub(super) libqpl_named: bool,
    /// The file, if it was found.
    pub(super) accel_config: Option<PathBuf>,
    /// What codec qpl uses here, or why it cannot work.
    pub(super) codec: Result<String, String>,
    /// Whether a job can be set up on a device: what it uses, or why not.
    pub(super) hardware: Result<String, String>,
    /// The version of the simulation, if libqpl has found that in libaccel-config's place.
    pub(super) simulated: Option<String>,
}

impl System {
    pub(super) fn read(roots: Roots<'_>) -> Self {
        Self {
            distribution: Distribution::read(roots.etc),
            kernel: Kernel::read(roots.proc),
            pci: pci::read_all(roots.sys),
            bus: Bus::read(roots.sys, roots.dev),
            libqpl: Libqpl::find(),
            libqpl_named: Library::named().is_some(),
            accel_config: libraries::find_accel_config(),
            codec: codec::probe(&Qpl::default()),
            hardware: codec::probe(&Qpl::new(Options::new(QplPath::Hardware))),
            // Known only once a job for hardware was tried.
            simulated: simulated_iaa(),
        }
    }

    /// The accelerators that are bound to the driver.
    pub(super) fn devices(&self) -> &[Device] {
        match &self.bus {
            Ok(Some(bus)) => &bus.devices,
            _ => &[],
        }
    }
}
