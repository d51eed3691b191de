//! `multifd doctor` on made-up machines.

mod machine;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use machine::{Machine, faults};
use serde_json::{Value, json};

use crate::common::Ended;

/// Asserts that one thing keeps the hardware path from working: what it is, by `words` of the
/// finding, and how it is mended, by `commands`, in that order.
#[track_caller]
fn one_problem(ended: &Ended, subject: &str, words: &[&str], commands: &[&str]) {
    assert_eq!(ended.status, Some(1), "{ended:?}");
    one_fault(&ended.json(), "problem", subject, words, commands);
}

/// Asserts that the hardware path works, worse than it could for one reason.
#[track_caller]
fn one_warning(ended: &Ended, subject: &str, words: &[&str], commands: &[&str]) {
    assert_eq!(ended.status, Some(0), "{ended:?}");
    one_fault(&ended.json(), "warning", subject, words, commands);
}

#[track_caller]
fn one_fault(report: &Value, level: &str, subject: &str, words: &[&str], commands: &[&str]) {
    let faults = faults(report);
    assert_eq!(faults.len(), 1, "{report:#}");
    let fault = faults[0];
    assert_eq!((&fault["level"], &fault["subject"]), (&json!(level), &json!(subject)), "{fault:#}");
    for word in words {
        assert!(fault["found"].as_str().unwrap().contains(word), "{word} is not in {fault:#}");
    }
    let lines: Vec<_> = fault["remedy"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|line| line.as_str().unwrap())
        .collect();
    let mut rest = lines.iter();
    for command in commands {
        assert!(
            rest.any(|line| line.contains(command)),
            "{command} is not in, or not in order: {lines:#?}"
        );
    }
}

const CONFIG_WQ: &str = "accel-config config-wq iax1/wq1.0 --group-id=0 --wq-size=128 --priority=10 \
    --block-on-fault=1 --threshold=128 --type=user --mode=shared --name=qpl --driver-name=user";

#[test]
fn where_all_is_well_the_exit_status_is_0_and_the_queue_is_described() {
    let machine = Machine::well();
    let ended = machine.doctor(&["--json"]).succeeded();
    let report = ended.json();
    assert_eq!((&report["usable"], faults(&report).len()), (&json!(true), 0), "{report:#}");
    assert_eq!(report["verdict"], "QPL's hardware path can be used here");
    let device = &report["devices"][0];
    assert_eq!((&device["name"], &device["numa_node"]), (&json!("iax1"), &json!(0)));
    let queue = &device["queues"][0];
    assert_eq!(
        (&queue["type"], &queue["mode"], &queue["size"]),
        (&json!("user"), &json!("shared"), &json!(128))
    );

    let text = machine.doctor(&[]).succeeded().stdout;
    let queue =
        "iax1/wq1.0 on NUMA node 0: shared, 128 entries, threshold 128, 8 engines, blocks on";
    assert!(text.contains(queue) && text.contains("libqpl 1.9.0"), "{text}");
}

#[test]
fn without_a_device_that_alone_is_said_and_that_qpl_works_all_the_same() {
    let machine = Machine::well();
    machine.remove("sys/bus/dsa");
    machine.remove("sys/bus/pci/devices/0000:6a:02.0");
    machine.remove("libraries/libaccel-config.so.1");
    machine.set("proc/cmdline", "quiet");
    machine.set("proc/sys/kernel/osrelease", "4.18.0");
    let ended = machine.doctor(&["--json"]);
    one_problem(&ended, "iaa", &["no Intel IAA in this machine"], &[]);
    let text = machine.doctor(&[]).stdout;
    assert!(
        text.starts_with("QPL's hardware path cannot be used here: there is no Intel IAA"),
        "{text}"
    );
    assert!(
        text.contains("on the CPU, and slower") && text.contains("codec qpl works here, by "),
        "{text}"
    );
}

