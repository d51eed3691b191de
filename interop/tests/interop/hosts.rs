//! What hosts turn on beside multifd: capabilities, and devices that send some of their state early.

use libtest_mimic::Trial;
use multifd_interop::guest::unchanging;
use multifd_interop::qemu::{Settings, Version};

use crate::common::{
    ROUNDS, Tested, as_shown_with, check, check_equal, check_says, image_ram, migrate, receive,
    send, source_with, started_with, trial,
};

/// A source as hosts set it up.
#[derive(Clone, Copy, Debug)]
struct Host {
    name: &'static str,
    version: Version,
    machine: &'static str,
    capabilities: &'static [&'static str],
    /// Options of both QEMUs.
    devices: &'static [&'static str],
    /// The guest has memory that is never sent.
    unplugged: bool,
    /// The guest runs meanwhile: only then does its source wait for the destination's ack. Not where
    /// QEMU loses what a running guest writes, in software emulation, also to another QEMU.
    live: bool,
}

use Version::{Newest, V7_2, V10_0};

const VIRTIO_MEM: &[&str] = &[
    "-m",
    "maxmem=1G",
    "-object",
    "memory-backend-ram,id=vmem0,size=256M",
    "-device",
    "virtio-mem-pci,id=vm0,memdev=vmem0,requested-size=4M",
];

/// QEMU 10.0 does not allow postcopy-ram beside multifd, and 7.2 has neither switchover-ack nor a
/// virtio-mem device that sends early.
const HOSTS: [Host; 11] = [
    host("dirty_bitmaps", V7_2, &["dirty-bitmaps"]),
    host("dirty_bitmaps", V10_0, &["dirty-bitmaps"]),
    host("dirty_bitmaps", Newest, &["dirty-bitmaps"]),
    host("postcopy_ram", V7_2, &["postcopy-ram"]),
    paused("postcopy_ram", Newest, &["postcopy-ram"], &[]),
    paused("postcopy_ram_and_dirty_bitmaps", Newest, &["postcopy-ram", "dirty-bitmaps"], &[]),
    host("switchover_ack", V10_0, &["switchover-ack"]),
    host("switchover_ack", Newest, &["switchover-ack"]),
    Host {
        machine: "pc-i440fx-10.0",
        ..host("switchover_ack_of_machine_10.0", Newest, &["switchover-ack"])
    },
    Host { unplugged: true, ..paused("virtio_mem", V10_0, &[], VIRTIO_MEM) },
    Host { unplugged: true, ..paused("virtio_mem", Newest, &[], VIRTIO_MEM) },
];

const fn host(name: &'static str, version: Version, capabilities: &'static [&'static str]) -> Host {
    let machine = version.machine();
    let live = !matches!(version, V7_2);
    Host { name, version, machine, capabilities, devices: &[], unplugged: false, live }
}

const fn paused(
    name: &'static str,
    version: Version,
    capabilities: &'static [&'static str],
    devices: &'static [&'static str],
) -> Host {
    Host { devices, live: false, ..host(name, version, capabilities) }
}

pub(crate) fn trials() -> Vec<Trial> {
    let hosts = HOSTS.into_iter().map(|host| {
        let Host { name, version, .. } = host;
        let name = format!("host::qemu_{version}::{name}::a_guest_goes_on_from_its_image");
        trial(name, vec![version], move || goes_on_from_image(&host))
    });
    // 7.2 does so without any of this: see the references.
    let losing = HOSTS.into_iter().filter(|host| !host.live && host.version != V7_2).map(|host| {
        let Host { name, version, .. } = host;
        let name = format!(
            "reference::qemu_{version}_to_itself::loses_what_a_running_guest_writes_with_{name}"
        );
        trial(name, vec![version], move || loses_writes(&host)).with_ignored_flag(true)
    });
    hosts.chain(losing).collect()
}

/// Into an image and out of it into the same QEMU.
fn goes_on_from_image(host: &Host) -> Tested {
    let folder = tempfile::tempdir()?;
    let image = folder.path().join("vm");
    let settings = Settings { capabilities: host.capabilities, ..Settings::default() };
    let mut source = source_with(host.version, host.machine, host.devices)?;
    source.set_up(&settings)?;
    let missing: &[&str] = if host.unplugged { &["--allow-missing-pages"] } else { &[] };
    let (recv, uri) = receive(&image, &settings, missing)?;
    migrate(&mut source, &uri, &settings, host.live)?;
    let migration = source.complete_migration()?;
    recv.succeed()?;
    check(!host.live || migration.rounds >= ROUNDS, || {
        format!("only {} rounds", migration.rounds)
    })?;
    let ram = source.ram()?;
    check_equal(&ram, &image_ram(&image)?)?;
    drop(source);

    let (version, devices) = (host.version, host.devices);
    let (mut next, uri) = as_shown_with(version, &image, &settings, &folder, devices)?;
    let legacy = Settings { zero_pages: Some("legacy"), ..settings };
    let send = send(&image, &uri, &legacy, &[])?;
    next.complete_migration()?;
    send.succeed()?;
    check_equal(&ram, &next.ram()?)?;
    next.cont()?;
    next.goes_on()?;
    next.stop()?;
    check_equal(&unchanging(ram), &unchanging(next.ram()?))
}

/// That a running guest's writes are lost is QEMU's own doing. It happens nearly always.
fn loses_writes(host: &Host) -> Tested {
    for _ in 0..10 {
        if let Err(error) = qemu_to_qemu(host) {
            return check_says(&error.to_string(), &["pages differ"]);
        }
    }
    Err("every write arrived, ten times: Host::live is out of date".into())
}

fn qemu_to_qemu(host: &Host) -> Tested {
    let settings = Settings { capabilities: host.capabilities, ..Settings::default() };
    let incoming: Vec<_> = host.devices.iter().chain(&["-incoming", "defer"]).copied().collect();
    let mut destination = started_with(host.version, host.machine, &incoming)?;
    destination.set_up(&settings)?;
    let uri = destination.listen()?;
    let mut source = source_with(host.version, host.machine, host.devices)?;
    source.set_up(&settings)?;
    migrate(&mut source, &uri, &settings, true)?;
    source.complete_migration()?;
    destination.complete_migration()?;
    check_equal(&source.ram()?, &destination.ram()?)
}
