//! Who may connect, who is warned of, and who is refused.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use rustix::process::Signal;

use crate::common::{Running, command, memory, multifd, text};

const WARNING: &str = "neither encrypted nor proven";

#[test]
fn listening_on_the_network_is_warned_of_with_what_mends_it_and_on_loopback_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("vm");
    for (listen, warns) in [("tcp::0", true), ("tcp:0.0.0.0:0", true), ("tcp:127.0.0.1:0", false)] {
        let recv = ["recv", "--listen", listen, "--to", text(&image)];
        let relay = ["relay", "--listen", listen, "--to", "tcp:127.0.0.1:1"];
        for args in [&recv[..], &relay[..]] {
            let mut running = Running::start(&mut command(args));
            running.listening();
            if warns {
                let line = running.line();
                assert!(line.contains(WARNING) && line.contains("tls-creds"), "{line}");
            }
            running.signal(Signal::TERM);
            let ended = running.wait();
            assert_eq!(ended.stderr.contains(WARNING), warns, "{ended:?}");
            let mut quiet = Running::start(command(args).arg("--quiet"));
            quiet.listening();
            quiet.signal(Signal::TERM);
            assert!(!quiet.wait().stderr.contains(WARNING));
        }
    }
}

#[test]
fn who_is_not_allowed_is_refused_with_its_address_and_who_is_gets_through() {
    let folder = tempfile::tempdir().unwrap();
    let (file, image) = (folder.path().join("guest.ram"), folder.path().join("vm"));
    fs::write(&file, memory(30)).unwrap();
    let to = ["--listen", "tcp:127.0.0.1:0", "--to", text(&image), "--json"];
    let (mut recv, uri) = Running::recv(&[&to[..], &["--allow-from", "192.0.2.0/24"]].concat());
    let mut stranger = TcpStream::connect(uri.strip_prefix("tcp:").unwrap()).unwrap();
    let address = stranger.local_addr().unwrap().to_string();
    assert_eq!(stranger.read(&mut [0]).unwrap_or(0), 0);
    let line = recv.line();
    assert!(line.contains(&address) && line.contains("no network that is allowed"), "{line}");
    recv.signal(Signal::TERM);
    recv.wait();

    let allowed = ["--allow-from", "192.0.2.0/24,127.0.0.0/8", "--allow-from", "::1"];
    let (mut recv, uri) = Running::recv(&[&to[..], &allowed].concat());
    let mut stranger = TcpStream::connect(uri.strip_prefix("tcp:").unwrap()).unwrap();
    stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let line = recv.line();
    let address = stranger.local_addr().unwrap().to_string();
    assert!(line.contains(&address) && line.contains("HTTP"), "{line}");
    multifd(&["send", "--ram", text(&file), "--to", &uri]).succeeded();
    assert_eq!(recv.wait().succeeded().json()["refused_connections"], 1);
    assert_eq!(fs::read(image.join("pc.ram")).unwrap(), memory(30));
}

#[test]
fn a_network_that_is_none_and_one_that_is_of_no_use_are_usage_errors() {
    for (listen, network, words) in [
        ("tcp::0", "10.0.0.0/99", "is not a network"),
        ("tcp::0", "10.0.0.1/8", "bits behind its prefix"),
        ("unix:/tmp/multifd-none.sock", "10.0.0.0/8", "permissions"),
        ("vsock:1:1", "10.0.0.0/8", "guests"),
    ] {
        let recv = ["recv", "--to", "vm"];
        let relay = ["relay", "--to", "tcp:127.0.0.1:1"];
        for args in [recv, relay] {
            let more = ["--listen", listen, "--allow-from", network];
            let ended = multifd(&[&args[..], &more].concat());
            assert_eq!(ended.status, Some(2), "{ended:?}");
            assert!(ended.stderr.contains(words), "{ended:?}");
        }
    }
}

#[test]
fn a_migration_that_takes_longer_than_it_may_is_ended_on_each_side() {
    let folder = tempfile::tempdir().unwrap();
    let (file, image) = (folder.path().join("guest.ram"), folder.path().join("vm"));
    fs::write(&file, memory(30)).unwrap();
    let limit = ["--time-limit", "0.3"];
    // A destination that takes nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let uri = format!("tcp:{}", silent.local_addr().unwrap());
    let sent = multifd(&[&["send", "--ram", text(&file), "--to", &uri][..], &limit].concat());
    assert!(sent.stderr.contains("not over after 0.3 s"), "{sent:?}");
    // A source that says no more than who it is.
    let recv = ["recv", "--listen", "tcp:127.0.0.1:0", "--to", text(&image)];
    let relay = ["relay", "--listen", "tcp:127.0.0.1:0", "--to", &uri];
    for args in [&recv[..], &relay[..]] {
        let mut running = Running::start(&mut command(&[args, &limit].concat()));
        let uri = running.listening();
        let mut main = TcpStream::connect(uri.strip_prefix("tcp:").unwrap()).unwrap();
        main.write_all(b"QEVM\0\0\0\x03\x07\0\0\0\x02pc").unwrap();
        running.wait().failed_saying(&["not over after 0.3 s"]);
    }
    assert!(!image.exists());
}
