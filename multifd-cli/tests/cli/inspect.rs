//! `multifd inspect`.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::common::{command, multifd, names, recordings, run, text};

/// A copy of a recording that can be changed.
fn copy(recording: &Path, to: &Path) -> PathBuf {
    fs::create_dir(to).unwrap();
    for name in names(recording) {
        fs::write(to.join(&name), fs::read(recording.join(&name)).unwrap()).unwrap();
    }
    to.to_owned()
}

fn named(name: &str) -> PathBuf {
    recordings().into_iter().find(|path| path.ends_with(name)).unwrap()
}

fn lines(stdout: &str) -> Vec<Value> {
    stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn every_recording_of_a_qemu_is_found_to_be_right() {
    for recording in recordings() {
        let ended = multifd(&["inspect", text(&recording)]).succeeded();
        let capture = fs::read(recording.join("capture.json")).unwrap();
        let capture: Value = serde_json::from_slice(&capture).unwrap();
        let machine = capture["machine"].as_str().unwrap();
        assert!(ended.stdout.starts_with(machine), "{}", ended.stdout);
        let last = ended.stdout.lines().last().unwrap();
        assert!(last.starts_with("nothing is wrong"), "{last}");
    }
}

#[test]
fn json_lines_are_the_packets_and_a_summary_that_adds_them_up_and_json_is_the_summary() {
    for recording in recordings() {
        let ended = multifd(&["inspect", text(&recording), "--json-lines"]).succeeded();
        let mut lines = lines(&ended.stdout);
        let summary = lines.pop().unwrap();
        assert_eq!(summary["kind"], "summary");
        let alone = multifd(&["inspect", text(&recording), "--json"]).succeeded().json();
        assert_eq!(alone, summary);
        assert!(lines.iter().all(|line| line["kind"] == "packet" && line["seconds"].is_null()));
        for field in ["packets", "normal_pages", "zero_pages", "payload_bytes"] {
            let sum: u64 = lines.iter().map(|line| line[field].as_u64().unwrap()).sum();
            assert_eq!(summary["total"][field], sum, "{field}");
        }
        assert_eq!(summary["errors"], 0);
        let block = &summary["blocks"][0];
        assert_eq!((&block["name"], &block["sent"]), (&"pc.ram".into(), &1024.into()));
    }
}

#[test]
fn a_broken_recording_is_said_to_be_by_place_and_exit_status() {
    let folder = tempfile::tempdir().unwrap();
    let broken = copy(&named("zlib"), &folder.path().join("broken"));
    let path = broken.join("channel1.bin");
    let mut bytes = fs::read(&path).unwrap();
    bytes[8] ^= 1;
    let end = bytes.len() - 5;
    bytes.truncate(end);
    fs::write(&path, bytes).unwrap();
    let ended = multifd(&["inspect", text(&broken)]);
    assert_eq!(ended.status, Some(1), "{ended:?}");
    let last: Vec<_> = ended.stdout.lines().rev().take(3).collect();
    assert!(last[0].starts_with("2 errors"), "{last:?}");
    let place = format!("error: channel 1, byte {end}, packet ");
    assert!(last[1].starts_with(&place) && last[1].contains("5 bytes are missing"), "{last:?}");
    assert!(
        last[2].starts_with("error: channel 1, byte 8: the channel has the VM's UUID"),
        "{last:?}"
    );

    let ended = multifd(&["inspect", text(&broken), "--json"]);
    assert_eq!(ended.status, Some(1));
    let summary = ended.json();
    let codes: Vec<_> = summary["findings"].as_array().unwrap().iter().collect();
    assert_eq!((&codes[0]["code"], &codes[0]["offset"]), (&"uuid".into(), &8.into()));
    assert_eq!((&codes[1]["code"], &codes[1]["channel"]), (&"cut".into(), &1.into()));
}

#[test]
fn all_packets_are_listed_between_the_summary_and_the_findings() {
    let recording = named("qemu-7.2-zlib");
    let without = multifd(&["inspect", text(&recording)]).succeeded().stdout;
    let with = multifd(&["inspect", text(&recording), "--packets"]).succeeded().stdout;
    let table = with.lines().skip_while(|line| !line.starts_with("channel   packet"));
    let rows: Vec<_> = table.skip(1).take_while(|line| !line.is_empty()).collect();
    assert_eq!(rows.len(), 14);
    assert!(
        rows.iter().any(|row| row.contains("sync zlib") && row.ends_with("/rom@etc/acpi/rsdp"))
    );
    let mut shared = with.lines().filter(|line| !rows.contains(line));
    let missing = without.lines().find(|line| !shared.any(|other| other == *line));
    assert_eq!(missing, None, "{with}");
}

#[test]
fn a_peers_control_characters_are_not_printed() {
    let folder = tempfile::tempdir().unwrap();
    let recording = copy(&named("zlib"), &folder.path().join("hostile"));
    for name in ["main.bin", "channel0.bin", "channel1.bin"] {
        let bytes = fs::read(recording.join(name)).unwrap();
        let mut changed = bytes.clone();
        for at in 0..bytes.len() - 6 {
            if &bytes[at..at + 6] == b"pc.ram" {
                changed[at..at + 6].copy_from_slice("\u{1b}\u{202e}ra".as_bytes());
            }
        }
        fs::write(recording.join(name), changed).unwrap();
    }
    let is_harmless = |text: &str| !text.contains(['\u{1b}', '\u{202e}']);
    let ended = multifd(&["inspect", text(&recording), "--packets"]);
    assert!(ended.stdout.contains(r"\u{1b}\u{202e}ra") && is_harmless(&ended.stdout));
    let ended = multifd(&["inspect", text(&recording), "--json"]);
    assert!(ended.stdout.contains(r"\u001b\u202era") && is_harmless(&ended.stdout));
    // Logs and errors say the name as well.
    let image = folder.path().join("vm");
    let args = ["decode", text(&recording), "--to", text(&image), "-vv"];
    let ended = multifd(&[&args[..], &["--ram-limit", "1M"]].concat());
    assert!(is_harmless(&ended.stderr), "{ended:?}");
}

#[test]
fn a_chart_shows_every_channel_and_says_that_there_are_no_times() {
    let folder = tempfile::tempdir().unwrap();
    let chart = folder.path().join("chart.svg");
    for (name, channels, words) in [("zstd", 3, "normal"), ("qpl", 2, "compressed")] {
        let recording = named(name);
        multifd(&["inspect", text(&recording), "--chart", text(&chart)]).succeeded();
        let svg = fs::read_to_string(&chart).unwrap();
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
        let labels: Vec<_> = svg.lines().map(str::trim).collect();
        for channel in 0..channels {
            assert!(labels.contains(&format!("channel {channel}").as_str()), "{name}");
        }
        assert!(labels.contains(&words) && labels.contains(&"zero"), "{name}");
        assert!(svg.contains("a recording has no times"), "{name}");
    }
    let nowhere = folder.path().join("missing/chart.svg");
    multifd(&["inspect", text(&named("zstd")), "--chart", text(&nowhere)])
        .failed_saying(&["missing/chart.svg", "check the path"]);
}

#[test]
fn an_image_is_shown_by_blocks_and_devices() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("vm");
    multifd(&["decode", text(&named("zlib")), "--to", text(&image)]).succeeded();
    let ended = multifd(&["inspect", text(&image)]).succeeded();
    for words in ["pc-i440fx-10.0", "pc.ram", "globalstate", "nothing is wrong"] {
        assert!(ended.stdout.contains(words), "{words}: {}", ended.stdout);
    }
    let json = multifd(&["inspect", text(&image), "--json"]).succeeded().json();
    let line = multifd(&["inspect", text(&image), "--json-lines"]).succeeded();
    assert_eq!(lines(&line.stdout), std::slice::from_ref(&json));
    let ram = fs::read(image.join("pc.ram")).unwrap();
    let zero = ram.chunks(4096).filter(|page| page.iter().all(|&byte| byte == 0)).count();
    assert_eq!(json["blocks"][0]["zero_pages"], zero);
    let devices = json["device_state"]["sections"].as_array().unwrap();
    assert_eq!(devices.len(), 30);

    let mut ram = ram;
    ram[0] ^= 1;
    fs::write(image.join("pc.ram"), ram).unwrap();
    let ended = multifd(&["inspect", text(&image)]);
    assert_eq!(ended.status, Some(1), "{ended:?}");
    assert!(ended.stdout.contains("WRONG") && ended.stdout.contains("it is damaged"));
}

#[test]
fn what_an_image_does_not_have_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("vm");
    multifd(&["decode", text(&named("zlib")), "--to", text(&image)]).succeeded();
    for option in [&["--packets"][..], &["--chart", "x.svg"]] {
        let ended = multifd(&[&["inspect", text(&image)], option].concat());
        assert_eq!(ended.status, Some(2), "{ended:?}");
        assert!(ended.stderr.contains("has no packets"), "{ended:?}");
    }
    let nothing = folder.path().join("nothing");
    multifd(&["inspect", text(&nothing)]).failed_saying(&["/nothing", "check the path"]);
    fs::create_dir(&nothing).unwrap();
    let words = "not a VM image or a recording: it has no vm.json and no main.bin";
    multifd(&["inspect", text(&nothing)]).failed_saying(&[words]);
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let recording = named("zlib");
    let script =
        format!("{} inspect {} --json | head -n 1", crate::common::PROGRAM, text(&recording));
    let ended = run(std::process::Command::new("sh").args(["-c", &script]));
    assert!(ended.status == Some(0) && ended.stderr.is_empty(), "{ended:?}");
    assert_eq!(run(&mut command(&["inspect", "--help"])).status, Some(0));
}
