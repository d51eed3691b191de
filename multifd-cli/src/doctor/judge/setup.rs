//! The commands that set accelerators up, as accel-config's manual pages have them.

use crate::doctor::system::{Device, State, WorkQueue};

/// The commands that enable a shared queue for processes, with all of its device's engines, on
/// each of `devices`, which must be alike. Their enabled queues are disabled first.
pub(super) fn queue(devices: &[&Device], queue: u32, group: u32) -> Vec<String> {
    let (first, number) = match devices {
        [] => return Vec::new(),
        [only] => (*only, only.number.to_string()),
        [first, ..] => (*first, "$d".to_owned()),
    };
    let mut lines = Vec::new();
    for enabled in first.queues.iter().filter(|queue| queue.state == State::Enabled) {
        let other = enabled.number;
        lines.push(format!("sudo accel-config disable-wq iax{number}/wq{number}.{other}"));
    }
    if first.state == State::Enabled {
        lines.push(format!("sudo accel-config disable-device iax{number}"));
    }
    lines.extend(engines(first, &number, group));
    let size = size(first, queue);
    lines.push(format!(
        "sudo accel-config config-wq iax{number}/wq{number}.{queue} --group-id={group} \
         --wq-size={size} --priority=10 --block-on-fault=1 --threshold={size} --type=user \
         --mode=shared --name=qpl --driver-name=user"
    ));
    lines.push(format!("sudo accel-config enable-device iax{number}"));
    lines.push(format!("sudo accel-config enable-wq iax{number}/wq{number}.{queue}"));
    if devices.len() > 1 {
        lines.iter_mut().for_each(|line| line.insert_str(0, "  "));
        let numbers: Vec<_> = devices.iter().map(|device| device.number.to_string()).collect();
        lines.insert(0, format!("for d in {}; do", numbers.join(" ")));
        lines.push("done".to_owned());
    }
    lines
}

/// The commands that set a queue up again, for which its device must be disabled.
pub(super) fn again(device: &Device, queue: &WorkQueue) -> Vec<String> {
    let mut lines = self::queue(&[device], queue.number, queue.group.unwrap_or(0));
    let is_other = |other: &&WorkQueue| other.number != queue.number && other.is_set_up();
    let others: Vec<_> = device.queues.iter().filter(is_other).collect();
    if !others.is_empty() {
        let names: Vec<_> = others.iter().map(|other| other.name.as_str()).collect();
        lines.insert(0, format!("# this also stops {}", names.join(", ")));
    }
    lines
}

/// The commands that enable a device and a queue of it as they are.
pub(super) fn enable(device: &Device, queue: &WorkQueue) -> Vec<String> {
    let (device_name, queue) = (&device.name, &queue.name);
    let mut lines = Vec::new();
    if device.state == State::Disabled {
        lines.push(format!("sudo accel-config enable-device {device_name}"));
    }
    lines.push(format!("sudo accel-config enable-wq {device_name}/{queue}"));
    lines
}

/// Puts those engines into `group` that serve no other group; if there are none, all engines.
fn engines(device: &Device, number: &str, group: u32) -> Option<String> {
    let serves_no_other = |served: Option<u32>| served.is_none_or(|served| served == group);
    let mut engines: Vec<_> =
        device.engines.iter().filter(|engine| serves_no_other(engine.group)).collect();
    if engines.is_empty() {
        engines = device.engines.iter().collect();
    }
    let numbers: Vec<_> = engines.iter().map(|engine| engine.number.to_string()).collect();
    (!numbers.is_empty()).then(|| {
        format!(
            "for e in {}; do sudo accel-config config-engine iax{number}/engine{number}.$e \
             --group-id={group}; done",
            numbers.join(" ")
        )
    })
}

/// The queue's own size, or what the device's other queues leave.
fn size(device: &Device, number: u32) -> u32 {
    let (own, others): (Vec<_>, Vec<_>) =
        device.queues.iter().partition(|queue| queue.number == number);
    let taken = others.iter().map(|queue| queue.size).fold(0, u32::saturating_add);
    match own.first() {
        Some(queue) if queue.is_set_up() => queue.size,
        _ => device.max_work_queues_size.saturating_sub(taken).max(1),
    }
}
