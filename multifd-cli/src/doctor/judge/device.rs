//! Whether the accelerators are enabled and have queues.

use super::{queue, setup};
use crate::doctor::finding::{Finding, Level};
use crate::doctor::system::{Device, State, System, WorkQueue};

/// Judges what could not be read, and the devices without a queue that is set up.
pub(super) fn judge(system: &System, findings: &mut Vec<Finding>) {
    // Without any usable queue QPL cannot run; else the device is only idle.
    let level = if queue::any_usable(system) { Level::Note } else { Level::Problem };
    for unread in system.devices().iter().flat_map(|device| &device.unread) {
        let level = if level == Level::Note { Level::Warning } else { level };
        let finding = Finding::new(level, "device", unread.to_string());
        findings.push(finding.meaning("The other findings do not cover it."));
    }
    let ready = || system.devices().iter().filter(|device| device.pasid_enabled);
    let bare = |state| -> Vec<&Device> {
        ready().filter(|device| device.state == state && !has_queues(device)).collect()
    };
    let disabled = bare(State::Disabled);
    if let [first, ..] = disabled[..] {
        let found = format!("{}: disabled, with no work queue set up", names(&disabled));
        let finding = Finding::new(level, "device", found)
            .meaning("Every device is in this state after a boot: a set-up does not last.")
            .mend(setup::queue(&disabled, first_queue(first), 0));
        findings.push(finding);
    }
    for device in bare(State::Enabled) {
        let found = format!("{}: enabled, with no work queue set up", device.name);
        findings.push(Finding::new(level, "device", found).mend(setup::queue(
            &[device],
            first_queue(device),
            0,
        )));
    }
}

/// Whether there are queues that are set up, or that may be.
fn has_queues(device: &Device) -> bool {
    !device.unread.is_empty() || device.queues.iter().any(WorkQueue::is_set_up)
}

fn names(devices: &[&Device]) -> String {
    devices.iter().map(|device| device.name.as_str()).collect::<Vec<_>>().join(", ")
}

/// The queue to set up on a device that has none.
fn first_queue(device: &Device) -> u32 {
    device.queues.first().map_or(0, |queue| queue.number)
}
