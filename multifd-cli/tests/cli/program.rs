//! What the program says of itself.

use std::fs;

use crate::common::{multifd, names, recordings, text};

#[test]
fn codecs_are_listed_with_library_and_levels() {
    let table = multifd(&["codecs"]).succeeded().stdout;
    assert!(table.contains("zlib") && table.contains("0 to 9, default 1"), "{table}");
    let list = multifd(&["codecs", "--json"]).succeeded().json();
    let list = list.as_array().unwrap();
    let flags: Vec<_> = list.iter().map(|codec| codec["flags"].as_u64().unwrap()).collect();
    assert_eq!(flags[..6], [0, 2, 4, 8, 16, 32]);
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

/// The program's commands.
const COMMANDS: [&str; 13] = [
    "demo",
    "send",
    "recv",
    "relay",
    "decode",
    "show",
    "inspect",
    "plan",
    "codecs",
    "conformance",
    "doctor",
    "completions",
    "man",
];

#[test]
fn help_of_every_command_has_its_exit_statuses() {
    for command in COMMANDS {
        let help = multifd(&[command, "--help"]).succeeded().stdout;
        let (_, statuses) = help.split_once("\nExit status:\n").unwrap_or_else(|| panic!("{help}"));
        for status in ["  0 ", "  1 ", "  2 "] {
            assert!(statuses.contains(status), "{command}: {statuses}");
        }
    }
    for command in ["send", "relay"] {
        let help = multifd(&[command, "--help"]).succeeded().stdout;
        assert!(help.contains("\n  3      unclear: the destination may have the VM"), "{help}");
    }
}

#[test]
fn every_command_has_a_man_page_that_says_what_its_help_says() {
    let folder = tempfile::tempdir().unwrap();
    multifd(&["man", text(folder.path())]).succeeded();
    let pages = names(folder.path());
    assert!(pages.contains(&"multifd.1".to_owned()), "{pages:?}");
    for command in COMMANDS {
        let page = fs::read_to_string(folder.path().join(format!("multifd-{command}.1"))).unwrap();
        assert!(page.contains(".SH NAME") && page.contains("Exit status:"), "{command}: {page}");
    }
    let send = fs::read_to_string(folder.path().join("multifd-send.1")).unwrap();
    assert!(send.contains("zero\\-page\\-detection") && send.contains("legacy"), "{send}");
    multifd(&["man", "/nonexistent"]).failed_saying(&["/nonexistent", "check the path"]);
}

#[test]
fn the_commonest_options_have_short_names() {
    let folder = tempfile::tempdir().unwrap();
    let (vm, ram) = (folder.path().join("vm"), folder.path().join("ram"));
    multifd(&["decode", text(&recordings()[0]), "-t", text(&vm)]).succeeded();
    fs::write(&ram, crate::common::memory(10)).unwrap();
    for from in [["-f", text(&vm)], ["-r", text(&ram)]] {
        let agreed = ["-c", "zstd", "-n", "3"];
        let image = folder.path().join(from[0]);
        let listen = ["-l", "tcp:127.0.0.1:0", "-t", text(&image)];
        let (recv, uri) = crate::common::Running::recv(&[&listen[..], &agreed].concat());
        multifd(&[&["send", "-t", &uri][..], &from, &agreed].concat()).succeeded();
        recv.wait().succeeded();
    }
}

#[test]
fn sizes_times_and_speeds_are_written_as_people_write_them() {
    let plan = ["plan", "-c", "none", "-n", "2", "--json", "--size", "1.5G"];
    let speeds = ["25Gbps", "25Gbit/s", "3.125GB/s"].map(|speed| {
        let options = ["--link-bandwidth", speed, "--setup-time", "0.3s", "--sample", "8"];
        multifd(&[&plan[..], &options].concat()).succeeded().json()
    });
    assert_eq!(speeds[0]["ram_bytes"], 3_u64 << 29);
    assert_eq!(speeds[0]["parameters"], speeds[1]["parameters"]);
    assert_eq!(speeds[0]["parameters"], speeds[2]["parameters"]);
    assert_eq!(speeds[0]["parameters"]["setup_ns"], 300_000_000);
    for time in ["soon", "0ms", "3 days"] {
        let recv = ["recv", "-l", "tcp::0", "-t", "vm", "--channel-timeout", time];
        let ended = multifd(&recv);
        assert_eq!(ended.status, Some(2), "{ended:?}");
        assert!(ended.stderr.contains("300ms, 1.5s or 2m"), "{ended:?}");
    }
}
