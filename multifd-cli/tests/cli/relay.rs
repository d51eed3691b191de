//! `multifd relay` between `multifd send` and `multifd recv`, each a process.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::{
    Ended, PROGRAM, Running, assert_same_files, command, multifd, names, recordings, text,
};
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

const ANYWHERE: &str = "tcp:127.0.0.1:0";

/// A folder with a RAM file of some MiB in it.
fn ram(pages: usize) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("guest.ram");
    fs::write(&file, crate::common::memory(pages)).unwrap();
    (folder, file)
}

/// A relay to `to`, started by `program`, and where it listens.
fn relay(program: &mut Command, to: &str, args: &[&str]) -> (Running, String) {
    let mut running = Running::start(program.args(["--listen", ANYWHERE, "--to", to]).args(args));
    let uri = running.listening();
    (running, uri)
}

/// Sends with `send` through relays with `relays`, the first next to the source, to `image`.
fn migrate(send: &[&str], relays: &[&[&str]], recv: &[&str], image: &Path) -> Vec<Ended> {
    let (recv, mut uri) =
        Running::recv(&[&["--listen", ANYWHERE, "--to", text(image)], recv].concat());
    let mut running = Vec::new();
    for args in relays.iter().rev() {
        let (relay, at) = relay(&mut command(&["relay"]), &uri, args);
        running.insert(0, relay);
        uri = at;
    }
    let sent = multifd(&[&["send", "--to", &uri], send].concat());
    let ended: Vec<_> = running.into_iter().map(Running::wait).collect();
    let received = recv.wait();
    assert!(
        sent.status == Some(0) && received.status == Some(0),
        "{sent:?} {ended:?} {received:?}"
    );
    ended
}

#[test]
fn an_image_goes_through_with_another_codec_and_arrives_equal() {
    let folder = tempfile::tempdir().unwrap();
    let decoded = folder.path().join("decoded");
    for (recording, from, to) in [(0, "zstd", "zlib"), (1, "zlib", "qpl"), (2, "none", "zstd")] {
        let recording = &recordings()[recording];
        multifd(&["decode", text(recording), "--to", text(&decoded), "--force"]).succeeded();
        let arrived = folder.path().join("arrived");
        let args = ["--from-compression", from, "--to-compression", to, "--from-channels", "3"];
        let ended = migrate(
            &["--from", text(&decoded), "--compression", from, "--channels", "3"],
            &[&[&args[..], &["--to-channels", "5", "--json"]].concat()],
            &["--compression", to, "--channels", "5"],
            &arrived,
        );
        assert_same_files(&decoded, &arrived);
        fs::remove_dir_all(arrived).unwrap();
        let report: Value = ended[0].json();
        assert_eq!((&report["from"]["codec"], &report["to"]["codec"]), (&from.into(), &to.into()));
        assert_eq!(
            (&report["from"]["channels"], &report["to"]["channels"]),
            (&3.into(), &5.into())
        );
        assert_eq!(report["from"]["normal_pages"], report["to"]["normal_pages"]);
        assert_eq!(report["confirmed"], true);
    }
}

#[test]
fn two_relays_are_a_compressed_tunnel_between_two_sides_that_know_no_codec() {
    let ((_folder, file), to) = (ram(1000), tempfile::tempdir().unwrap());
    let image = to.path().join("vm");
    let relays = [
        &["--to-compression", "zstd", "--to-channels", "4", "--to-level", "3", "--json"][..],
        &["--from-compression", "zstd", "--from-channels", "4"][..],
    ];
    let ended = migrate(&["--ram", text(&file), "--no-return-path"], &relays, &[], &image);
    assert!(fs::read(image.join("pc.ram")).unwrap() == fs::read(&file).unwrap());
    let report = ended[0].json();
    assert_eq!(report["confirmed"], false);
    let bytes = |side: &str| report[side]["wire_bytes"].as_u64().unwrap();
    assert!(bytes("to") * 4 < bytes("from"), "the tunnel is compressed: {report}");
    assert!(ended[1].stdout.contains("without a return path"), "{:?}", ended[1]);
}

