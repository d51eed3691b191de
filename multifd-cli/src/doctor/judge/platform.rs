//! Whether there is an IAA, and whether kernel, driver and IOMMU let processes use it.

use crate::doctor::finding::{Finding, Level};
use crate::doctor::system::{Bus, Package, PciDevice, Release, System};

/// How far the accelerators are set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Accelerators {
    /// None was found.
    Absent,
    /// There are some, but their queues cannot be used, in whatever state these are.
    Unready,
    /// Their queues can be judged.
    Ready,
}

/// The first kernel that supports QPL on IAA, by Intel's requirements.
const FIRST: Release = Release { major: 5, minor: 18 };

/// Commands that extend the kernel's command line.
const PARAMETERS: [&str; 4] = [
    "sudo sed -i 's/^GRUB_CMDLINE_LINUX=\"/&intel_iommu=on,sm_on /' /etc/default/grub",
    "sudo update-grub",
    "# in place of both on Fedora and RHEL: sudo grubby --update-kernel=ALL --args=intel_iommu=on,sm_on",
    "sudo reboot",
];

pub(super) fn judge(system: &System, findings: &mut Vec<Finding>) -> Accelerators {
    if let Some(absent) = absent(system) {
        findings.push(absent);
        return Accelerators::Absent;
    }
    let (kernel, new_enough) = kernel(system);
    findings.push(kernel);
    if !new_enough {
        return Accelerators::Unready;
    }
    match taken(system) {
        Ok(bus) => {
            let none = bus.devices.is_empty();
            let level = if none { Level::Problem } else { Level::Warning };
            findings.extend(bus.unread.iter().map(|unread| {
                Finding::new(level, "device", unread.to_string())
                    .meaning("The other findings do not cover this device.")
            }));
            if none { Accelerators::Unready } else { svm(system, findings) }
        }
        Err(problem) => {
            findings.push(problem);
            findings.extend(command_line(system));
            Accelerators::Unready
        }
    }
}

/// The finding that there is no IAA, if so.
fn absent(system: &System) -> Option<Finding> {
    const MEANING: &str = "Intel Xeons have IAA from the 4th generation on, but not all models; if this \
        machine should have one, check whether the BIOS hides it, or the virtual machine was given \
        none. Codec qpl works without IAA on the CPU, but slower: by Intel's figures a migration over \
        2 channels takes ten times as long.";
    let taken = matches!(&system.bus, Ok(Some(bus))
        if !(bus.devices.is_empty() && bus.unread.is_empty()));
    match &system.pci {
        _ if taken => None,
        Ok(devices) if !devices.is_empty() => None,
        Ok(_) => {
            let found = "there is no Intel IAA in this machine (no PCI device 8086:0cfe)";
            Some(Finding::problem("iaa", found).meaning(MEANING))
        }
        Err(unread) => {
            let found = format!("cannot see whether there is an Intel IAA: {unread}");
            Some(Finding::problem("iaa", found).meaning(MEANING))
        }
    }
}

/// The kernel, and whether it is new enough. An unknown version counts as new enough.
fn kernel(system: &System) -> (Finding, bool) {
    const SUBJECT: &str = "kernel";
    let needed = format!("QPL's hardware path needs Linux {FIRST} or later");
    match &system.kernel.release {
        Ok(release) if *release >= FIRST => {
            (Finding::ok(SUBJECT, format!("Linux {release}")), true)
        }
        // Distributors backport drivers to older kernels.
        Ok(release) if system.devices().iter().any(|device| device.pasid_enabled) => {
            let found = format!("Linux {release} is old, but has devices with shared memory");
            let meaning = format!("{needed}, by Intel's requirements; this one may work.");
            (Finding::new(Level::Warning, SUBJECT, found).meaning(meaning), true)
        }
        Ok(release) => {
            let old = Finding::problem(SUBJECT, format!("Linux {release} is too old"));
            let install = system.distribution.install(Package::Kernel);
            (old.meaning(needed + ".").mend([install, "sudo reboot"]), false)
        }
        Err(unread) => {
            let unknown = Finding::new(Level::Warning, SUBJECT, unread.to_string());
            (unknown.meaning(needed + ": see uname -r."), true)
        }
    }
}

