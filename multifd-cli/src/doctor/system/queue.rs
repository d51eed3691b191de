//! A work queue, as the kernel's driver idxd shows it in sysfs.

use std::path::Path;

use rustix::fs::{Access, access};
use rustix::io::Errno;
use serde::Serialize;

use super::attribute::{NumberOrNone, Unread, Value, read, read_optional};

/// Whether a device or a queue accepts work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(in crate::doctor) enum State {
    Enabled,
    Disabled,
}

/// How many processes may submit to a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(in crate::doctor) enum Mode {
    /// Any number of processes.
    Shared,
    /// One.
    Dedicated,
}

/// What a queue is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(in crate::doctor) enum Kind {
    /// It was never set up.
    None,
    Kernel,
    User,
}

/// The device file through which a process reaches a queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(in crate::doctor) enum Node {
    /// This user may read and write it.
    Allowed,
    Missing,
    Denied,
    Failed(String),
}

/// A work queue.
#[derive(Clone, Debug, Serialize)]
pub(in crate::doctor) struct WorkQueue {
    /// `wq1.0`: queue 0 of device 1.
    pub(in crate::doctor) name: String,
    /// The queue's number on its device.
    pub(in crate::doctor) number: u32,
    pub(in crate::doctor) state: State,
    #[serde(rename = "type")]
    pub(in crate::doctor) kind: Kind,
    pub(in crate::doctor) mode: Mode,
    /// The group whose engines serve it.
    pub(in crate::doctor) group: Option<u32>,
    /// Entries; 0 in a queue that was never set up.
    pub(in crate::doctor) size: u32,
    /// Entries that unprivileged submitters may fill.
    pub(in crate::doctor) threshold: u32,
    pub(in crate::doctor) block_on_fault: bool,
    /// Overrides `block_on_fault`; kernels before 6.4 and older devices do not have it.
    pub(in crate::doctor) prs_disable: Option<bool>,
    /// The driver that it is bound to when enabled; kernels before 6.7 do not say.
    pub(in crate::doctor) driver_name: Option<String>,
    pub(in crate::doctor) node: Node,
}

impl WorkQueue {
    /// Reads the queue called `name` from its folder; its device file is `node`.
    pub(super) fn read(
        folder: &Path,
        name: String,
        number: u32,
        node: &Path,
    ) -> Result<Self, Unread> {
        Ok(Self {
            name,
            number,
            state: read(folder, "state")?,
            kind: read(folder, "type")?,
            mode: read(folder, "mode")?,
            group: read::<NumberOrNone>(folder, "group_id")?.0,
            size: read(folder, "size")?,
            threshold: read(folder, "threshold")?,
            block_on_fault: read(folder, "block_on_fault")?,
            prs_disable: read_optional(folder, "prs_disable")?,
            driver_name: read_optional(folder, "driver_name")?,
            node: Node::look(node),
        })
    }

    /// Whether it has entries.
    pub(in crate::doctor) fn is_set_up(&self) -> bool {
        self.size > 0
    }

    /// Whether the device waits for page faults, which are errors otherwise.
    pub(in crate::doctor) fn blocks_on_fault(&self) -> bool {
        self.block_on_fault && self.prs_disable != Some(true)
    }
}

impl Node {
    fn look(path: &Path) -> Self {
        match access(path, Access::READ_OK | Access::WRITE_OK) {
            Ok(()) => Self::Allowed,
            Err(Errno::NOENT | Errno::NOTDIR) => Self::Missing,
            Err(Errno::ACCESS | Errno::PERM) => Self::Denied,
            Err(error) => Self::Failed(error.to_string()),
        }
    }
}

impl Value for State {
    const EXPECTED: &'static str = "enabled or disabled";

    fn parse(text: &str) -> Option<Self> {
        match text {
            "enabled" => Some(Self::Enabled),
            "disabled" => Some(Self::Disabled),
            _ => None,
        }
    }
}

impl Value for Mode {
    const EXPECTED: &'static str = "shared or dedicated";

    fn parse(text: &str) -> Option<Self> {
        match text {
            "shared" => Some(Self::Shared),
            "dedicated" => Some(Self::Dedicated),
            _ => None,
        }
    }
}

impl Value for Kind {
    const EXPECTED: &'static str = "none, kernel or user";

    fn parse(text: &str) -> Option<Self> {
        match text {
            "none" => Some(Self::None),
            "kernel" => Some(Self::Kernel),
            "user" => Some(Self::User),
            _ => None,
        }
    }
}
