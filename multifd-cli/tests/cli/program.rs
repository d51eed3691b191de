//! What the program says of itself.

use crate::common::multifd;

#[test]
fn codecs_are_listed_with_library_and_levels() {
    let table = multifd(&["codecs"]).succeeded().stdout;
    assert!(table.contains("zlib") && table.contains("0 to 9, default 1"), "{table}");
    let list = multifd(&["codecs", "--json"]).succeeded().json();
    let list = list.as_array().unwrap();
    let flags: Vec<_> = list.iter().map(|codec| codec["flags"].as_u64().unwrap()).collect();
    assert_eq!(flags[..4], [0, 2, 4, 8]);
    assert!(list.iter().all(|codec| codec["available"] == true && codec["by"].is_string()));
}

#[test]
fn the_conformance_suite_runs_and_none_passes() {
    let report = multifd(&["conformance", "none", "--json"]).succeeded().json();
    let report = &report.as_array().unwrap()[0];
    assert_eq!((&report["codec"], &report["conforms"]), (&"none".into(), &true.into()));
    assert!(report["passed"].as_u64() > Some(20));
    assert_eq!(report["failed"], 0);
}

#[test]
fn help_of_every_command_has_an_example() {
    for command in
        ["demo", "send", "recv", "decode", "codecs", "conformance", "doctor", "completions"]
    {
        let help = multifd(&[command, "--help"]).succeeded().stdout;
        assert!(help.contains("Example") && help.contains("  multifd "), "{help}");
    }
}

#[test]
fn every_shell_gets_its_completions() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = multifd(&["completions", shell]).succeeded().stdout;
        assert!(script.contains("zero-page-detection"), "{shell}");
    }
}
