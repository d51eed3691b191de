//! VMs between Cloud Hypervisors, of which a peer stands for each.

use std::fs;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::mpsc::channel;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::process::Signal;

use crate::common::{Running, command, multifd, names, text};
use crate::peer::{Machine, Seat, Sent};

/// A program that waits for a VM at `socket` with these arguments.
fn waiting(args: &[&str]) -> Running {
    let mut running = Running::start(&mut command(args));
    let said = running.line();
    assert!(said.contains("send-migration destination_url=unix:"), "{said}");
    running
}

/// A Cloud Hypervisor that hands `machine` over.
fn hand_over(socket: &Path, machine: &Machine) -> JoinHandle<Sent> {
    let (stream, machine) = (UnixStream::connect(socket).unwrap(), machine.clone());
    thread::spawn(move || Seat(stream).send(&machine))
}

/// One that waits for a VM.
fn listen<R: Send + 'static>(
    socket: &Path,
    take: impl FnOnce(Seat) -> R + Send + 'static,
) -> JoinHandle<R> {
    let listener = UnixListener::bind(socket).unwrap();
    thread::spawn(move || take(Seat(listener.accept().unwrap().0)))
}

fn place(socket: &Path) -> String {
    format!("cloud-hypervisor:{}", socket.display())
}

/// A `multifd recv` into `to`, and a `multifd send` to it from a Cloud Hypervisor that hands `machine` over.
fn migrate(folder: &Path, machine: &Machine, to: &str) -> (Running, Running, JoinHandle<Sent>) {
    let socket = folder.join("from.sock");
    let from = place(&socket);
    let zstd = ["--compression", "zstd", "--channels", "3"];
    let (recv, uri) =
        Running::recv(&[&["--listen", "tcp:127.0.0.1:0", "--to", to][..], &zstd].concat());
    let send = [&["send", "--from", &from, "--to", &uri][..], &zstd].concat();
    let send = waiting(&send);
    let sent = hand_over(&socket, machine);
    (recv, send, sent)
}

#[test]
fn a_vm_goes_from_one_to_another() {
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("to.sock");
    for was_running in [true, false] {
        let mut machine = Machine::new();
        machine.was_running = was_running;
        let taken = listen(&to, Seat::receive);
        let (recv, send, sent) = migrate(folder.path(), &machine, &place(&to));
        let (sending, receiving) = (send.wait(), recv.wait());
        assert!(
            sending.status == Some(0) && receiving.status == Some(0),
            "{sending:?} {receiving:?}"
        );
        assert_eq!(sent.join().unwrap(), Sent::GivenUp);
        assert_eq!(taken.join().unwrap(), machine);
        assert!(receiving.stdout.contains("cloud-hypervisor with 2 RAM blocks"), "{receiving:?}");
        fs::remove_file(&to).unwrap();
    }
    assert!(names(folder.path()).is_empty());
}

#[test]
fn a_vm_is_kept_in_a_folder_and_comes_out_of_it_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let machine = Machine::new();
    let (from, vm) = (place(&at("from.sock")), at("vm"));
    let convert = waiting(&["convert", "--from", &from, "--to", text(&vm)]);
    let sent = hand_over(&at("from.sock"), &machine);
    convert.wait().succeeded();
    assert_eq!(sent.join().unwrap(), Sent::GivenUp);
    multifd(&["inspect", text(&at("vm"))]).succeeded();
    let taken = listen(&at("to.sock"), Seat::receive);
    multifd(&["convert", "--from", text(&at("vm")), "--to", &place(&at("to.sock"))]).succeeded();
    assert_eq!(taken.join().unwrap(), machine);
}

#[test]
fn a_vm_that_is_refused_at_the_other_end_stays_and_nothing_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("to.sock");
    for messages in [0, 3, 5] {
        let refuses = listen(&to, move |seat| seat.receive_some(messages, true));
        let (recv, send, sent) = migrate(folder.path(), &Machine::new(), &place(&to));
        recv.wait().failed_saying(&["Cloud Hypervisor refuses the VM"]);
        let sending = send.wait();
        assert_eq!(sending.status, Some(1), "{sending:?}");
        assert_eq!(sent.join().unwrap(), Sent::Refused);
        refuses.join().unwrap();
        fs::remove_file(&to).unwrap();
    }
    assert!(names(folder.path()).is_empty());
}

