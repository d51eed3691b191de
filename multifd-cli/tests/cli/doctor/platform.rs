//! The kernel, its driver and the IOMMU.

use super::machine::Machine;
use super::{one_problem, one_warning};

#[test]
fn a_pci_bus_that_cannot_be_seen_is_not_taken_for_one_without_an_iaa() {
    let machine = Machine::well();
    machine.remove("sys/bus");
    one_problem(
        &machine.doctor(&["--json"]),
        "iaa",
        &["cannot see", "bus/pci/devices is missing"],
        &[],
    );
}

#[test]
fn a_driver_that_is_not_loaded_is_loaded_by_modprobe() {
    let machine = Machine::well();
    machine.remove("sys/bus/dsa");
    let words = ["idxd is not loaded", "0000:6a:02.0"];
    one_problem(&machine.doctor(&["--json"]), "driver", &words, &["modprobe idxd"]);
}

#[test]
fn a_device_that_another_driver_has_taken_is_given_back() {
    let machine = Machine::well();
    machine.remove("sys/bus/dsa/devices/iax1");
    machine.set_driver("0000:6a:02.0", "vfio-pci");
    let commands = [
        "echo 0000:6a:02.0 | sudo tee /sys/bus/pci/drivers/vfio-pci/unbind",
        "echo 0000:6a:02.0 | sudo tee /sys/bus/pci/drivers/idxd/bind",
    ];
    one_problem(&machine.doctor(&["--json"]), "driver", &["has not taken", "vfio-pci"], &commands);
}

#[test]
fn an_old_kernel_is_all_that_is_said_of_the_platform() {
    let machine = Machine::well();
    machine.set("proc/sys/kernel/osrelease", "5.15.0-25-generic");
    machine.set_bus("iax1/pasid_enabled", "0");
    one_problem(&machine.doctor(&["--json"]), "kernel", &["Linux 5.15 is too old"], &["reboot"]);
    // Where the driver has a device that would do, a distributor has brought it there.
    machine.set_bus("iax1/pasid_enabled", "1");
    one_warning(&machine.doctor(&["--json"]), "kernel", &["Linux 5.15 is old"], &[]);
    machine.set("proc/sys/kernel/osrelease", "of my own");
    one_warning(
        &machine.doctor(&["--json"]),
        "kernel",
        &["'of my own'", "not a kernel's version"],
        &[],
    );
}

#[test]
fn missing_svm_is_fixed_on_the_command_line_first_and_then_in_the_bios() {
    let machine = Machine::well();
    machine.set_bus("iax1/pasid_enabled", "0");
    // Both follow from it.
    machine.set_bus("iax1/state", "disabled");
    machine.set_bus("wq1.0/mode", "dedicated");
    let found = ["iax1: no shared virtual memory"];
    one_problem(&machine.doctor(&["--json"]), "svm", &found, &["dmesg"]);
    machine.set("proc/cmdline", "intel_iommu=on");
    one_problem(&machine.doctor(&["--json"]), "svm", &found, &["intel_iommu=on,sm_on", "reboot"]);
    // A kernel may be built to do without the parameter.
    machine.set_bus("iax1/pasid_enabled", "1");
    machine.set_bus("iax1/state", "enabled");
    machine.set_bus("wq1.0/mode", "shared");
    machine.doctor(&[]).succeeded();
}
