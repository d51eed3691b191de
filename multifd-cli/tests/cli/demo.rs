//! `multifd demo`.

use std::fs;

use crate::common::{multifd, text};

#[test]
fn every_codec_moves_made_up_memory_and_every_page_is_equal() {
    let report = multifd(&["demo", "--size", "32M", "--json"]).succeeded().json();
    assert_eq!(report["equal"], true);
    let codecs = report["codecs"].as_array().unwrap();
    let names: Vec<_> = codecs.iter().map(|codec| codec["codec"].as_str().unwrap()).collect();
    assert_eq!(names[..6], ["none", "zlib", "zstd", "qpl", "uadk", "qatzip"]);
    for codec in codecs {
        assert_eq!(codec["equal"], true, "{codec}");
        assert_eq!(codec["pages_compared"], 8192);
        assert!(codec["guest_bytes"].as_u64().unwrap() > 32 << 20, "dirty pages are sent again");
        assert!(codec["zero_pages"].as_u64().unwrap() > 2000);
        // With 1344 bytes for 128 pages, packets alone are 0.3 % of the memory.
        assert!(codec["wire_bytes"].as_u64() > codec["payload_bytes"].as_u64());
        let ratio = codec["ratio"].as_f64().unwrap();
        assert!(if codec["codec"] == "none" { ratio == 1.0 } else { ratio > 1.2 }, "{codec}");
    }
}

#[test]
fn a_file_is_migrated_and_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("guest.ram");
    let memory = crate::common::memory(1000);
    fs::write(&path, &memory).unwrap();
    let args = ["demo", "--ram", text(&path), "--channels", "2", "--compression", "zstd,zlib"];
    let ended = multifd(&args).succeeded();
    assert_eq!(ended.stdout.matches("all equal").count(), 2, "{}", ended.stdout);
    assert!(ended.stderr.is_empty(), "no progress bar in a pipe: {}", ended.stderr);
    assert!(fs::read(&path).unwrap() == memory);
    assert_eq!(crate::common::names(folder.path()), ["guest.ram"]);
}

#[test]
fn a_file_that_is_missing_empty_or_no_number_of_pages_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("guest.ram");
    multifd(&["demo", "--ram", text(&path)]).failed_saying(&["guest.ram", "; check the path"]);
    multifd(&["demo", "--ram", text(folder.path())]).failed_saying(&["it is not a file"]);
    for bytes in [0, 4095, 4097] {
        fs::write(&path, vec![0; bytes]).unwrap();
        let bytes = format!("{bytes} bytes");
        multifd(&["demo", "--ram", text(&path)]).failed_saying(&[&bytes, "4 KiB; "]);
    }
}

#[test]
fn a_level_that_no_codec_has_is_a_usage_error() {
    for args in [
        ["--compression", "none", "--level", "1"],
        ["--compression", "zlib", "--level", "10"],
        ["--compression", "zstd,zlib", "--level", "-1"],
    ] {
        let ended = multifd(&[&["demo", "--size", "4K"][..], &args].concat());
        assert_eq!(ended.status, Some(2), "{ended:?}");
        assert!(ended.stderr.contains("level"), "{ended:?}");
    }
}

#[test]
fn a_level_is_used_by_the_codecs_that_have_it() {
    let args = ["demo", "--size", "4M", "--level", "3", "--json"];
    let report = multifd(&args).succeeded().json();
    let levels: Vec<_> = report["codecs"].as_array().unwrap()[..4]
        .iter()
        .map(|codec| codec["level"].as_i64())
        .collect();
    assert_eq!(levels, [None, Some(3), Some(3), None]);
}
