//! QPL with and without libqpl.

use std::fs;

use crate::common::{Ended, command, run, text};

const VARIABLE: &str = "QPL_LIBRARY";

fn with_library(library: &str, args: &[&str]) -> Ended {
    run(command(args).env(VARIABLE, library))
}

/// The row of QPL in `multifd codecs --json`.
fn listed(ended: &Ended) -> (bool, String) {
    let codecs = ended.json();
    let qpl = codecs.as_array().unwrap().iter().find(|codec| codec["codec"] == "qpl").unwrap();
    (qpl["available"].as_bool().unwrap(), qpl["by"].as_str().unwrap().to_owned())
}

#[test]
fn a_library_that_is_named_and_cannot_be_used_is_an_error_that_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("libqpl.so.1");
    fs::write(&file, "no library").unwrap();
    for (library, why) in [
        ("/nowhere/libqpl.so.1", "No such file"),
        (text(folder.path()), "cannot be loaded as libqpl"),
        (text(&file), "cannot be loaded as libqpl"),
        ("libc.so.6", "is not libqpl"),
    ] {
        let (available, by) = listed(&with_library(library, &["codecs", "--json"]).succeeded());
        assert!(!available && by.contains(library) && by.contains(why), "{by}");
        let args = ["demo", "--size", "1M", "--compression", "qpl"];
        let ended = with_library(library, &args);
        ended.failed_saying(&["qpl is not available", library, why, "see multifd codecs"]);
        // Other codecs go on.
        with_library(library, &["demo", "--size", "1M"]).succeeded();
    }
}

#[test]
fn without_a_library_that_is_named_there_is_always_a_path() {
    let unset = run(command(&["codecs", "--json"]).env_remove(VARIABLE)).succeeded();
    for ended in [unset, with_library("", &["codecs", "--json"]).succeeded()] {
        let (available, by) = listed(&ended);
        let known = by.starts_with("portable: ") || by.starts_with("software: libqpl 1.");
        assert!(available && known, "{by}");
    }
}

#[test]
fn the_demo_counts_pages_by_engine() {
    let args = ["demo", "--size", "8M", "--compression", "qpl", "--json"];
    let report = run(command(&args).env_remove(VARIABLE)).succeeded().json();
    let qpl = &report["codecs"][0];
    let counts = qpl["codec_stats"].as_object().unwrap();
    let pages: u64 = counts.values().map(|count| count.as_u64().unwrap()).sum();
    assert_eq!(Some(pages), qpl["normal_pages"].as_u64(), "{counts:?}");
    assert!(counts["raw pages"].as_u64() < Some(pages / 2), "{counts:?}");
}

#[test]
fn an_option_that_cannot_be_honoured_is_an_error_before_anything_connects() {
    let settings = [("QPL_SIM_VERSION", "1.5.0")];
    for command in ["send --from vm --to tcp:localhost:1", "recv --listen tcp::0 --to vm"] {
        let args = format!("{command} --compression qpl --qpl-numa any");
        let args: Vec<_> = args.split(' ').collect();
        with_iaa(&settings, &args).failed_saying(&["does not know the NUMA policy any"]);
    }
}

/// Queues so deep that only faults make them busy, however slow this machine is.
const DEEP: [(&str, &str); 2] = [("IAA_SIM_QUEUES", "16"), ("IAA_SIM_QUEUE_DEPTHS", "256")];

/// Runs the program with a simulated IAA, set up by `settings`.
fn with_iaa(settings: &[(&str, &str)], args: &[&str]) -> Ended {
    let mut command = command(args);
    command.env(VARIABLE, qpl_sim::library_file().unwrap());
    run(command.envs(settings.iter().copied()))
}

#[test]
fn the_demo_verifies_on_four_devices_with_faults_of_every_kind() {
    let faults = ["QUEUE_FULL", "PAGE_FAULT", "ERROR", "WRONG_OUTPUT_SIZE"];
    let faults = faults.map(|fault| format!("IAA_SIM_{fault}"));
    let mut settings: Vec<_> = faults.iter().map(|fault| (&fault[..], "0.05")).collect();
    settings.extend([("IAA_SIM_PAGE_FAULT_AGAIN", "1"), ("IAA_SIM_DEVICES", "4")]);
    settings.extend(DEEP);
    let args =
        ["demo", "--size", "16M", "--compression", "qpl", "--qpl-path", "hardware", "--json"];
    let report = with_iaa(&settings, &args).succeeded().json();
    let qpl = &report["codecs"][0];
    assert_eq!(qpl["equal"], true);
    for end in ["codec_stats", "destination_codec_stats"] {
        let count = |name: &str| qpl[end][name].as_u64().unwrap();
        let fallen_back = count("software pages (busy)") + count("software pages (fault)");
        assert!(fallen_back > 0 && count("hardware pages") > 5 * fallen_back, "{}", qpl[end]);
    }
}

#[test]
fn the_counts_of_both_ends_are_shown() {
    let args = ["demo", "--size", "4M", "--compression", "qpl", "--qpl-path", "hardware"];
    let ended = with_iaa(&DEEP, &args).succeeded();
    for end in ["qpl, source: ", "qpl, destination: "] {
        let line = ended.stdout.lines().find(|line| line.starts_with(end)).unwrap();
        assert!(line.contains(" hardware pages") && !line.contains("software"), "{line}");
    }
}

#[test]
fn an_iaa_that_is_asked_for_and_not_there_is_an_error_that_says_so() {
    let none = [("IAA_SIM_DEVICES", "0")];
    for command in ["demo", "send --from vm --to tcp:localhost:1", "recv --listen tcp::0 --to vm"] {
        let args = format!("{command} --compression qpl --qpl-path hardware");
        let args: Vec<_> = args.split(' ').collect();
        let says = ["no IAA can be used: no IAA work queue is enabled", "see multifd doctor"];
        with_iaa(&none, &args).failed_saying(&says);
    }
    let (available, by) = listed(&with_iaa(&none, &["codecs", "--json"]).succeeded());
    assert!(available && by.starts_with("software: ") && by.contains("no IAA can be used"), "{by}");
}
