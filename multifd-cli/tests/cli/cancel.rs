//! Ctrl-C and its like.

use std::fs;
use std::io::Write;
use std::net::{TcpListener, TcpStream};

use crate::common::{Running, command, multifd, names, recordings, text};
use rustix::process::Signal;

/// The signals that end a program, but for those that this process, and so its children, ignore.
fn signals() -> Vec<Signal> {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
    let mask = u64::from_str_radix(mask.trim(), 16).unwrap();
    let all = [Signal::INT, Signal::TERM, Signal::HUP].into_iter();
    all.filter(|signal| mask & (1 << (signal.as_raw() - 1)) == 0).collect()
}

#[track_caller]
fn assert_cancelled(running: Running, signal: Signal) {
    let ended = running.wait();
    assert_eq!(ended.status, Some(128 + signal.as_raw()), "{ended:?}");
    assert!(ended.stderr.contains("multifd: cancelled"), "{ended:?}");
    assert!(ended.stdout.is_empty(), "{ended:?}");
}

#[test]
fn a_destination_that_waits_is_cancelled_and_leaves_nothing() {
    for signal in signals() {
        let to = tempfile::tempdir().unwrap();
        let image = to.path().join("vm");
        let socket = to.path().join("socket");
        let listen = format!("unix:{}", text(&socket));
        let (recv, _) = Running::recv(&["--listen", &listen, "--to", text(&image)]);
        assert_eq!(names(to.path()).len(), 2, "the socket and the folder in the making");
        recv.signal(signal);
        assert_cancelled(recv, signal);
        assert!(names(to.path()).is_empty());
    }
}

#[test]
fn what_a_killed_run_leaves_is_said_by_the_next_and_left_alone() {
    let to = tempfile::tempdir().unwrap();
    let image = to.path().join("vm");
    let recv = || Running::recv(&["--listen", "tcp:127.0.0.1:0", "--to", text(&image)]).0;
    let killed = recv();
    let [left] = &names(to.path())[..] else { panic!("one folder") };
    killed.signal(Signal::KILL);
    assert_eq!(killed.wait().status, None);
    // Not one that a run may have created just now.
    let folder = fs::File::open(to.path().join(left)).unwrap();
    folder.set_modified(std::time::UNIX_EPOCH).unwrap();
    let mut next = Running::start(
        command(&["recv", "--force", "--listen", "tcp:127.0.0.1:0"]).args(["--to", text(&image)]),
    );
    let said = next.line();
    assert!(said.contains(left) && said.contains("killed"), "{said}");
    next.listening();
    // While that one makes its image, only what is dead is left.
    let other = multifd(&["decode", text(&recordings()[0]), "--to", text(&image)]).succeeded();
    assert_eq!(other.stderr.matches(".partial").count(), 1, "{other:?}");
    // SIGINT may be ignored here, as in a job in the background.
    next.signal(Signal::TERM);
    next.wait();
    assert_eq!(names(to.path()), [left.as_str(), "vm"]);
}

#[test]
fn a_destination_whose_source_hangs_is_cancelled_and_leaves_nothing() {
    for signal in signals() {
        let to = tempfile::tempdir().unwrap();
        let image = to.path().join("vm");
        let (recv, uri) = Running::recv(&["--listen", "tcp:127.0.0.1:0", "--to", text(&image)]);
        let mut main = TcpStream::connect(uri.strip_prefix("tcp:").unwrap()).unwrap();
        main.write_all(b"QEVM\0\0\0\x03\x07\0\0\0\x02pc").unwrap();
        std::thread::sleep(std::time::Duration::from_millis(50));
        recv.signal(signal);
        assert_cancelled(recv, signal);
        assert!(names(to.path()).is_empty());
    }
}

#[test]
fn a_source_whose_destination_hangs_is_cancelled() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("guest.ram");
    // More than the sockets' buffers hold.
    fs::write(&file, vec![7; 64 << 20]).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let uri = format!("tcp:{}", listener.local_addr().unwrap());
    for signal in signals() {
        let send = Running::start(&mut command(&["send", "--ram", text(&file), "--to", &uri]));
        let channels: Vec<_> = (0..3).map(|_| listener.accept().unwrap()).collect();
        std::thread::sleep(std::time::Duration::from_millis(200));
        send.signal(signal);
        assert_cancelled(send, signal);
        drop(channels);
    }
}
