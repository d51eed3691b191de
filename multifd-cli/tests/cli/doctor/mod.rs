//! `multifd doctor` on made-up machines.

mod machine;
mod platform;
mod setup;
mod values;

use machine::{Machine, faults};
use serde_json::{Value, json};

use crate::common::Ended;

/// Asserts that one thing keeps the hardware path from working: what it is, by `words` of the
/// finding, and its remedy, which has `commands` in that order.
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
fn simulated_devices_are_said_to_be_simulated_whatever_the_machine_has() {
    for has_iaa in [true, false] {
        let machine = Machine::well();
        if !has_iaa {
            machine.remove("sys/bus/dsa");
            machine.remove("sys/bus/pci/devices/0000:6a:02.0");
        }
        let report = machine.doctor_with_simulation(&["--json"]).succeeded().json();
        assert_eq!(report["verdict"], "QPL's hardware path can be used here, on simulated devices");
        let finding = &report["findings"][0];
        assert_eq!(finding["subject"], "iaa");
        let found = finding["found"].as_str().unwrap();
        assert!(found.starts_with("simulated (multifd-iaa-sim "), "{report:#}");
    }
}

#[test]
fn without_a_device_only_that_is_a_problem_and_codec_qpl_still_works() {
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
        text.contains("on the CPU, but slower")
            && text.contains("codec qpl works here, by ")
            && text.contains("codecs uadk and qatzip work here, on the CPU"),
        "{text}"
    );
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
    assert!(said.contains("Linux 6.8 may keep processes"), "{said}");
    machine.set("proc/sys/kernel/osrelease", "6.12.1");
    let said = submission(&machine.doctor(&[]).succeeded().stdout);
    assert!(said.contains("Linux 6.12 keeps processes"), "{said}");
    // It takes a libqpl that can do without the mapping.
    machine.install_libqpl("1.5.0");
    one_warning(&machine.doctor(&["--json"]), "submission", &["INTEL-SA-01084"], &[]);
}

#[test]
fn a_package_is_only_named_where_the_distribution_has_it() {
    let machine = Machine::well();
    machine.remove("libraries/libaccel-config.so.1");
    let debian = "sudo apt install libaccel-config1";
    for (release, command) in [
        ("ID=debian\nVERSION_ID=\"12\"", debian),
        ("ID=fedora\nVERSION_ID=43", "sudo dnf install accel-config"),
        ("ID=arch", "https://github.com/intel/idxd-config"),
    ] {
        machine.set("etc/os-release", release);
        let ended = machine.doctor(&["--json"]);
        one_problem(&ended, "libaccel-config", &["is not where"], &[command]);
        assert_eq!(ended.stdout.contains("apt"), command == debian, "{ended:?}");
    }
}
