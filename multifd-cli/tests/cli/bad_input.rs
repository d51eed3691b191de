//! Bad input: each case ends in one clear line, and leaves nothing half done.

use std::fs;
use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::{Ended, PROGRAM, Running, command, multifd, names, recordings, text};
use tempfile::TempDir;

const ANYWHERE: &str = "tcp:127.0.0.1:0";

/// A folder with an image called `vm` in it.
fn image() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("vm");
    multifd(&["decode", text(&recordings()[0]), "--to", text(&image)]).succeeded();
    (folder, image)
}

/// A file with a guest's memory.
fn ram() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("guest.ram");
    fs::write(&file, crate::common::memory(1024)).unwrap();
    (folder, file)
}

/// Sends an image to an address where nothing listens.
fn send(image: &Path) -> Ended {
    multifd(&["send", "--from", text(image), "--to", "unix:/nonexistent/socket"])
}

/// Sends with `send`, receives with `recv`, and asserts that nothing is stored.
fn migrate(send: &[&str], recv: &[&str]) -> [Ended; 2] {
    let ((_folder, file), to) = (ram(), tempfile::tempdir().unwrap());
    let image = to.path().join("vm");
    let (running, uri) =
        Running::recv(&[&["--listen", ANYWHERE, "--to", text(&image)], recv].concat());
    let sent = multifd(&[&["send", "--ram", text(&file), "--to", &uri][..], send].concat());
    let received = running.wait();
    assert!(names(to.path()).is_empty(), "nothing is left behind");
    [sent, received]
}

#[test]
fn an_existing_folder_is_refused_before_the_program_listens() {
    let (_folder, image) = image();
    let recv = multifd(&["recv", "--listen", ANYWHERE, "--to", text(&image)]);
    assert!(!recv.stderr.contains("listening"), "{recv:?}");
    recv.failed_saying(&["exists", "; choose another name", "--force"]);
}

#[test]
fn a_folder_that_is_not_an_image_is_not_replaced_even_by_force() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("thesis"), "x").unwrap();
    multifd(&["recv", "--listen", ANYWHERE, "--to", text(folder.path()), "--force"])
        .failed_saying(&["is not a VM image"]);
    assert_eq!(names(folder.path()), ["thesis"]);
}

#[test]
fn a_block_file_that_is_short_long_missing_or_a_folder_is_refused_by_its_name() {
    let (_folder, image) = image();
    let file = image.join("pc.ram");
    let whole = fs::read(&file).unwrap();
    fs::write(&file, &whole[..whole.len() - 1]).unwrap();
    send(&image).failed_saying(&["vm/pc.ram", "4194303", "4194304", "damaged"]);
    fs::write(&file, [&whole[..], &[0]].concat()).unwrap();
    send(&image).failed_saying(&["vm/pc.ram", "4194305"]);
    fs::remove_file(&file).unwrap();
    send(&image).failed_saying(&["vm/pc.ram", "check the path"]);
    fs::create_dir(&file).unwrap();
    send(&image).failed_saying(&["vm/pc.ram", "it is not a file"]);
}

#[test]
fn a_pipe_in_place_of_a_folder_is_refused_without_waiting() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let image = folder.path().join("vm");
    for args in [
        &["decode", text(&pipe), "--to", text(&image)][..],
        &["inspect", text(&pipe)],
        &["show", text(&pipe)],
        &["plan", "--from", text(&pipe)],
        &["plan", "--recording", text(&pipe)],
        &["send", "--from", text(&pipe), "--to", "unix:/nonexistent/socket"],
    ] {
        // Ends a program that waits for a writer.
        let mut limited = Command::new("timeout");
        let ended = crate::common::run(limited.args(["60", PROGRAM]).args(args));
        ended.failed_saying(&["pipe", "folder"]);
    }
}

#[test]
fn a_changed_byte_of_ram_is_found_by_verify_and_one_of_the_device_state_always() {
    let (_folder, image) = image();
    let flip = |name: &str| {
        let mut bytes = fs::read(image.join(name)).unwrap();
        bytes[100] ^= 1;
        fs::write(image.join(name), bytes).unwrap();
    };
    flip("pc.ram");
    multifd(&["send", "--from", text(&image), "--to", "unix:/nonexistent/socket", "--verify"])
        .failed_saying(&["vm/pc.ram", "SHA-256", "damaged"]);
    flip("device-state.bin");
    send(&image).failed_saying(&["vm/device-state.bin", "SHA-256", "damaged"]);
}

