//! Whether work queues can be used by this process.

use super::fault::Fault;
use super::setup;
use crate::doctor::finding::{Finding, Level};
use crate::doctor::system::{Device, Release, System, WorkQueue};

/// Judges the queues that are set up.
pub(super) fn judge(system: &System, findings: &mut Vec<Finding>) {
    let any_usable = any_usable(system);
    for (device, queue) in queues(system) {
        match Fault::of(device, queue) {
            None => findings.extend(usable(device, queue)),
            Some(fault) => findings.push(fault.finding(device, queue, any_usable)),
        }
    }
    if any_usable {
        findings.extend(submission(system));
    }
}

/// Whether QPL can use any queue.
pub(super) fn any_usable(system: &System) -> bool {
    queues(system).any(|(device, queue)| Fault::of(device, queue).is_none())
}

/// The queues that are set up, on devices that processes can use.
fn queues(system: &System) -> impl Iterator<Item = (&Device, &WorkQueue)> {
    let devices = system.devices().iter().filter(|device| device.pasid_enabled);
    devices
        .flat_map(|device| device.queues.iter().map(move |queue| (device, queue)))
        .filter(|(_, queue)| queue.is_set_up())
}

/// The findings about a usable queue: its set-up, and what makes it slow.
fn usable(device: &Device, queue: &WorkQueue) -> Vec<Finding> {
    let node = device.numa_node.map_or_else(String::new, |node| format!(" on NUMA node {node}"));
    let engines = device.engines.iter().filter(|engine| engine.group == queue.group).count();
    let faults = if queue.blocks_on_fault() { "blocks" } else { "does not block" };
    let mut findings = vec![Finding::ok(
        "queue",
        format!(
            "{}/{}{node}: shared, {} entries, threshold {}, {engines} engines, {faults} on page faults",
            device.name, queue.name, queue.size, queue.threshold
        ),
    )];
    if !queue.blocks_on_fault() {
        findings.push(slow_on_faults(device, queue));
    }
    findings
}

fn slow_on_faults(device: &Device, queue: &WorkQueue) -> Finding {
    let name = format!("{}/{}", device.name, queue.name);
    let (found, remedy) = if queue.block_on_fault {
        // accel-config's config-user-default leaves queues like that.
        let mut remedy = setup::again(device, queue);
        for line in remedy.iter_mut().filter(|line| line.contains("config-wq")) {
            *line += " --prs-disable=0";
        }
        (format!("{name}: prs_disable is 1, which overrides block_on_fault"), remedy)
    } else {
        (format!("{name}: block_on_fault is 0"), setup::again(device, queue))
    };
    Finding::new(Level::Warning, "queue", found)
        .meaning(
            "When a job meets a page that is not mapped, libqpl submits it again, or it fails and the \
             CPU takes its page: both are slower.",
        )
        .mend(remedy)
}

/// How descriptors get to the device: Intel's advisory INTEL-SA-01084.
fn submission(system: &System) -> Option<Finding> {
    /// The first mainline Linux that keeps processes from mapping portals.
    const RESTRICTED: Release = Release { major: 6, minor: 10 };
    const WRITES: &str = "With libqpl 1.6 and later the kernel then submits each descriptor, by \
        write(), which is slower; older versions do not work. Nothing in sysfs tells more.";
    let (Ok(false), Ok(release)) = (&system.kernel.raw_io, &system.kernel.release) else {
        return None;
    };
    let sure = if *release >= RESTRICTED { "keeps" } else { "may keep" };
    let found = format!(
        "Linux {release} {sure} processes without CAP_SYS_RAWIO, such as this one, from mapping the \
         portals of devices (INTEL-SA-01084)"
    );
    let writes = system.libqpl.as_ref().is_ok_and(|libqpl| libqpl.version.minor >= 6);
    let level = if writes { Level::Note } else { Level::Warning };
    Some(Finding::new(level, "submission", found).meaning(WRITES))
}