#[test]
fn what_is_recorded_decodes_to_what_arrived() {
    let folder = tempfile::tempdir().unwrap();
    let [decoded, arrived, record] =
        ["decoded", "arrived", "record"].map(|n| folder.path().join(n));
    multifd(&["decode", text(&recordings()[0]), "--to", text(&decoded)]).succeeded();
    let args = ["--to-compression", "zstd", "--to-channels", "3", "--record", text(&record)];
    let recv = ["--compression", "zstd", "--channels", "3"];
    migrate(&["--from", text(&decoded)], &[&args], &recv, &arrived);
    assert_eq!(
        names(&record.join("from")),
        ["answers.bin", "capture.json", "channel0.bin", "channel1.bin", "main.bin"]
    );
    for (side, codec) in [("from", "none"), ("to", "zstd")] {
        let again = folder.path().join(side);
        multifd(&["decode", text(&record.join(side)), "--to", text(&again)]).succeeded();
        assert_same_files(&arrived, &again);
        let capture = fs::read(record.join(side).join("capture.json")).unwrap();
        let capture: Value = serde_json::from_slice(&capture).unwrap();
        assert_eq!((&capture["compression"], &capture["complete"]), (&codec.into(), &true.into()));
    }
    assert_private(&record);
    let read = |side: &str, name| fs::read(record.join(side).join(name)).unwrap();
    assert!(read("from", "main.bin") == read("to", "main.bin"));
    assert_private(&arrived);
    assert!(read("from", "answers.bin").ends_with(&[0, 1, 0, 4, 0, 0, 0, 0]));

    multifd(&["relay", "--listen", ANYWHERE, "--to", ANYWHERE, "--record", text(&record)])
        .failed_saying(&["record", "exists", "choose another"]);
}

/// Asserts that nobody but its owner can read what is in the folder.
fn assert_private(path: &Path) {
    let metadata = path.metadata().unwrap();
    let mode = if metadata.is_dir() { 0o700 } else { 0o600 };
    assert_eq!(metadata.permissions().mode() & 0o777, mode, "{}", path.display());
    if metadata.is_dir() {
        names(path).iter().for_each(|name| assert_private(&path.join(name)));
    }
}

#[test]
fn a_full_disk_ends_the_recording_and_not_the_migration() {
    let ((_folder, file), to) = (ram(2000), tempfile::tempdir().unwrap());
    let [image, record] = ["vm", "record"].map(|name| to.path().join(name));
    let (recv, uri) = Running::recv(&["--listen", ANYWHERE, "--to", text(&image)]);
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -f 1000; exec \"$0\" \"$@\"", PROGRAM, "relay"]);
    let (relay, uri) = relay(&mut limited, &uri, &["--record", text(&record)]);
    multifd(&["send", "--ram", text(&file), "--to", &uri]).succeeded();
    recv.wait().succeeded();
    assert!(fs::read(image.join("pc.ram")).unwrap() == fs::read(&file).unwrap());
    let ended = relay.wait();
    assert_eq!(ended.status, Some(4), "{ended:?}");
    assert!(ended.stderr.contains("the migration goes on: cannot write"), "{ended:?}");
    assert!(
        ended.stderr.contains("the migration went through, but its recording is incomplete"),
        "{ended:?}"
    );
    assert!(ended.stdout.contains("has confirmed"), "{ended:?}");
    let capture = fs::read_to_string(record.join("to/capture.json")).unwrap();
    assert!(capture.contains("\"complete\": false"), "{capture}");
}