#[test]
fn nothing_takes_a_vm_back_that_the_other_end_is_about_to_have() {
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("to.sock");
    let (machine, (said, heard), (go, goes)) = (Machine::new(), channel(), channel());
    let taken = listen(&to, move |seat| {
        seat.receive_after(|| {
            said.send(()).unwrap();
            goes.recv().unwrap();
        })
    });
    let (recv, send, sent) = migrate(folder.path(), &machine, &place(&to));
    heard.recv().unwrap();
    // It may run there by now.
    recv.signal(Signal::TERM);
    thread::sleep(Duration::from_millis(300));
    go.send(()).unwrap();
    let (receiving, sending) = (recv.wait(), send.wait());
    assert!(sending.status == Some(0) && receiving.status == Some(0), "{sending:?} {receiving:?}");
    assert_eq!(sent.join().unwrap(), Sent::GivenUp);
    assert_eq!(taken.join().unwrap(), machine);
}

#[test]
fn a_vm_whose_cloud_hypervisor_does_not_wait_is_not_taken_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    for says_so in [true, false] {
        let (from, vm) = (folder.path().join("from.sock"), folder.path().join("vm"));
        let convert = waiting(&["convert", "--from", &place(&from), "--to", text(&vm)]);
        // One that only looks is none.
        drop(UnixStream::connect(&from).unwrap());
        let stream = UnixStream::connect(&from).unwrap();
        let peer = thread::spawn(move || Seat(stream).abandon(&Machine::new(), says_so));
        let words = if says_so { "abandoned the migration" } else { "closed the connection" };
        let ended = convert.wait();
        // It may have stored the VM before it was told.
        if ended.status != Some(0) {
            assert!(ended.stderr.contains(words), "{ended:?}");
        }
        peer.join().unwrap();
        _ = fs::remove_dir_all(vm);
    }
}

#[test]
fn where_the_other_end_may_have_it_a_guest_that_ran_stays_stopped_until_the_user_has_looked() {
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("to.sock");
    for was_running in [true, false] {
        let mut machine = Machine::new();
        machine.was_running = was_running;
        // It goes away when it has heard everything.
        let goes = listen(&to, |seat| seat.receive_some(Seat::MESSAGES - 1, false));
        let (recv, mut send, sent) = migrate(folder.path(), &machine, &place(&to));
        let receiving = recv.wait();
        assert_eq!(receiving.status, Some(3), "{receiving:?}");
        goes.join().unwrap();
        if was_running {
            let (why, what) = (send.line(), send.line());
            assert!(what.contains("as long as this program waits"), "{why} {what}");
            thread::sleep(Duration::from_millis(300));
            assert!(!sent.is_finished(), "it waits");
            send.signal(Signal::TERM);
        }
        let sending = send.wait();
        assert_eq!(sending.status, Some(3), "{sending:?}");
        assert_eq!(sent.join().unwrap(), Sent::Refused);
        fs::remove_file(&to).unwrap();
    }
}

#[test]
fn memory_that_shrinks_while_it_is_read_is_noticed_and_the_vm_stays() {
    let folder = tempfile::tempdir().unwrap();
    let from = folder.path().join("from.sock");
    let machine = Machine::new();
    let vm = folder.path().join("vm");
    let convert = waiting(&["convert", "--from", &place(&from), "--to", text(&vm)]);
    let stream = UnixStream::connect(&from).unwrap();
    let sent = thread::spawn(move || Seat(stream).send_shrinking(&machine));
    convert.wait().failed_saying(&["became shorter"]);
    assert_eq!(sent.join().unwrap(), Sent::Refused);
    assert!(names(folder.path()).is_empty());
}

#[test]
fn what_cannot_be_is_said_before_anybody_waits() {
    let folder = tempfile::tempdir().unwrap();
    let socket = place(&folder.path().join("missing.sock"));
    multifd(&["recv", "--listen", "tcp:127.0.0.1:0", "--to", &socket])
        .failed_saying(&["receive-migration receiver_url=unix:"]);
    for command in ["show", "inspect"] {
        let ended = multifd(&[command, &socket]);
        assert_eq!(ended.status, Some(2), "{ended:?}");
        assert!(ended.stderr.contains("multifd convert --from"), "{ended:?}");
    }
    let send = ["send", "--from", &socket, "--to", "tcp:127.0.0.1:1", "--no-return-path"];
    let ended = multifd(&send);
    assert_eq!(ended.status, Some(2), "{ended:?}");
    assert!(ended.stderr.contains("leave --no-return-path off"), "{ended:?}");
    // No VM of a QEMU's goes there.
    let to = folder.path().join("to.sock");
    let listener = UnixListener::bind(&to).unwrap();
    let recording = &crate::common::recordings()[0];
    multifd(&["decode", text(recording), "--to", &place(&to)])
        .failed_saying(&["not a VM of Cloud Hypervisor's"]);
    drop(listener);
}