#[test]
fn a_malformed_manifest_is_refused_with_its_place() {
    let (_folder, image) = image();
    let path = image.join("vm.json");
    let manifest = fs::read_to_string(&path).unwrap();
    for (from, to, words) in [
        ("\"version\": 2,\n  \"mach", "\"version\": 9,\n  \"mach", "version 9"),
        ("\"page_size\": 4096", "\"page_size\": 5000", "page_size is 5000"),
        ("\"page_size\": 4096", "\"page_size\": \"many\"", "line 5"),
        ("\"bytes\": 4194304", "\"bytes\": 0", "pc.ram"),
        ("\"file\": \"pc.ram\"", "\"file\": \"../vm/pc.ram\"", "not a file of the folder"),
        ("\"file\": \"pc.ram\"", "\"file\": \"/etc/passwd\"", "not a file of the folder"),
        ("\"name\": \"pc.bios\"", "\"name\": \"pc.ram\"", "two RAM blocks"),
        ("\"uuid\": \"", "\"uuid\": \"x", "not a UUID"),
        ("}", "", "malformed"),
    ] {
        let broken = manifest.replacen(from, to, 1);
        assert_ne!(broken, manifest, "{from}");
        fs::write(&path, broken).unwrap();
        send(&image).failed_saying(&["cannot use", words]);
    }
    fs::write(&path, "").unwrap();
    send(&image).failed_saying(&["vm.json", "malformed"]);
    fs::remove_file(&path).unwrap();
    send(&image).failed_saying(&["not a VM image", "vm.json"]);
}

/// Puts a pipe, a device and a file without end in the place of an image's file.
fn replace_by_endless(path: &Path) -> [Box<dyn Fn() + '_>; 3] {
    let remove = move || _ = fs::remove_file(path);
    let pipe = move || {
        remove();
        let made = Command::new("mkfifo").arg(path).status().unwrap();
        assert!(made.success());
    };
    let device = move || {
        remove();
        std::os::unix::fs::symlink("/dev/zero", path).unwrap();
    };
    let huge = move || {
        remove();
        fs::File::create_new(path).unwrap().set_len(1 << 43).unwrap();
    };
    [Box::new(pipe), Box::new(device), Box::new(huge)]
}

#[test]
fn a_pipe_a_device_and_an_endless_file_are_refused_as_parts_of_an_image() {
    for (name, words) in [
        ("vm.json", ["it is not a file", "it is not a file", "at most 16 MiB"]),
        ("device-state.bin", ["it is not a file", "not a file of the folder", "at most 256 MiB"]),
        ("pc.ram", ["it is not a file", "not a file of the folder", "damaged"]),
    ] {
        let (_folder, image) = image();
        let path = image.join(name);
        for (replace, word) in replace_by_endless(&path).iter().zip(words) {
            replace();
            send(&image).failed_saying(&[name, word]);
            multifd(&["inspect", text(&image)]).failed_saying(&[name, word]);
        }
    }
}

#[test]
fn more_device_state_than_is_accepted_is_refused_and_accepted_if_that_is_said() {
    let (_folder, image) = image();
    let send = ["send", "--from", text(&image), "--to", "unix:/nonexistent/socket"];
    let commands: [&[&str]; 4] = [
        &["show", text(&image)],
        &["inspect", text(&image)],
        &["plan", "--from", text(&image), "--compression", "none"],
        &send,
    ];
    for args in commands {
        let ended = multifd(&[args, &["--device-state-limit", "1K"]].concat());
        ended.failed_saying(&["device-state.bin", "at most 1 KiB", "--device-state-limit"]);
    }
    let recording = &recordings()[0];
    let recorded = ["plan", "--recording", text(recording), "--device-state-limit", "1K"];
    multifd(&recorded).failed_saying(&["device state"]);
    // A hole.
    let path = image.join("device-state.bin");
    fs::File::options().write(true).open(&path).unwrap().set_len((256 << 20) + 1).unwrap();
    multifd(&send).failed_saying(&["device-state.bin", "at most 256 MiB"]);
    let more = ["--device-state-limit", "257M"];
    multifd(&[&send[..], &more].concat()).failed_saying(&["device-state.bin", "SHA-256"]);
}

