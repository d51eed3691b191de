//! `multifd decode`.

use std::fs;
use std::path::Path;

use crate::common::{multifd, recordings, text};
use serde_json::Value;

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

#[test]
fn every_recording_of_a_qemu_gives_the_ram_that_it_sent() {
    let folder = tempfile::tempdir().unwrap();
    for recording in recordings() {
        let image = folder.path().join(recording.file_name().unwrap());
        let args = ["decode", text(&recording), "--to", text(&image), "--json"];
        let report = multifd(&args).succeeded().json();

        let capture = json(&recording.join("capture.json"));
        let vm = json(&image.join("vm.json"));
        assert_eq!(report["vm"], vm);
        assert_eq!(vm["machine"], capture["machine"]);
        let ram = vm["blocks"].as_array().unwrap().iter();
        let ram = ram.clone().find(|block| block["name"] == capture["ram_block"]).unwrap();
        assert_eq!(ram["bytes"], capture["ram_bytes"]);
        assert_eq!(ram["sha256"], capture["ram_sha256"], "{}", recording.display());
        assert_eq!(report["normal_pages"], capture["normal_pages"]);
        assert_eq!(report["zero_pages"], capture["zero_pages"]);
    }
}

#[test]
fn a_folder_that_is_no_recording_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("vm");
    let decode = |folder: &Path| multifd(&["decode", text(folder), "--to", text(&image)]);
    let recording = folder.path().join("recording");
    decode(&recording).failed_saying(&["/recording", "check the path"]);
    fs::create_dir(&recording).unwrap();
    decode(&recording).failed_saying(&["not a recording: it has no main.bin"]);
    fs::write(recording.join("main.bin"), "GET / HTTP/1.1\r\n\r\n").unwrap();
    decode(&recording).failed_saying(&["no channel0.bin"]);
    fs::write(recording.join("channel0.bin"), "").unwrap();
    decode(&recording).failed_saying(&["main.bin", "QEVM"]);
    fs::write(recording.join("channel2.bin"), "").unwrap();
    decode(&recording).failed_saying(&["channel1.bin"]);
    decode(&recording.join("main.bin")).failed_saying(&["main.bin", "HTTP"]);
    assert_eq!(crate::common::names(folder.path()), ["recording"]);
}

#[test]
fn a_file_of_another_kind_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (file, image) = (folder.path().join("file"), folder.path().join("vm"));
    let mapped_ram = b"QEVM\0\0\0\x03\x07\0\0\0\x02pc\x05\x1aconfiguration/capabilities\
        \0\0\0\x01\0\0\0\x01\x0amapped-ram\x01";
    for (bytes, words) in [
        (&b"LibvirtQemudSave\x02"[..], &["virsh save", "name it libvirt:"][..]),
        (mapped_ram, &["mapped-ram", "name it qemu-file:"]),
        (b"\x16\x03\x01\x02\0\x01", &["TLS", "turn TLS off"]),
        (&fs::read(recordings()[0].join("main.bin")).unwrap(), &["the folder of"]),
    ] {
        fs::write(&file, bytes).unwrap();
        multifd(&["decode", text(&file), "--to", text(&image)]).failed_saying(words);
        multifd(&["inspect", text(&file)]).failed_saying(words);
    }
}

#[test]
fn a_recording_that_is_cut_off_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let recording = folder.path().join("recording");
    fs::create_dir(&recording).unwrap();
    for file in ["main.bin", "channel0.bin", "channel1.bin"] {
        for other in ["main.bin", "channel0.bin", "channel1.bin"] {
            let mut bytes = fs::read(recordings()[0].join(other)).unwrap();
            bytes.truncate(if file == other { bytes.len() / 2 } else { bytes.len() });
            fs::write(recording.join(other), bytes).unwrap();
        }
        let image = folder.path().join("vm");
        multifd(&["decode", text(&recording), "--to", text(&image)]).failed_saying(&[]);
        assert_eq!(crate::common::names(folder.path()), ["recording"]);
    }
}

#[test]
fn a_recording_without_its_last_channel_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (recording, image) = (folder.path().join("recording"), folder.path().join("vm"));
    fs::create_dir(&recording).unwrap();
    for file in ["main.bin", "channel0.bin"] {
        fs::copy(recordings()[0].join(file), recording.join(file)).unwrap();
    }
    let args = ["decode", text(&recording), "--to", text(&image), "--allow-missing-pages"];
    multifd(&args).failed_saying(&["packets were sent on a channel that is not here"]);
    assert_eq!(crate::common::names(folder.path()), ["recording"]);
}

#[test]
fn a_recording_in_which_a_page_was_never_sent_is_taken_only_if_that_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let (recording, image) = (folder.path().join("recording"), folder.path().join("vm"));
    fs::create_dir(&recording).unwrap();
    let none = recordings().into_iter().find(|folder| folder.ends_with("none")).unwrap();
    for file in ["main.bin", "channel0.bin", "channel1.bin"] {
        fs::copy(none.join(file), recording.join(file)).unwrap();
    }
    // The first packet with zero pages has one less.
    let mut channel = fs::read(recording.join("channel0.bin")).unwrap();
    let word =
        |channel: &[u8], at: usize| u32::from_be_bytes(channel[at..at + 4].try_into().unwrap());
    let mut at = 64;
    while word(&channel, at + 32) == 0 {
        at += 1344 + word(&channel, at + 16) as usize * 4096;
    }
    let zero_pages = word(&channel, at + 32) - 1;
    channel[at + 32..at + 36].copy_from_slice(&zero_pages.to_be_bytes());
    fs::write(recording.join("channel0.bin"), channel).unwrap();
    let args = ["decode", text(&recording), "--to", text(&image)];
    multifd(&args).failed_saying(&["1 pages of the VM never arrived", "--allow-missing-pages"]);
    assert_eq!(crate::common::names(folder.path()), ["recording"]);
    multifd(&[&args[..], &["--allow-missing-pages"]].concat()).succeeded();
}
