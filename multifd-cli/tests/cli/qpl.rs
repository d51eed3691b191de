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
    let qpl = codecs.as_array().unwrap().iter().find(|codec| codec["name"] == "qpl").unwrap();
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