#[test]
fn an_inspected_relay_of_a_good_migration_says_that_nothing_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let [decoded, image, chart] =
        ["decoded", "vm", "chart.svg"].map(|name| folder.path().join(name));
    multifd(&["decode", text(&recordings()[0]), "--to", text(&decoded)]).succeeded();
    let args = ["--from-compression", "zstd", "--from-channels", "3", "--inspect"];
    let send = ["--from", text(&decoded), "--compression", "zstd", "--channels", "3"];

    let ended =
        migrate(&send, &[&[&args[..], &["--chart", text(&chart)]].concat()], &[], &image).remove(0);
    assert!(ended.stdout.contains(": zstd, 3 channels, pages of "), "{ended:?}");
    assert!(ended.stdout.contains("\nnothing is wrong"), "{ended:?}");
    assert!(ended.stdout.contains("has confirmed"), "{ended:?}");
    assert!(!ended.stderr.contains("inspecting"), "{ended:?}");
    assert!(fs::read_to_string(chart).unwrap().contains("seconds since the start"));

    fs::remove_dir_all(&image).unwrap();
    let report =
        migrate(&send, &[&[&args[..], &["--json"]].concat()], &[], &image).remove(0).json();
    let inspection = &report["inspection"];
    assert_eq!((&inspection["errors"], &inspection["main"]["is_whole"]), (&0.into(), &true.into()));
    assert_eq!(inspection["total"]["normal_pages"], report["from"]["normal_pages"]);
    let ids = inspection["channels"].as_array().unwrap().iter().map(|channel| &channel["id"]);
    assert!(ids.eq(&[0.into(), 1.into(), 2.into()] as &[Value; 3]), "{inspection}");
}

/// A source whose relay failed. Where a small VM was all in the sockets' buffers by then, it has sent
/// everything, and cannot know that nothing of it has arrived.
#[track_caller]
fn assert_failed(sent: &Ended) {
    assert!(matches!(sent.status, Some(1 | 3)), "{sent:?}");
}

#[test]
fn an_inspected_relay_reports_a_migration_that_fails() {
    let ((_folder, file), to) = (ram(500), tempfile::tempdir().unwrap());
    let (recv, uri) = Running::recv(&["--listen", ANYWHERE, "--to", text(&to.path().join("vm"))]);
    let args = ["--inspect", "--from-channels", "3", "--channel-timeout", "500ms"];
    let (relay, uri) = relay(&mut command(&["relay"]), &uri, &args);
    let sent = multifd(&["send", "--ram", text(&file), "--to", &uri]);
    let (relayed, received) = (relay.wait(), recv.wait());
    assert_eq!([relayed.status, received.status], [Some(1); 2], "{relayed:?}");
    assert_failed(&sent);
    let relayed = relayed.failed_saying(&["from the source: 2 of 3 channels"]);
    for words in ["\nmain channel: ", "\nerror: channel 2, byte 0"] {
        assert!(relayed.stdout.contains(words), "{relayed:?}");
    }
}

#[test]
fn what_an_inspected_source_sends_against_the_format_is_said_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = format!("tcp:{}", listener.local_addr().unwrap());
    let (relay, uri) = relay(&mut command(&["relay"]), &to, &["--inspect"]);
    let mut source = TcpStream::connect(uri.strip_prefix("tcp:").unwrap()).unwrap();
    source.write_all(b"QEVM\0\0\0\x03\x07\0\0\0\x02pc\x09").unwrap();
    let ended = relay.wait();
    assert_eq!(ended.status, Some(1), "{ended:?}");
    let said = ended.stderr.find("multifd: inspecting the source: error: main channel, byte ");
    let failed = ended.stderr.find("multifd: from the source: ");
    assert!(said.is_some() && said < failed, "{ended:?}");
}

#[test]
fn a_destination_that_is_not_there_fails_relay_and_source() {
    let (_folder, file) = ram(100);
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let to = format!("tcp:127.0.0.1:{port}");
    let (relay, uri) = relay(&mut command(&["relay"]), &to, &[]);
    assert_failed(&multifd(&["send", "--ram", text(&file), "--to", &uri]));
    relay.wait().failed_saying(&["to the destination: cannot connect", &to, "listening there?"]);
}