/// The accelerators that are bound to the driver, or why there are none.
fn taken(system: &System) -> Result<&Bus, Finding> {
    let pci = system.pci.as_deref().unwrap_or_default();
    match &system.bus {
        Ok(Some(bus)) if !(bus.devices.is_empty() && bus.unread.is_empty()) => Ok(bus),
        Ok(Some(_)) => Err(not_taken(pci)),
        Ok(None) => {
            let found = format!("the kernel's driver idxd is not loaded, for {}", list(pci));
            let meaning = "If modprobe does not find it, the kernel is built without \
                CONFIG_INTEL_IDXD and CONFIG_INTEL_IDXD_SVM: install a distribution's full kernel.";
            let load = ["sudo modprobe idxd", "echo idxd | sudo tee /etc/modules-load.d/idxd.conf"];
            Err(Finding::problem("driver", found).meaning(meaning).mend(load))
        }
        Err(unread) => Err(Finding::problem("driver", unread.to_string())
            .meaning("This user cannot list the driver's devices.")),
    }
}

/// The finding that the devices on the PCI bus are not bound to the driver.
fn not_taken(pci: &[PciDevice]) -> Finding {
    let found = format!("the kernel's driver idxd has not taken {}", list(pci));
    let mut lines = Vec::new();
    for PciDevice { address, driver } in pci {
        if let Some(driver) = driver.as_deref().filter(|&driver| driver != "idxd") {
            lines.push(format!("echo {address} | sudo tee /sys/bus/pci/drivers/{driver}/unbind"));
        }
        lines.push(format!("echo {address} | sudo tee /sys/bus/pci/drivers/idxd/bind"));
    }
    lines.push("sudo dmesg | grep -i idxd".to_owned());
    let meaning = "Another driver has them, or idxd gave up; its last line in the kernel's log says \
        why.";
    Finding::problem("driver", found).meaning(meaning).mend(lines)
}

fn list(pci: &[PciDevice]) -> String {
    let one = |device: &PciDevice| match &device.driver {
        Some(driver) => format!("{} (driver {driver})", device.address),
        None => device.address.clone(),
    };
    pci.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// Whether the devices can use a process' addresses, as the driver reports it.
fn svm(system: &System, findings: &mut Vec<Finding>) -> Accelerators {
    let devices = system.devices();
    let without: Vec<_> = devices.iter().filter(|device| !device.pasid_enabled).collect();
    if without.is_empty() {
        findings.push(Finding::ok("svm", "shared virtual memory is on (pasid_enabled 1)"));
        return Accelerators::Ready;
    }
    let names: Vec<_> = without.iter().map(|device| device.name.as_str()).collect();
    let found = format!("{}: no shared virtual memory (pasid_enabled 0)", names.join(", "));
    let all = without.len() == devices.len();
    let level = if all { Level::Problem } else { Level::Warning };
    let finding = Finding::new(level, "svm", found);
    findings.push(if asked_for(system) == Some(true) {
        let meaning = "Shared queues need it. The kernel's command line asks for it, so turn VT-d \
            and PCIe ENQCMD on in the BIOS; where the log says that the IOMMU has fewer levels of \
            page tables than the CPU, add no5lvl to the command line.";
        finding.meaning(meaning).mend(["sudo dmesg | grep -i -e dmar -e idxd"])
    } else {
        let meaning = "Shared queues need it: the kernel's command line must ask for it, and VT-d \
            must be on in the BIOS.";
        finding.meaning(meaning).mend(PARAMETERS)
    });
    if all { Accelerators::Unready } else { Accelerators::Ready }
}

/// The finding that the command line does not ask for SVM, while no driver reports on it.
fn command_line(system: &System) -> Option<Finding> {
    let meaning =
        "Unless the kernel is built to turn both on, shared virtual memory will be missing.";
    (asked_for(system) == Some(false)).then(|| {
        Finding::new(Level::Warning, "svm", "the kernel's command line has no intel_iommu=on,sm_on")
            .meaning(meaning)
            .mend(PARAMETERS)
    })
}

fn asked_for(system: &System) -> Option<bool> {
    system.kernel.iommu.as_ref().ok().map(|iommu| iommu.on && iommu.scalable)
}