#[test]
fn a_pci_bus_that_cannot_be_seen_is_not_taken_for_one_without_an_iaa() {
    let machine = Machine::well();
    machine.remove("sys/bus");
    one_problem(
        &machine.doctor(&["--json"]),
        "iaa",
        &["cannot be seen", "bus/pci/devices is missing"],
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
    machine.set("proc/sys/kernel/osrelease", "of my own");
    machine.set_bus("iax1/pasid_enabled", "1");
    one_warning(
        &machine.doctor(&["--json"]),
        "kernel",
        &["'of my own'", "not a kernel's version"],
        &[],
    );
}

#[test]
fn missing_svm_is_mended_on_the_command_line_first_and_then_in_the_bios() {
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

#[test]
fn devices_that_nobody_has_set_up_are_set_up_by_one_script() {
    let machine = Machine::well();
    machine.clear(1);
    let commands = [
        "for e in 0 1 2 3 4 5 6 7; do sudo accel-config config-engine iax1/engine1.$e --group-id=0; done",
        CONFIG_WQ,
        "accel-config enable-device iax1",
        "accel-config enable-wq iax1/wq1.0",
    ];
    one_problem(&machine.doctor(&["--json"]), "device", &["iax1: disabled"], &commands);
    machine.add_device(3);
    machine.clear(3);
    let commands =
        ["for d in 1 3; do", "iax$d/engine$d.$e", "iax$d/wq$d.0", "enable-wq iax$d/wq$d.0", "done"];
    one_problem(&machine.doctor(&["--json"]), "device", &["iax1, iax3: disabled"], &commands);
}

#[test]
fn a_device_that_is_idle_beside_one_that_works_is_no_fault() {
    let machine = Machine::well();
    machine.add_device(3);
    machine.clear(3);
    let report = machine.doctor(&["--json"]).succeeded().json();
    let device = report["findings"].as_array().unwrap().iter().find(|f| f["subject"] == "device");
    let device = device.unwrap();
    assert_eq!((&device["level"], faults(&report).len()), (&json!("note"), 0), "{report:#}");
    assert!(device["found"].as_str().unwrap().starts_with("iax3: disabled"), "{device:#}");
}

#[test]
fn a_queue_that_is_set_up_is_enabled_with_its_device_where_that_is_not() {
    let machine = Machine::well();
    machine.set_bus("wq1.0/state", "disabled");
    let found = ["iax1/wq1.0 is set up but not enabled"];
    let ended = machine.doctor(&["--json"]);
    one_problem(&ended, "queue", &found, &["accel-config enable-wq iax1/wq1.0"]);
    assert!(!ended.stdout.contains("enable-device"), "{ended:?}");
    machine.set_bus("iax1/state", "disabled");
    let commands = ["enable-device iax1", "enable-wq iax1/wq1.0"];
    one_problem(&machine.doctor(&["--json"]), "queue", &found, &commands);
}

#[test]
fn a_queue_of_the_wrong_sort_is_set_up_anew() {
    for (attribute, value, found) in [
        ("mode", "dedicated", "is dedicated to one process"),
        ("type", "kernel", "is for the kernel"),
        ("type", "none", "is for nobody (type none)"),
        ("group_id", "-1", "is in no group"),
        ("group_id", "2", "is in group 2, which has no engine"),
    ] {
        let machine = Machine::well();
        machine.set_bus(&format!("wq1.0/{attribute}"), value);
        let commands = [
            "disable-wq iax1/wq1.0",
            "disable-device iax1",
            "config-engine",
            "config-wq",
            "enable-device iax1",
            "enable-wq iax1/wq1.0",
        ];
        one_problem(&machine.doctor(&["--json"]), "queue", &["iax1/wq1.0", found], &commands);
    }
}

#[test]
fn the_driver_that_holds_a_queue_for_the_kernel_is_named() {
    let machine = Machine::well();
    machine.set_bus("wq1.0/type", "kernel");
    machine.set_bus("wq1.0/mode", "dedicated");
    machine.set_bus("wq1.0/driver_name", "crypto");
    one_problem(
        &machine.doctor(&["--json"]),
        "queue",
        &["is for the kernel (driver crypto)"],
        &[CONFIG_WQ],
    );
}

#[test]
fn a_device_file_that_this_user_may_not_use_is_given_to_them() {
    let machine = Machine::well();
    let node = machine.path("dev/iax/wq1.0");
    fs::set_permissions(&node, Permissions::from_mode(0o000)).unwrap();
    let found = ["iax1/wq1.0 may not be used by this user", "/dev/iax/wq1.0"];
    one_problem(
        &machine.doctor_for_another(),
        "queue",
        &found,
        &["chown \"$USER\" /dev/iax/wq1.0"],
    );
    fs::set_permissions(&node, Permissions::from_mode(0o666)).unwrap();
    machine.doctor_for_another().succeeded();
    machine.remove("dev/iax/wq1.0");
    let found = ["has no device file /dev/iax/wq1.0"];
    one_problem(&machine.doctor(&["--json"]), "queue", &found, &["--driver-name=user"]);
    machine.set_bus("wq1.0/driver_name", "user");
    one_problem(&machine.doctor(&["--json"]), "queue", &found, &["ls -lR /dev/iax"]);
}

#[test]
fn a_queue_that_does_not_block_on_faults_is_a_warning() {
    let machine = Machine::well();
    machine.set_bus("wq1.0/prs_disable", "1");
    let found = ["prs_disable is 1, which overrides block_on_fault"];
    one_warning(
        &machine.doctor(&["--json"]),
        "queue",
        &found,
        &["--driver-name=user --prs-disable=0"],
    );
    machine.set_bus("wq1.0/prs_disable", "0");
    machine.set_bus("wq1.0/block_on_fault", "0");
    let ended = machine.doctor(&["--json"]);
    one_warning(&ended, "queue", &["iax1/wq1.0: block_on_fault is 0"], &["--block-on-fault=1"]);
    assert_eq!(ended.json()["verdict"], "QPL's hardware path can be used here, with 1 warning");
}

#[test]
fn values_that_are_none_are_said_with_their_file() {
    for (file, value, expected) in [
        ("iax1/state", "on fire", "not enabled or disabled"),
        ("iax1/max_work_queues_size", "-1", "not a number"),
        ("wq1.0/state", "", "not enabled or disabled"),
        ("wq1.0/mode", "both", "not shared or dedicated"),
        ("wq1.0/type", "mdev", "not none, kernel or user"),
        ("wq1.0/size", "many", "not a number"),
        ("wq1.0/threshold", "99999999999999999999", "not a number"),
        ("wq1.0/group_id", "-2", "not a number or -1"),
        ("wq1.0/block_on_fault", "2", "not 0 or 1"),
        ("wq1.0/prs_disable", "\u{1b}[2J", "not 0 or 1"),
    ] {
        let machine = Machine::well();
        machine.set_bus(file, value);
        let ended = machine.doctor(&["--json"]);
        one_problem(&ended, "device", &[file, &format!("says '{value}'"), expected], &[]);
        let text = machine.doctor(&[]).stdout;
        assert!(!text.contains('\u{1b}'), "{text}");
    }
}

#[test]
fn values_that_are_missing_or_unreadable_are_said_with_their_file() {
    for file in ["iax1/pasid_enabled", "wq1.0/state", "wq1.0/size"] {
        let machine = Machine::well();
        let path = format!("sys/bus/dsa/devices/{file}");
        machine.remove(&path);
        one_problem(&machine.doctor(&["--json"]), "device", &[file, "is missing"], &[]);
        fs::create_dir(machine.path(&path)).unwrap();
        one_problem(&machine.doctor(&["--json"]), "device", &[file, "cannot be read"], &[]);
    }
    // An engine less does no harm while there are others.
    let machine = Machine::well();
    machine.set_bus("engine1.3/group_id", "none");
    let ended = machine.doctor(&["--json"]);
    one_warning(&ended, "device", &["engine1.3/group_id", "'none'"], &[]);
    assert!(machine.doctor(&[]).stdout.contains("7 engines"));
}

#[test]
fn a_libqpl_that_is_named_and_cannot_be_used_is_a_problem_even_without_a_device() {
    let machine = Machine::well();
    machine.install_libqpl("1.4.9");
    let words = ["is version 1.4.9", "1.5 or later is needed"];
    one_problem(&machine.doctor(&["--json"]), "libqpl", &words, &["unset QPL_LIBRARY"]);
    machine.remove("libqpl.so.1");
    let ended = machine.doctor(&["--json"]);
    one_problem(&ended, "libqpl", &["libqpl.so.1 cannot be loaded"], &["unset QPL_LIBRARY"]);
    machine.remove("sys/bus");
    let report = machine.doctor(&["--json"]).json();
    let subjects: Vec<_> = faults(&report).iter().map(|fault| fault["subject"].clone()).collect();
    assert_eq!(subjects, ["iaa", "libqpl"]);
}

#[test]
fn what_the_advisory_on_portals_means_is_said_to_who_has_not_the_capability() {
    let machine = Machine::well();
    machine.set("proc/self/status", "CapEff:\t0000000000000000");
    let submission = |text: &str| {
        let at = text.find("submission: ").unwrap_or_else(|| panic!("{text}"));
        text[at..].split("\n\n").next().unwrap().to_owned()
    };
    let said = submission(&machine.doctor(&[]).succeeded().stdout);
    assert!(said.contains("Linux 6.8 may have the fix for INTEL-SA-01084"), "{said}");
    machine.set("proc/sys/kernel/osrelease", "6.12.1");
    let said = submission(&machine.doctor(&[]).succeeded().stdout);
    assert!(said.contains("Linux 6.12 lets no process without CAP_SYS_RAWIO"), "{said}");
    // It takes a libqpl that can do without the mapping.
    machine.install_libqpl("1.5.0");
    one_warning(&machine.doctor(&["--json"]), "submission", &["INTEL-SA-01084"], &[]);
}