#[test]
fn another_codec_on_either_side_is_said_with_the_side() {
    let ((_folder, file), to) = (ram(500), tempfile::tempdir().unwrap());
    let image = to.path().join("vm");
    for (args, words) in [
        (["--from-compression", "zstd"], &["from the source: channel ", "packet ", "zstd"][..]),
        (["--to-compression", "zstd"], &["the destination reports failure"]),
        (["--from-channels", "3"], &["from the source: 2 of 3 channels"]),
        (["--to-channels", "3"], &["the destination"]),
    ] {
        let (recv, uri) = Running::recv(&["--listen", ANYWHERE, "--to", text(&image)]);
        let args = [&args[..], &["--channel-timeout", "500ms"]].concat();
        let (relay, uri) = relay(&mut command(&["relay"]), &uri, &args);
        let sent = multifd(&["send", "--ram", text(&file), "--to", &uri]);
        let (mut relayed, received) = (relay.wait(), recv.wait());
        assert_failed(&sent);
        assert_eq!(received.status, Some(1), "{received:?}");
        // It may refuse the third channel before it has heard that there is a return path; where
        // the stream is at its end by then, it might have the VM for all that the relay knows.
        if args.starts_with(&["--to-channels"]) && relayed.status == Some(3) {
            relayed.status = Some(1);
        }
        relayed.failed_saying(words);
        assert!(names(to.path()).is_empty(), "nothing is left behind");
    }
}

/// What a main channel begins with.
const GREETING: &[u8] = b"QEVM\0\0\0\x03\x07\0\0\0\x02pc";

#[test]
fn a_relay_is_cancelled_while_it_waits_and_while_it_relays() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = format!("tcp:{}", listener.local_addr().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let record = folder.path().join("record");
    for (begun, args) in [(false, &[][..]), (true, &[]), (true, &["--record", text(&record)])] {
        let (relay, uri) = relay(&mut command(&["relay"]), &to, args);
        let source = begun.then(|| {
            let mut main = TcpStream::connect(uri.strip_prefix("tcp:").unwrap()).unwrap();
            main.write_all(GREETING).unwrap();
            let mut passed_on = listener.accept().unwrap().0;
            passed_on.read_exact(&mut [0; 4]).unwrap();
            (main, passed_on)
        });
        relay.signal(Signal::TERM);
        let ended = relay.wait();
        assert_eq!(ended.status, Some(128 + Signal::TERM.as_raw()), "{ended:?}");
        assert!(ended.stderr.contains("multifd: cancelled"), "{ended:?}");
        assert_eq!(
            ended.stderr.contains("the incomplete recording is in"),
            !args.is_empty(),
            "{ended:?}"
        );
        drop(source);
    }
    let recorded = fs::read(record.join("to/main.bin")).unwrap();
    assert!(recorded.len() >= 4 && GREETING.starts_with(&recorded), "{recorded:?}");
}

#[test]
fn usage_errors_have_exit_status_2() {
    let relay = ["relay", "--listen", ANYWHERE, "--to", "tcp:localhost:1"];
    for (args, words) in [
        (&["--to-level", "3"][..], "none has no levels"),
        (&["--to-compression", "zstd", "--to-level", "99"], "no level 99"),
        (&["--from-compression", "lzma"], "zstd"),
        (&["--to-channels", "0"], "1..=255"),
        (&["--channel-timeout", "0ms"], "above 0"),
        (&["--chart", "chart.svg"], "--inspect"),
    ] {
        let ended = multifd(&[&relay, args].concat());
        assert_eq!(ended.status, Some(2), "{ended:?}");
        assert!(ended.stderr.contains(words), "{words} is not in: {}", ended.stderr);
    }
}
