//! VMs that [Cloud Hypervisor](https://www.cloudhypervisor.org) hands over on this machine, and takes.
//!
//! Cloud Hypervisor's local migration (`send-migration destination_url=unix:SOCKET,local=on`) hands a VM to another process of the
//! same machine: its guest memory as descriptors, its configuration and its devices' state as JSON. [`take`] is that process.
//! The VM can then go over multifd channels, with any codec, to another machine, where [`give`] hands it to a Cloud
//! Hypervisor that waits by `receive-migration`. The VM must have its memory shared (`--memory shared=on`).
//!
//! ```text
//! Cloud Hypervisor ─→ take ─→ Source … multifd … Destination ─→ give ─→ Cloud Hypervisor
//!                  ←─ accept ←─────────────── confirm ←───────────────
//! ```
//!
//! The first Cloud Hypervisor waits, with its guest stopped, until [`Handed::accept`] says that the VM is safe, and only then
//! gives it up; [`Handed::refuse`], or dropping it, leaves the VM there.
//!
//! As a [`Vm`], it has the machine type [`MACHINE`], its configuration as early state, its devices' state, with whether it was
//! running, as device state, and a RAM block for each memory slot: `slot0` and so on. So it goes wherever a VM goes, and
//! no QEMU takes it.
//!
//! docs/cloud-hypervisor.md in the repository has the commands on both machines.

mod form;
mod give;
mod protocol;
mod take;

use std::io;
use std::time::Duration;

pub use form::MACHINE;
pub use give::{Memory, give};
pub use take::{Handed, Limits, Slot, take};

#[cfg(doc)]
use crate::Vm;

/// Why a VM cannot be taken from Cloud Hypervisor, or given to it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CloudHypervisorError {
    /// It has closed the connection.
    #[error("Cloud Hypervisor closed the connection before {0}")]
    Closed(&'static str),
    /// Nothing comes.
    #[error("Cloud Hypervisor says nothing for {limit:?}, but {waiting_for} is waited for")]
    Silent {
        /// What is waited for.
        waiting_for: &'static str,
        /// How long.
        limit: Duration,
    },
    /// The socket fails, or memory cannot be had.
    #[error("{doing} failed")]
    System {
        /// What was being done.
        doing: &'static str,
        /// The failure.
        source: io::Error,
    },
    /// A version of its protocol that is not known.
    #[error(
        "Cloud Hypervisor speaks version {0} of its migration protocol, but only version 0 is known"
    )]
    Version(u16),
    /// A command that does not exist.
    #[error(
        "there is no command {0} in Cloud Hypervisor's migration protocol: is it something else that connects?"
    )]
    UnknownCommand(u16),
    /// An answer that does not exist.
    #[error(
        "there is no answer {0} in Cloud Hypervisor's migration protocol: is it something else that listens?"
    )]
    UnknownAnswer(u16),
    /// Guest memory comes as bytes.
    #[error(
        "Cloud Hypervisor sends its memory as bytes: add local=on to send-migration, and shared=on to the VM's memory"
    )]
    NotLocal,
    /// A command that may not come here.
    #[error("Cloud Hypervisor says {found} where {wanted} is expected")]
    Unexpected {
        /// The command.
        found: &'static str,
        /// What is expected.
        wanted: &'static str,
    },
    /// A command with more bytes than are accepted.
    #[error("{what} has {bytes} bytes, but at most {limit} are accepted")]
    TooLong {
        /// Of what.
        what: &'static str,
        /// Bytes that it is said to have.
        bytes: u64,
        /// How many are accepted.
        limit: u64,
    },
    /// The configuration is not as it is known.
    #[error("the VM's configuration cannot be read: {0}")]
    Config(String),
    /// The memory of a slot does not fit the configuration.
    #[error("the memory of slot {slot} {why}")]
    Slot {
        /// The slot.
        slot: u32,
        /// What is wrong.
        why: String,
    },
    /// It has given up.
    #[error("Cloud Hypervisor abandoned the migration; the VM is still there")]
    Abandoned,
    /// It has said no.
    #[error("Cloud Hypervisor refuses the VM at {0}: its log says why")]
    Refused(&'static str),
    /// A VM that is not of Cloud Hypervisor.
    #[error("it is not a VM of Cloud Hypervisor's: {0}")]
    OtherVm(&'static str),
    /// It has not answered to the last command: it may have the VM, or not.
    #[error(
        "Cloud Hypervisor may have the VM or not: look there before the guest runs anywhere else"
    )]
    Unclear(#[source] Box<Self>),
}

impl CloudHypervisorError {
    /// Whether it is not known which side has the VM.
    pub fn is_unclear(&self) -> bool {
        matches!(self, Self::Unclear(_))
    }

    fn system(doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { doing, source }
    }
}
