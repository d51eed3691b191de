//! `multifd send` to `multifd recv`, in two processes.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::Path;

use crate::common::{PROGRAM, Running, assert_same_files, multifd, names, recordings, text};

/// Sends with `from`, receives into `to`, both with `agreed`.
fn migrate(from: &[&str], listen: &str, to: &Path, agreed: &[&str]) {
    let (recv, uri) =
        Running::recv(&[&["--listen", listen, "--to", text(to)][..], agreed].concat());
    let sent = multifd(&[&["send", "--to", &uri][..], from, agreed].concat());
    let received = recv.wait();
    assert!(sent.status == Some(0) && received.status == Some(0), "{sent:?}, {received:?}");
}

#[test]
fn an_image_that_is_sent_arrives_equal_over_tcp_and_unix_with_every_codec() {
    let folder = tempfile::tempdir().unwrap();
    let unix = format!("unix:{}", text(&folder.path().join("socket")));
    for (number, recording) in recordings().iter().enumerate() {
        let decoded = folder.path().join("decoded");
        multifd(&["decode", text(recording), "--to", text(&decoded), "--force"]).succeeded();
        let listen = if number % 2 == 0 { "tcp:127.0.0.1:0" } else { &unix };
        let codec = ["none", "zlib", "zstd"][number % 3];
        let channels = ["1", "2", "5"][number % 3];
        let arrived = folder.path().join("arrived");
        let from = ["--from", text(&decoded), "--verify"];
        let agreed = ["--compression", codec, "--channels", channels];
        migrate(&from, listen, &arrived, &agreed);
        assert_same_files(&decoded, &arrived);
        fs::remove_dir_all(arrived).unwrap();
    }
    assert_eq!(names(folder.path()), ["decoded"]);
}

#[test]
fn a_bare_ram_file_arrives_as_the_block_pc_ram() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("guest.ram");
    fs::write(&file, crate::common::memory(500)).unwrap();
    let image = folder.path().join("vm");
    for options in [
        &[][..],
        &["--zero-page-detection", "legacy"],
        &["--zero-page-detection", "none", "--no-return-path"],
        &["--uuid", "01020304-0506-0708-090a-0b0c0d0e0f10"],
    ] {
        let from = [&["--ram", text(&file)], options].concat();
        migrate(&from, "tcp:127.0.0.1:0", &image, &[]);
        assert_eq!(names(&image), ["device-state.bin", "pc.ram", "vm.json"]);
        assert!(fs::read(image.join("pc.ram")).unwrap() == fs::read(&file).unwrap());
        let manifest = fs::read_to_string(image.join("vm.json")).unwrap();
        assert_eq!(manifest.contains("01020304-0506"), options.contains(&"--uuid"));
        fs::remove_dir_all(&image).unwrap();
    }
}

#[test]
fn both_sides_report_what_they_moved_as_json() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("guest.ram");
    fs::write(&file, crate::common::memory(300)).unwrap();
    let image = folder.path().join("vm");
    let (recv, uri) =
        Running::recv(&["--listen", "tcp:127.0.0.1:0", "--to", text(&image), "--json"]);
    let sent = multifd(&["send", "--ram", text(&file), "--to", &uri, "--json"]).succeeded().json();
    let received = recv.wait().succeeded().json();
    for report in [&sent, &received] {
        assert_eq!((&report["normal_pages"], &report["zero_pages"]), (&200.into(), &100.into()));
        assert_eq!(report["guest_bytes"], 300 * 4096);
        assert_eq!(report["payload_bytes"], 200 * 4096);
    }
    assert_eq!(sent["wire_bytes"], received["wire_bytes"]);
    // The kernel counts in nanoseconds, and nobody connects for nothing.
    assert!(sent["cpu_seconds"].as_f64().unwrap() > 0.0, "{sent}");
}

#[test]
fn an_image_is_replaced_only_by_force_and_only_when_the_new_one_is_complete() {
    let folder = tempfile::tempdir().unwrap();
    let (one, other) = (&recordings()[0], &recordings()[1]);
    let image = folder.path().join("vm");
    multifd(&["decode", text(one), "--to", text(&image)]).succeeded();
    let before = fs::read(image.join("vm.json")).unwrap();

    multifd(&["decode", text(other), "--to", text(&image)]).failed_saying(&["--force"]);
    let broken = folder.path().join("broken");
    fs::create_dir(&broken).unwrap();
    for file in ["main.bin", "channel0.bin"] {
        fs::copy(other.join(file), broken.join(file)).unwrap();
    }
    let args = ["decode", text(&broken), "--to", text(&image), "--force"];
    multifd(&args).failed_saying(&["sent on a channel that is not here"]);
    assert!(fs::read(image.join("vm.json")).unwrap() == before);

    multifd(&["decode", text(other), "--to", text(&image), "--force"]).succeeded();
    assert!(fs::read(image.join("vm.json")).unwrap() != before);
    assert_eq!(names(folder.path()), ["broken", "vm"]);
}

