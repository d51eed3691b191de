//! Files that do not say what they should.

use std::fs;

use super::machine::Machine;
use super::{one_problem, one_warning};

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
