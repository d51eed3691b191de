//! Devices and queues that are not set up as QPL needs them.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use serde_json::json;

use super::machine::{Machine, faults};
use super::{one_problem, one_warning};

const CONFIG_WQ: &str = "accel-config config-wq iax1/wq1.0 --group-id=0 --wq-size=128 --priority=10 \
    --block-on-fault=1 --threshold=128 --type=user --mode=shared --name=qpl --driver-name=user";

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
        ("type", "none", "has type none"),
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
