//! Why a work queue cannot be used.

use super::setup;
use crate::doctor::finding::{Finding, Level};
use crate::doctor::system::{Device, Kind, Mode, Node, State, WorkQueue};

/// Why a queue cannot be used by this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Kernel,
    TypeNone,
    Dedicated,
    NoGroup,
    NoEngine(u32),
    Disabled,
    NoNode,
    Denied,
    NodeFailed(String),
}

impl Fault {
    /// The fault to fix first; `None` if the queue can be used.
    pub(super) fn of(device: &Device, queue: &WorkQueue) -> Option<Self> {
        match queue.kind {
            Kind::User => {}
            Kind::Kernel => return Some(Self::Kernel),
            Kind::None => return Some(Self::TypeNone),
        }
        if queue.mode != Mode::Shared {
            return Some(Self::Dedicated);
        }
        let Some(group) = queue.group else { return Some(Self::NoGroup) };
        if !device.engines.iter().any(|engine| engine.group == Some(group)) {
            return Some(Self::NoEngine(group));
        }
        if device.state == State::Disabled || queue.state == State::Disabled {
            return Some(Self::Disabled);
        }
        match &queue.node {
            Node::Allowed => None,
            Node::Missing => Some(Self::NoNode),
            Node::Denied => Some(Self::Denied),
            Node::Failed(reason) => Some(Self::NodeFailed(reason.clone())),
        }
    }

    /// The finding, given whether there are other queues that can be used.
    pub(super) fn finding(&self, device: &Device, queue: &WorkQueue, others: bool) -> Finding {
        let level = match self {
            _ if !others => Level::Problem,
            // It seems to be meant for processes such as this one.
            Self::NoEngine(_) | Self::NoNode | Self::Denied | Self::NodeFailed(_) => Level::Warning,
            _ => Level::Note,
        };
        let found = format!("{}/{} {}", device.name, queue.name, self.found(queue));
        let finding = Finding::new(level, "queue", found).mend(self.remedy(device, queue));
        match self.meaning() {
            Some(meaning) => finding.meaning(meaning),
            None => finding,
        }
    }

    fn found(&self, queue: &WorkQueue) -> String {
        let node = format!("/dev/iax/{}", queue.name);
        match self {
            Self::Kernel => match queue.driver_name.as_deref() {
                Some(driver) if !driver.is_empty() => {
                    format!("is for the kernel (driver {driver})")
                }
                _ => "is for the kernel".to_owned(),
            },
            Self::TypeNone => "has type none".to_owned(),
            Self::Dedicated => "is dedicated to one process".to_owned(),
            Self::NoGroup => "is in no group".to_owned(),
            Self::NoEngine(group) => format!("is in group {group}, which has no engine"),
            Self::Disabled => "is set up but not enabled".to_owned(),
            Self::NoNode => format!("has no device file {node}"),
            Self::Denied => format!("may not be used by this user: {node}"),
            Self::NodeFailed(reason) => format!("cannot be reached: {node}: {reason}"),
        }
    }

    fn meaning(&self) -> Option<&'static str> {
        match self {
            Self::Kernel => Some(
                "QPL needs type user. The kernel's iaa_crypto takes all devices when it is \
                 loaded; its users, such as zswap, lose the queues that QPL gets.",
            ),
            Self::TypeNone => Some("QPL needs type user."),
            Self::Dedicated => Some("QPL uses only shared queues."),
            Self::NoGroup | Self::NoEngine(_) => {
                Some("A queue is served by the engines of its group.")
            }
            Self::Disabled | Self::NodeFailed(_) => None,
            Self::NoNode => Some(
                "It exists while the queue is bound to the driver user; a container must be given \
                 it.",
            ),
            Self::Denied => Some(
                "It belongs to root, unless a udev rule says otherwise. A chown lasts until the \
                 queue is disabled; docs/qpl-hardware.md has a rule.",
            ),
        }
    }

    fn remedy(&self, device: &Device, queue: &WorkQueue) -> Vec<String> {
        let node = format!("/dev/iax/{}", queue.name);
        match self {
            Self::Disabled => setup::enable(device, queue),
            Self::Denied => vec![format!("sudo chown \"$USER\" {node}")],
            Self::NodeFailed(_) => vec![format!("ls -lL {node}")],
            Self::NoNode if queue.driver_name.as_deref() == Some("user") => {
                vec!["ls -lR /dev/iax".to_owned()]
            }
            _ => setup::again(device, queue),
        }
    }
}
