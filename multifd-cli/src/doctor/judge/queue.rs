//! Whether work queues can be used by this process.

use super::setup;
use crate::doctor::finding::{Finding, Level};
use crate::doctor::system::{Device, Kind, Mode, Node, Release, State, System, WorkQueue};

/// Why a queue cannot be used by this process. The first that applies is the one to mend first.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fault {
    NotUser,
    Dedicated,
    NoGroup,
    NoEngine(u32),
    Disabled,
    NoNode,
    Denied,
    NodeFailed(String),
}

/// Judges the queues that somebody has set up.
pub(super) fn judge(system: &System, findings: &mut Vec<Finding>) {
    let any_usable = any_usable(system);
    for (device, queue) in queues(system) {
        match fault(device, queue) {
            None => findings.extend(usable(device, queue)),
            Some(fault) => findings.push(faulty(device, queue, &fault, any_usable)),
        }
    }
    if any_usable {
        findings.extend(submission(system));
    }
}

/// Whether QPL has any queue.
pub(super) fn any_usable(system: &System) -> bool {
    queues(system).any(|(device, queue)| fault(device, queue).is_none())
}

/// The queues that are set up, on devices that processes can use.
fn queues(system: &System) -> impl Iterator<Item = (&Device, &WorkQueue)> {
    let devices = system.devices().iter().filter(|device| device.pasid_enabled);
    devices
        .flat_map(|device| device.queues.iter().map(move |queue| (device, queue)))
        .filter(|(_, queue)| queue.is_set_up())
}

fn fault(device: &Device, queue: &WorkQueue) -> Option<Fault> {
    if queue.kind != Kind::User {
        return Some(Fault::NotUser);
    }
    if queue.mode != Mode::Shared {
        return Some(Fault::Dedicated);
    }
    let Some(group) = queue.group else { return Some(Fault::NoGroup) };
    if engines(device, group) == 0 {
        return Some(Fault::NoEngine(group));
    }
    if device.state == State::Disabled || queue.state == State::Disabled {
        return Some(Fault::Disabled);
    }
    match &queue.node {
        Node::Allowed => None,
        Node::Missing => Some(Fault::NoNode),
        Node::Denied => Some(Fault::Denied),
        Node::Failed(reason) => Some(Fault::NodeFailed(reason.clone())),
    }
}

fn engines(device: &Device, group: u32) -> usize {
    device.engines.iter().filter(|engine| engine.group == Some(group)).count()
}

/// What is said of a queue that works: how it is set up, and what makes it slow.
fn usable(device: &Device, queue: &WorkQueue) -> Vec<Finding> {
    let node = device.numa_node.map_or_else(String::new, |node| format!(" on NUMA node {node}"));
    let engines = engines(device, queue.group.unwrap_or_default());
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
        let mut remedy = reconfigure(device, queue);
        for line in remedy.iter_mut().filter(|line| line.contains("config-wq")) {
            *line += " --prs-disable=0";
        }
        (format!("{name}: prs_disable is 1, which overrides block_on_fault"), remedy)
    } else {
        (format!("{name}: block_on_fault is 0"), reconfigure(device, queue))
    };
    Finding::new(Level::Warning, "queue", found)
        .meaning(
            "A job that meets a page that is not mapped fails, and its page is done on the CPU: \
             memory that was just received, above all.",
        )
        .mend(remedy)
}

