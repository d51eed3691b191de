//! The exit status says whose the guest is.

use std::fs::{self, File};
use std::io::Read;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::Stdio;

use rustix::process::Signal;

use crate::common::{Ended, Running, command, memory, multifd, recordings, text};

/// A destination that takes everything and never answers, up to the end of the main channel: with
/// its main connection, and how many others come.
struct Silent(TcpListener);

impl Silent {
    fn new() -> (Self, String) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let uri = format!("tcp:{}", listener.local_addr().unwrap());
        (Self(listener), uri)
    }

    fn take_everything(&self) -> TcpStream {
        let mut main = self.0.accept().unwrap().0;
        for _ in 0..2 {
            let mut channel = self.0.accept().unwrap().0;
            std::thread::spawn(move || _ = channel.read_to_end(&mut Vec::new()));
        }
        // The VMDESCRIPTION's last bytes.
        let mut last = [0; 2];
        while last != *b"]}" {
            last.rotate_left(1);
            main.read_exact(&mut last[1..]).unwrap();
        }
        main
    }
}

#[track_caller]
fn assert_unclear(ended: &Ended) {
    assert_eq!(ended.status, Some(3), "{ended:?}");
    assert!(ended.stderr.contains("look there before the guest goes on"), "{ended:?}");
    assert!(ended.stdout.is_empty(), "{ended:?}");
}

fn ram_file() -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("guest.ram");
    fs::write(&file, memory(30)).unwrap();
    (folder, file)
}

#[test]
fn a_destination_that_goes_without_a_word_leaves_send_and_relay_with_status_3() {
    let (_folder, file) = ram_file();
    let (silent, uri) = Silent::new();
    let send = Running::start(&mut command(&["send", "--ram", text(&file), "--to", &uri]));
    drop(silent.take_everything());
    assert_unclear(&send.wait());

    let (silent, uri) = Silent::new();
    let args = ["relay", "--listen", "tcp:127.0.0.1:0", "--to", &uri];
    let mut relay = Running::start(&mut command(&args));
    let uri = relay.listening();
    let send = Running::start(&mut command(&["send", "--ram", text(&file), "--to", &uri]));
    drop(silent.take_everything());
    assert_unclear(&relay.wait());
    assert_unclear(&send.wait());
}

#[test]
fn a_signal_when_everything_is_sent_leaves_status_3_and_not_that_of_a_cancellation() {
    let (_folder, file) = ram_file();
    let (silent, uri) = Silent::new();
    let send = Running::start(&mut command(&["send", "--ram", text(&file), "--to", &uri]));
    let main = silent.take_everything();
    send.signal(Signal::TERM);
    assert_unclear(&send.wait());
    drop(main);
}

#[test]
fn a_destination_that_refuses_at_the_end_leaves_status_1() {
    let (_folder, file) = ram_file();
    let (silent, uri) = Silent::new();
    let send = Running::start(&mut command(&["send", "--ram", text(&file), "--to", &uri]));
    let mut main = silent.take_everything();
    std::io::Write::write_all(&mut main, &[0, 1, 0, 4, 0, 0, 0, 1]).unwrap();
    send.wait().failed_saying(&["the destination reports failure"]);
    _ = main.shutdown(Shutdown::Both);
}

#[test]
fn a_result_that_cannot_be_shown_does_not_make_a_migration_that_went_through_a_failure() {
    let (folder, file) = ram_file();
    let image = folder.path().join("vm");
    let full = || Stdio::from(File::options().write(true).open("/dev/full").unwrap());
    let run = |args: &[&str]| command(args).stdout(full()).stderr(Stdio::piped()).spawn().unwrap();
    for json in [&[][..], &["--json"]] {
        let recv = ["recv", "--listen", "tcp:127.0.0.1:0", "--to", text(&image), "--force"];
        let mut recv = run(&[&recv, json].concat());
        let mut said = std::io::BufReader::new(recv.stderr.take().unwrap());
        let mut line = String::new();
        std::io::BufRead::read_line(&mut said, &mut line).unwrap();
        let uri = line.trim_end().strip_prefix("listening on ").unwrap();
        let send = ["send", "--ram", text(&file), "--to", uri];
        let send = run(&[&send, json].concat()).wait_with_output().unwrap();
        let mut received = String::new();
        said.read_to_string(&mut received).unwrap();
        let sent = String::from_utf8(send.stderr).unwrap();
        assert_eq!(send.status.code(), Some(0), "{sent}");
        assert_eq!(recv.wait().unwrap().code(), Some(0), "{received}");
        for said in [sent, received] {
            assert!(said.contains("went through, but its result is not shown"), "{said}");
        }
    }
    for json in [&[][..], &["--json"]] {
        let recording = &recordings()[0];
        let decode = ["decode", text(recording), "--to", text(&image), "--force"];
        let decoded = run(&[&decode, json].concat()).wait_with_output().unwrap();
        let said = String::from_utf8(decoded.stderr).unwrap();
        assert_eq!(decoded.status.code(), Some(0), "{said}");
        assert!(said.contains("the VM is stored, but its result is not shown"), "{said}");
    }
    // Nothing has been moved: printing is all that was asked for.
    let shown = run(&["show", text(&image)]).wait_with_output().unwrap();
    assert_eq!(shown.status.code(), Some(1));
    multifd(&["show", text(&image)]).succeeded();
}
