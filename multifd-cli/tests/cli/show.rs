//! `multifd show`. That a QEMU takes what it prints is tested with QEMUs, in `interop`.

use std::fs;
use std::path::{Path, PathBuf};

use crate::common::{Ended, Running, memory, multifd, recordings, text};

/// The image of a recording.
fn decoded(folder: &Path, recording: &str) -> PathBuf {
    let recordings = recordings();
    let recording = recordings.iter().find(|path| path.ends_with(recording)).unwrap();
    let image = folder.join("vm");
    multifd(&["decode", text(recording), "--to", text(&image)]).succeeded();
    image
}

#[track_caller]
fn assert_has_lines(shown: &Ended, lines: &[&str]) {
    for line in lines {
        assert!(shown.stdout.lines().any(|found| found == *line), "{line:?}: {}", shown.stdout);
    }
}

#[test]
fn an_image_is_shown_with_the_qemu_that_takes_it_and_how_to_send_it() {
    let folder = tempfile::tempdir().unwrap();
    let image = decoded(folder.path(), "zstd");
    let agreed = ["--compression", "zstd", "--channels", "4", "--listen", "unix:/run/vm"];
    let shown = multifd(&[&["show", text(&image)][..], &agreed].concat()).succeeded();
    let machine = "-machine pc-i440fx-10.0 -m 4M -uuid 01020304-0506-0708-090a-0b0c0d0e0f10";
    let send = format!(
        "multifd send --from {} --to unix:/run/vm --compression zstd --channels 4",
        text(&image)
    );
    assert_has_lines(
        &shown,
        &[
            "machine       pc-i440fx-10.0",
            "RAM block     pc.ram, 4 MiB",
            &format!("qemu-system-x86_64 {machine} -incoming defer"),
            "migrate_set_capability multifd on",
            "migrate_set_parameter multifd-channels 4",
            "migrate_set_parameter multifd-compression zstd",
            "migrate_incoming unix:/run/vm",
            &send,
        ],
    );
}

#[test]
fn an_image_of_an_older_machine_type_is_sent_as_older_qemus_understand() {
    let folder = tempfile::tempdir().unwrap();
    let image = decoded(folder.path(), "qemu-7.2-zlib");
    let shown = multifd(&["show", text(&image), "--json"]).succeeded().json();
    let send: Vec<_> = shown["send"].as_array().unwrap().iter().rev().take(2).collect();
    assert_eq!(send, ["legacy", "--zero-page-detection"]);
}

#[test]
fn a_qemu_for_an_image_that_was_advised_of_postcopy_is_to_expect_that() {
    let folder = tempfile::tempdir().unwrap();
    let image = decoded(folder.path(), "qemu-11.1-dirty-bitmaps");
    let shown = multifd(&["show", text(&image)]).succeeded();
    assert_has_lines(
        &shown,
        &["migrate_set_capability multifd on", "migrate_set_capability dirty-bitmaps on"],
    );
    let manifest = fs::read_to_string(image.join("vm.json")).unwrap();
    for said in
        ["\"version\": 2", "\"postcopy_advise\": \"dirty-bitmaps\"", "early-state-behind-start.bin"]
    {
        assert!(manifest.contains(said), "{said}: {manifest}");
    }
}

#[test]
fn ram_alone_is_not_accepted_by_any_qemu() {
    let folder = tempfile::tempdir().unwrap();
    let (file, image) = (folder.path().join("ram"), folder.path().join("vm"));
    fs::write(&file, memory(30)).unwrap();
    let (recv, uri) = Running::recv(&["--listen", "tcp:127.0.0.1:0", "--to", text(&image)]);
    multifd(&["send", "--ram", text(&file), "--to", &uri]).succeeded();
    recv.wait().succeeded();
    let shown = multifd(&["show", text(&image)]).succeeded();
    assert_has_lines(&shown, &["machine       none", "RAM block     pc.ram, 120 KiB"]);
    assert!(!shown.stdout.contains("qemu-system"), "{}", shown.stdout);
    let shown = multifd(&["show", text(&image), "--json"]).succeeded().json();
    assert!(shown["destination"].is_null(), "{shown}");
}

#[test]
fn what_is_no_image_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    multifd(&["show", text(folder.path())]).failed_saying(&["not a VM image", "no vm.json"]);
    multifd(&["show", text(&recordings()[0])]).failed_saying(&["it is a recording", "decode"]);
}