#[test]
fn more_early_state_than_a_destination_accepts_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("vm");
    let has_early_state = |path: &&PathBuf| path.ends_with("qemu-11.1-dirty-bitmaps");
    let recordings = recordings();
    let recording = recordings.iter().find(has_early_state).unwrap();
    multifd(&["decode", text(recording), "--to", text(&image)]).succeeded();
    let name = "early-state-behind-start.bin";
    let file = fs::File::options().write(true).open(image.join(name)).unwrap();
    file.set_len((64 << 20) + 1).unwrap();
    send(&image).failed_saying(&[name, "at most 64 MiB"]);
}

#[test]
fn a_ram_file_that_shrinks_while_it_is_sent_is_an_error_that_names_it() {
    for codec in ["none", "zstd"] {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("guest.ram");
        // More than the sockets' buffers hold, however it is compressed.
        let mut noise = fs::File::open("/dev/urandom").unwrap().take(64 << 20);
        std::io::copy(&mut noise, &mut fs::File::create(&file).unwrap()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let uri = format!("tcp:{}", listener.local_addr().unwrap());
        let args = ["--to", &uri, "--compression", codec, "--no-return-path"];
        let send = Running::start(command(&["send", "--ram", text(&file)]).args(args));
        let mut sockets: Vec<_> = (0..3).map(|_| listener.accept().unwrap().0).collect();
        // The source has begun to send pages: there is more than packets without any.
        sockets[2].read_exact(&mut [0; 100_000]).unwrap();
        fs::File::options().write(true).open(&file).unwrap().set_len(4096).unwrap();
        let drain = |mut socket: TcpStream| {
            std::thread::spawn(move || std::io::copy(&mut socket, &mut std::io::sink()))
        };
        let drains: Vec<_> = sockets.into_iter().map(drain).collect();
        send.wait().failed_saying(&["guest.ram", "became shorter", "4096 of 67108864 bytes"]);
        drains.into_iter().for_each(|drain| _ = drain.join().unwrap());
    }
}

#[test]
fn what_force_replaces_is_an_image_and_nothing_else() {
    let (_folder, image) = image();
    fs::write(image.join("thesis"), "x").unwrap();
    let before = names(&image);
    let recv = ["recv", "--listen", ANYWHERE, "--force", "--to", text(&image)];
    multifd(&recv).failed_saying(&["thesis", "not of the VM image", "remove it first"]);
    assert_eq!(names(&image), before);
}

#[test]
fn a_link_in_an_image_is_not_followed_out_of_it() {
    let (folder, image) = image();
    let file = image.join("pc.ram");
    fs::rename(&file, folder.path().join("elsewhere")).unwrap();
    std::os::unix::fs::symlink("../elsewhere", &file).unwrap();
    send(&image).failed_saying(&["pc.ram", "not a file of the folder"]);
}

#[test]
fn an_address_in_use_is_refused_and_leaves_nothing() {
    let to = tempfile::tempdir().unwrap();
    let image = to.path().join("vm");
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let tcp = (format!("tcp:{}", tcp.local_addr().unwrap()), tcp);
    let elsewhere = tempfile::tempdir().unwrap();
    let socket = elsewhere.path().join("socket");
    let _unix = UnixListener::bind(&socket).unwrap();
    for uri in [&tcp.0, &format!("unix:{}", text(&socket))] {
        multifd(&["recv", "--listen", uri, "--to", text(&image)]).failed_saying(&[
            "cannot listen",
            uri,
            "pick another",
        ]);
        assert!(names(to.path()).is_empty());
    }
}

#[test]
fn a_destination_that_is_not_there_is_said_to_be_missing() {
    let (_folder, file) = ram();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    for uri in [&format!("tcp:127.0.0.1:{port}"), "unix:/nonexistent/socket"] {
        multifd(&["send", "--ram", text(&file), "--to", uri]).failed_saying(&[
            "cannot connect",
            uri,
            "is the destination listening there?",
        ]);
    }
}

#[test]
fn usage_errors_have_exit_status_2_and_say_what_there_is() {
    for (args, words) in [
        (&["demo", "--compression", "lzma"][..], "zstd"),
        (&["recv", "--listen", ANYWHERE, "--to", "vm", "--compression", "lzma"], "zstd"),
        (&["recv", "--listen", "127.0.0.1", "--to", "vm"], "tcp:HOST:PORT"),
        (&["send", "--to", "tcp:localhost:1"], "--from"),
        (&["send", "--ram", "x", "--to", "tcp:localhost:1", "--channels", "0"], "1..=255"),
        (&["send", "--ram", "x", "--to", "tcp:localhost:1", "--uuid", "7"], "not a UUID"),
        (&["demo", "--size", "1X"], "512M"),
        (&[], "Usage"),
    ] {
        let ended = multifd(args);
        assert_eq!(ended.status, Some(2), "{ended:?}");
        assert!(ended.stderr.contains(words), "{words} is not in: {}", ended.stderr);
    }
}

#[test]
fn another_codec_on_the_other_side_is_said_on_both_sides() {
    let [sent, received] = migrate(&["--compression", "zlib"], &["--compression", "zstd"]);
    received.failed_saying(&["compressed with zlib, but zstd is agreed", "both sides"]);
    sent.failed_saying(&["the destination"]);
}

#[test]
fn more_channels_than_agreed_are_refused() {
    let [sent, received] = migrate(&["--channels", "3"], &["--channels", "2"]);
    received.failed_saying(&["number 2", "only 2 channels", "both sides"]);
    sent.failed_saying(&["the destination"]);
}

#[test]
fn fewer_channels_than_agreed_are_missed() {
    let recv = ["--channels", "3", "--channel-timeout", "0.2"];
    let [sent, received] = migrate(&["--channels", "2"], &recv);
    received.failed_saying(&["2 of 3 channels", "both sides"]);
    sent.failed_saying(&["the destination"]);
}

#[test]
fn another_vm_than_the_expected_one_is_refused() {
    let recv = ["--uuid", "01020304-0506-0708-090a-0b0c0d0e0f10"];
    let [sent, received] = migrate(&[], &recv);
    received.failed_saying(&["belongs to the VM 00000000-", "01020304-0506"]);
    sent.failed_saying(&["the destination"]);
}

#[test]
fn more_ram_than_may_be_taken_is_refused_before_it_comes() {
    let [sent, received] = migrate(&[], &["--ram-limit", "3M"]);
    received.failed_saying(&["4 MiB of RAM", "3 MiB", "--ram-limit"]);
    sent.failed_saying(&["the destination"]);
}

#[test]
fn a_disk_without_room_leaves_no_image_and_the_source_is_told() {
    let ((_folder, file), to) = (ram(), tempfile::tempdir().unwrap());
    let image = to.path().join("vm");
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -f 1000; exec \"$0\" \"$@\"", PROGRAM, "recv"]);
    limited.args(["--listen", ANYWHERE, "--to", text(&image)]);
    let mut recv = Running::start(&mut limited);
    let uri = recv.listening();
    let sent = multifd(&["send", "--ram", text(&file), "--to", &uri]);
    recv.wait().failed_saying(&["cannot write pc.ram", "ulimit -f"]);
    sent.failed_saying(&["the destination reports failure"]);
    assert!(names(to.path()).is_empty());
}

#[test]
fn an_image_cannot_be_made_where_there_is_no_folder() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("missing/vm");
    multifd(&["recv", "--listen", ANYWHERE, "--to", text(&image)])
        .failed_saying(&["missing/vm", "create it first"]);
}

#[test]
fn a_result_that_cannot_be_written_is_an_error_and_a_reader_that_went_away_is_none() {
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let ended = command(&["codecs"]).stdout(full).status().unwrap();
    assert_eq!(ended.code(), Some(1));

    let mut piped = Command::new("sh");
    piped.args(["-c", "(sleep 0.1; \"$0\" codecs; echo $? >&2) | true", PROGRAM]);
    let ended = piped.output().unwrap();
    assert_eq!(String::from_utf8(ended.stderr).unwrap(), "0\n");
}