#[test]
fn a_disk_that_is_full_fails_both_sides_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("guest.ram");
    fs::write(&file, crate::common::memory(500)).unwrap();
    let image = folder.path().join("vm");
    // No file may grow above 64 KiB, which fails a write as a full disk does; the signal would end
    // the program where a full disk does not.
    let limited = r#"trap "" XFSZ; ulimit -f 128; exec "$0" "$@""#;
    let mut recv = std::process::Command::new("sh");
    recv.args([
        "-c",
        limited,
        PROGRAM,
        "recv",
        "--listen",
        "tcp:127.0.0.1:0",
        "--to",
        text(&image),
    ]);
    let mut recv = Running::start(&mut recv);
    let uri = recv.listening();
    let sent = multifd(&["send", "--ram", text(&file), "--to", &uri]);
    recv.wait().failed_saying(&["File too large"]);
    sent.failed_saying(&["destination"]);
    assert_eq!(names(folder.path()), ["guest.ram"]);
}

#[test]
fn the_log_names_who_connected_with_address_channel_and_uuid_and_who_was_refused_and_why() {
    const UUID: &str = "01020304-0506-0708-090a-0b0c0d0e0f10";
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("guest.ram");
    fs::write(&file, crate::common::memory(30)).unwrap();
    let image = folder.path().join("vm");
    for channels in ["2", "3"] {
        let to = ["--listen", "tcp:127.0.0.1:0", "--to", text(&image), "-v"];
        let mut recv = Running::start(crate::common::command(&["recv"]).args(to));
        let uri = recv.listening();
        let stranger = TcpStream::connect(uri.strip_prefix("tcp:").unwrap()).unwrap();
        let address = stranger.local_addr().unwrap();
        drop(stranger);
        let send = ["send", "--ram", text(&file), "--to", &uri, "--uuid", UUID, "-v"];
        let sent = multifd(&[&send[..], &["--channels", channels]].concat());
        let received = recv.wait();
        let is_logged = |words: &[&str]| {
            let mut lines = received.stderr.lines();
            lines.any(|line| words.iter().all(|word| line.contains(word)))
        };
        assert!(is_logged(&[&format!("from={address}"), "it left"]), "{received:?}");
        assert!(is_logged(&["from=127.0.0.1:", "the main channel connected"]), "{received:?}");
        // The third channel may be refused before the others have said which they are.
        for channel in ["channel=0", "channel=1"].iter().filter(|_| channels == "2") {
            assert!(is_logged(&["from=127.0.0.1:", channel, UUID]), "{received:?}");
        }
        let refused = ["from=127.0.0.1:", "only 2 channels"];
        assert_eq!(is_logged(&refused), channels == "3", "{received:?}");
        assert!(sent.stderr.contains(&format!("connected to={uri}")), "{sent:?}");
        assert_eq!((sent.status == Some(0), image.exists()), (channels == "2", channels == "2"));
        if channels == "2" {
            fs::remove_dir_all(&image).unwrap();
        }
    }
}

#[test]
fn a_side_that_stands_still_is_given_up_after_the_limit_that_is_given() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("guest.ram");
    fs::write(&file, vec![7; 64 << 20]).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let uri = format!("tcp:{}", listener.local_addr().unwrap());
    let args = ["send", "--ram", text(&file), "--to", &uri, "--progress-timeout", "1s"];
    let send = Running::start(&mut crate::common::command(&args));
    // They are there, and read nothing.
    let sockets: Vec<_> = (0..3).map(|_| listener.accept().unwrap().0).collect();
    send.wait().failed_saying(&["no byte", "for 1 s"]);
    drop(sockets);
}

#[test]
fn what_is_sent_keeps_to_the_bandwidth_that_is_given() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("guest.ram");
    fs::write(&file, vec![7; 8 << 20]).unwrap();
    let image = folder.path().join("vm");
    let (recv, uri) = Running::recv(&["--listen", "tcp:127.0.0.1:0", "--to", text(&image)]);
    let args = ["send", "--ram", text(&file), "--to", &uri, "--max-bandwidth", "80Mbps", "--json"];
    let sent = multifd(&args).succeeded().json();
    recv.wait().succeeded();
    // 10 MB a second, of which 10 ms may go at once.
    let least = sent["wire_bytes"].as_f64().unwrap() / 10e6 - 0.1;
    assert!(sent["seconds"].as_f64().unwrap() >= least, "{sent}");
    let ended = multifd(&[&args[..6], &["1G"]].concat());
    assert_eq!(ended.status, Some(2), "{ended:?}");
    assert!(ended.stderr.contains("write bits as 25Gbps"), "{ended:?}");
}