fn faulty(device: &Device, queue: &WorkQueue, fault: &Fault, any_usable: bool) -> Finding {
    let (found, meaning, remedy) = match fault {
        Fault::NotUser => (
            format!("is for the {}", holder(queue)),
            "QPL needs type user. The kernel's iaa_crypto takes all devices when it is loaded: \
             what compresses by it, zswap say, must do without then."
                .to_owned(),
            reconfigure(device, queue),
        ),
        Fault::Dedicated => (
            "is dedicated to one process".to_owned(),
            "QPL uses shared queues alone.".to_owned(),
            reconfigure(device, queue),
        ),
        Fault::NoGroup => (
            "is in no group".to_owned(),
            "The engines of its group are what serve a queue.".to_owned(),
            reconfigure(device, queue),
        ),
        Fault::NoEngine(group) => (
            format!("is in group {group}, which has no engine"),
            "The engines of its group are what serve a queue.".to_owned(),
            reconfigure(device, queue),
        ),
        Fault::Disabled => ("is set up but not enabled".to_owned(), String::new(), setup::enable(device, queue)),
        Fault::NoNode => (
            format!("has no device file /dev/iax/{}", queue.name),
            "It is there when the queue is bound to the driver user; in a container, it must be \
             handed in."
                .to_owned(),
            no_node(device, queue),
        ),
        Fault::Denied => (
            format!("may not be used by this user: /dev/iax/{}", queue.name),
            "It is root's, unless a udev rule says otherwise; what chown does lasts until the queue \
             is disabled. docs/qpl-hardware.md has a rule."
                .to_owned(),
            vec![format!("sudo chown \"$USER\" /dev/iax/{}", queue.name)],
        ),
        Fault::NodeFailed(reason) => (
            format!("cannot be reached: /dev/iax/{}: {reason}", queue.name),
            String::new(),
            vec![format!("ls -lL /dev/iax/{}", queue.name)],
        ),
    };
    let level = match fault {
        _ if !any_usable => Level::Problem,
        Fault::NoEngine(_) | Fault::Denied | Fault::NoNode | Fault::NodeFailed(_) => Level::Warning,
        _ => Level::Note,
    };
    let found = format!("{}/{} {found}", device.name, queue.name);
    let finding = Finding::new(level, "queue", found).mend(remedy);
    if meaning.is_empty() { finding } else { finding.meaning(meaning) }
}

fn no_node(device: &Device, queue: &WorkQueue) -> Vec<String> {
    if queue.driver_name.as_deref() == Some("user") {
        vec!["ls -lR /dev/iax".to_owned()]
    } else {
        reconfigure(device, queue)
    }
}

fn holder(queue: &WorkQueue) -> String {
    match (queue.kind, queue.driver_name.as_deref()) {
        (Kind::Kernel, Some(driver)) if !driver.is_empty() => format!("kernel (driver {driver})"),
        (Kind::Kernel, _) => "kernel".to_owned(),
        _ => "use of nobody yet (type none)".to_owned(),
    }
}

fn reconfigure(device: &Device, queue: &WorkQueue) -> Vec<String> {
    setup::queue(&[device], queue.number, queue.group.unwrap_or(0))
}

/// How descriptors get to the device: Intel's advisory INTEL-SA-01084.
fn submission(system: &System) -> Option<Finding> {
    /// The first of Linux' main line that keeps processes from mapping portals.
    const RESTRICTED: Release = Release { major: 6, minor: 10 };
    const WRITES: &str = "libqpl 1.6 and later has the kernel submit each descriptor then, by \
        write(), which is slower; older ones do not work. Nothing in sysfs tells more.";
    let (Ok(false), Ok(release)) = (&system.kernel.raw_io, &system.kernel.release) else {
        return None;
    };
    let found = if *release >= RESTRICTED {
        format!(
            "Linux {release} lets no process without CAP_SYS_RAWIO, such as this, map the portal \
                 of a device that INTEL-SA-01084 is about"
        )
    } else {
        format!(
            "Linux {release} may have the fix for INTEL-SA-01084, that no process without \
                 CAP_SYS_RAWIO, such as this, maps a device's portal"
        )
    };
    let writes = system.libqpl.as_ref().is_ok_and(|libqpl| libqpl.version.minor >= 6);
    let level = if writes { Level::Note } else { Level::Warning };
    Some(Finding::new(level, "submission", found).meaning(WRITES))
}