#[test]
fn a_zstd_window_above_the_limit_is_refused_until_it_is_allowed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("guest.ram");
    fs::write(&file, crate::common::memory(30)).unwrap();
    let image = folder.path().join("vm");
    for (window, taken) in [("8M", false), ("16M", true)] {
        let codec = ["--compression", "zstd", "--channels", "1"];
        let listen = ["--listen", "tcp:127.0.0.1:0", "--to", text(&image), "--zstd-window", window];
        let (recv, uri) = Running::recv(&[&listen[..], &codec].concat());
        let send = ["send", "--ram", text(&file), "--to", &uri, "--level", "20"];
        let sent = multifd(&[&send[..], &["--zstd-window", "16M"], &codec].concat());
        let received = recv.wait();
        assert_eq!(
            [sent.status == Some(0), received.status == Some(0)],
            [taken; 2],
            "{received:?}"
        );
        if !taken {
            received.failed_saying(&["channel 0, packet ", "window is larger", "up to 128 MiB"]);
        }
    }
    let ended = multifd(&["send", "--ram", "x", "--to", "tcp:x:1", "--zstd-window", "9M"]);
    assert_eq!(ended.status, Some(2), "{ended:?}");
    assert!(ended.stderr.contains("a power of two from 1K to 128M"), "{ended:?}");
}

#[test]
fn a_ram_file_is_sent_without_a_copy_and_what_the_kernel_copied_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("guest.ram");
    fs::write(&file, crate::common::memory(40)).unwrap();
    let send = |compression: &str| {
        let image = folder.path().join(compression);
        let recv =
            ["--listen", "tcp:127.0.0.1:0", "--compression", compression, "--to", text(&image)];
        let (recv, uri) = Running::recv(&recv);
        let send = ["send", "--ram", text(&file), "--to", &uri, "--compression", compression];
        let sent = multifd(&[&send[..], &["--zero-copy-send", "--no-digests", "--json"]].concat());
        (sent, recv, image)
    };
    let (sent, recv, image) = send("none");
    let counted = &sent.succeeded().json()["zero_copy"];
    let (writes, copied) = (counted["writes"].as_u64(), counted["copied"].as_u64());
    assert!(writes > Some(0) && copied.is_some(), "{counted}");
    recv.wait().succeeded();
    assert!(fs::read(image.join("pc.ram")).unwrap() == fs::read(&file).unwrap());
    let (sent, recv, _) = send("zstd");
    sent.failed_saying(&["zero-copy send is not possible", "codec zstd makes a copy"]);
    drop(recv);
}

#[test]
fn an_image_that_has_changed_since_it_was_stored_is_not_handed_over_unless_that_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("guest.ram");
    fs::write(&file, crate::common::memory(40)).unwrap();
    let [image, copy] = ["vm", "copy"].map(|name| folder.path().join(name));
    let pass_on = |from: [&str; 2], to: &Path, more: &[&str]| {
        let (recv, uri) =
            Running::recv(&["--listen", "tcp:127.0.0.1:0", "--to", text(to), "--json"]);
        let send = ["send", from[0], from[1], "--to", &uri];
        (multifd(&[&send[..], more].concat()), recv.wait())
    };
    let (sent, received) = pass_on(["--ram", text(&file)], &image, &[]);
    sent.succeeded();
    let digest = received.succeeded().json()["vm"]["blocks"][0]["digest"].clone();
    assert_eq!(digest.as_str().unwrap().len(), 32, "{digest}");
    // As it is it is handed over, by the same digest.
    let (sent, received) = pass_on(["--from", text(&image)], &copy, &[]);
    sent.succeeded();
    assert_eq!(received.succeeded().json()["vm"]["blocks"][0]["digest"], digest);
    fs::remove_dir_all(&copy).unwrap();

    let stored = image.join("pc.ram");
    let mut bytes = fs::read(&stored).unwrap();
    bytes[5 * 4096 + 7] ^= 1;
    fs::write(&stored, bytes).unwrap();
    let (sent, received) = pass_on(["--from", text(&image)], &copy, &[]);
    sent.failed_saying(&["the RAM block 'pc.ram' does not hold what it should", "--no-digests"]);
    assert_eq!((received.status, copy.exists()), (Some(1), false), "{received:?}");
    let (sent, received) = pass_on(["--from", text(&image)], &copy, &["--no-digests"]);
    sent.succeeded();
    assert!(received.succeeded().json()["vm"]["blocks"][0]["digest"].is_null());
    let manifest = image.join("vm.json");
    let json = fs::read_to_string(&manifest).unwrap();
    fs::write(&manifest, json.replace(digest.as_str().unwrap(), "12")).unwrap();
    let ended = multifd(&["send", "--from", text(&image), "--to", "tcp:127.0.0.1:1"]);
    ended.failed_saying(&["vm.json", "'12' is not a digest"]);
}
