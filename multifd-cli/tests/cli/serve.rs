//! `multifd relay --serve` and `multifd recv --serve`: many migrations in one process.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Child;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::common::{Ended, Running, command, memory, multifd, names, text};

const ANYWHERE: &str = "tcp:127.0.0.1:0";

/// How long anything here may take at most.
const LONG: Duration = Duration::from_secs(120);

/// A folder with RAM, a token, and a folder for the VMs that arrive.
struct Site {
    folder: TempDir,
    token: PathBuf,
}

impl Site {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let token = folder.path().join("token");
        fs::write(&token, "the secret of both sides, of 32 bytes or more\n").unwrap();
        fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).unwrap();
        fs::create_dir(folder.path().join("vms")).unwrap();
        Self { folder, token }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// RAM that no other guest has, in a file.
    fn guest(&self, number: usize, pages: usize) -> PathBuf {
        let (path, mut bytes) = (self.path(&format!("guest{number}")), memory(pages));
        bytes[..8].copy_from_slice(&(number as u64 | 1 << 40).to_le_bytes());
        fs::write(&path, bytes).unwrap();
        path
    }

    /// `multifd recv` that serves.
    fn recv(&self, args: &[&str]) -> (Running, String) {
        let to = format!("{}/{{uuid}}-{{time}}", self.path("vms").display());
        let mut recv = command(&["recv", "--serve", "--listen", ANYWHERE, "--to", &to]);
        let mut running = Running::start(recv.args(args));
        let uri = running.listening();
        (running, uri)
    }

    /// A source of a guest.
    fn send(&self, number: usize, uri: &str, args: &[&str]) -> Child {
        let ram = self.path(&format!("guest{number}"));
        let uuid = uuid(number);
        let send = ["send", "--ram", text(&ram), "--uuid", &uuid, "--to", uri, "--quiet"];
        command(&send).args(args).spawn().unwrap()
    }

    /// Asserts that a guest has arrived so many times, each time as it was sent.
    fn assert_arrived(&self, number: usize, times: usize) {
        let (vms, sent) =
            (self.path("vms"), fs::read(self.path(&format!("guest{number}"))).unwrap());
        let own = |name: &String| name.starts_with(&format!("{}-20", uuid(number)));
        let own: Vec<_> = names(&vms).into_iter().filter(own).collect();
        assert_eq!(own.len(), times, "{own:?}");
        for name in own {
            assert!(fs::read(vms.join(name).join("pc.ram")).unwrap() == sent, "{number} differs");
        }
    }
}

fn uuid(number: usize) -> String {
    format!("00000000-0000-4000-8000-{number:012}")
}

/// `multifd relay` that serves to `to`.
fn relay(to: &str, args: &[&str]) -> (Running, String) {
    let mut relay = command(&["relay", "--serve", "--listen", ANYWHERE, "--to", to]);
    let mut running = Running::start(relay.args(args));
    let uri = running.listening();
    (running, uri)
}

#[track_caller]
fn succeeds(mut sent: Child) {
    assert!(sent.wait().unwrap().success());
}

/// What a service answers to a GET.
fn get(metrics: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(metrics.strip_prefix("tcp:").unwrap()).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 "), "{answer}");
    body.to_owned()
}

/// Where a service says that its metrics are.
fn metrics(running: &mut Running) -> String {
    let line = running.line();
    line.strip_prefix("metrics on ").unwrap_or_else(|| panic!("it said: {line}")).to_owned()
}

/// The value of a metric without labels, or with these.
fn metric(metrics: &str, name: &str) -> f64 {
    let text = get(metrics, "/metrics");
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("{name} is not in {text}")).parse().unwrap()
}

/// Waits until it holds.
#[track_caller]
fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < LONG, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn stop(running: Running) -> Ended {
    running.signal(Signal::TERM);
    running.wait().succeeded()
}

#[test]
fn many_at_once_go_through_two_services_and_each_arrives_as_it_was_sent() {
    let site = Site::new();
    let token = text(&site.token);
    let (recv, uri) = site.recv(&["--compression", "zstd", "--token-file", token, "--json-lines"]);
    let audit = site.path("audit");
    let between =
        ["--from-token-file", token, "--to-token-file", token, "--to-compression", "zstd"];
    let watched = ["--metrics", ANYWHERE, "--json-lines", "--audit", text(&audit)];
    let (mut relay, uri) = relay(&uri, &[&between[..], &watched].concat());
    let metrics = metrics(&mut relay);
    assert_eq!(get(&metrics, "/health"), "ok\n");
    (0..8).for_each(|number| drop(site.guest(number, 1000)));
    let sent: Vec<_> =
        (0..8).map(|number| site.send(number, &uri, &["--token-file", token])).collect();
    sent.into_iter().for_each(succeeds);
    // And one of them again.
    succeeds(site.send(3, &uri, &["--token-file", token]));
    (0..8).for_each(|number| site.assert_arrived(number, if number == 3 { 2 } else { 1 }));

    wait_until("nine to have ended", || {
        metric(&metrics, "multifd_migrations_total{result=\"done\"}") as u64 == 9
    });
    assert_eq!(metric(&metrics, "multifd_migrations_running") as u64, 0);
    let status: Value = serde_json::from_str(&get(&metrics, "/status")).unwrap();
    let ended = status["ended"].as_array().unwrap();
    assert_eq!(ended.len(), 9, "{status}");
    assert!(ended.iter().all(|one| one["result"] == "done" && one["confirmed"] == true));
    assert!(ended.iter().all(|one| one["cpu_seconds"].as_f64().unwrap() > 0.0), "{status}");

    let (relayed, received) = (stop(relay), stop(recv));
    for (ended, stored) in [(&relayed, false), (&received, true)] {
        let events = lines(&ended.stdout);
        let of =
            |kind: &str| events.iter().filter(|event| event["event"] == kind).collect::<Vec<_>>();
        assert_eq!((of("began").len(), of("ended").len(), of("refused").len()), (9, 9, 0));
        assert!(of("ended").iter().all(|event| event["stored"].is_string() == stored));
        assert_eq!(events.last().unwrap()["event"], "stopped");
    }
    let audited = lines(&fs::read_to_string(&audit).unwrap());
    assert_eq!(audited.len(), 18);
    let own = |event: &&Value| event["uuid"] == uuid(3);
    let own: Vec<_> = audited.iter().filter(own).map(|event| event["event"].clone()).collect();
    assert_eq!(own, ["began", "ended", "began", "ended"]);
    assert_eq!(fs::metadata(&audit).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn what_fails_ends_itself_alone() {
    let site = Site::new();
    let (recv, uri) = site.recv(&["--ram-limit", "2M", "--channel-timeout", "1s", "--json-lines"]);
    site.guest(1, 1000);
    site.guest(2, 300);
    // No VM of that UUID is taken, no codec is the one of the source, nobody is at home.
    assert!(!site.send(1, &uri, &[]).wait().unwrap().success());
    assert!(!site.send(2, &uri, &["--compression", "zstd"]).wait().unwrap().success());
    let mut stranger = TcpStream::connect(uri.strip_prefix("tcp:").unwrap()).unwrap();
    stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    assert_eq!(stranger.read(&mut [0]).unwrap_or(0), 0);
    succeeds(site.send(2, &uri, &[]));
    site.assert_arrived(1, 0);
    site.assert_arrived(2, 1);
    assert_eq!(names(&site.path("vms")).len(), 1, "nothing is left of what failed");
    let ended = stop(recv);
    let events = lines(&ended.stdout);
    let results: Vec<_> = events
        .iter()
        .filter(|event| event["event"] == "ended")
        .map(|event| &event["result"])
        .collect();
    assert_eq!(results, ["failed", "failed", "done"], "{ended:?}");
    assert!(events.iter().any(|event| event["event"] == "refused"), "{ended:?}");
    assert!(ended.stderr.contains("--ram-limit"), "{ended:?}");
}

#[test]
fn a_service_that_is_told_to_stop_has_those_that_run_end_and_takes_no_more() {
    let site = Site::new();
    let (recv, uri) = site.recv(&[]);
    let (mut relay, uri) = relay(&uri, &["--metrics", ANYWHERE]);
    let metrics = metrics(&mut relay);
    site.guest(1, 1000);
    site.guest(2, 1000);
    let slow = site.send(1, &uri, &["--max-bandwidth", "2MiB/s"]);
    wait_until("the first to run", || metric(&metrics, "multifd_migrations_running") as u64 == 1);
    relay.signal(Signal::TERM);
    wait_until("it to stop", || {
        let mut stream = TcpStream::connect(metrics.strip_prefix("tcp:").unwrap()).unwrap();
        write!(stream, "GET /health HTTP/1.1\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.starts_with("HTTP/1.1 503 ")
    });
    assert!(!site.send(2, &uri, &[]).wait().unwrap().success());
    succeeds(slow);
    relay.wait().succeeded();
    stop(recv);
    site.assert_arrived(1, 1);
    site.assert_arrived(2, 0);
}

#[test]
fn a_second_signal_cancels_those_that_run() {
    let site = Site::new();
    let (recv, uri) = site.recv(&["--json-lines"]);
    site.guest(1, 1000);
    let mut slow = site.send(1, &uri, &["--max-bandwidth", "100KiB/s"]);
    wait_until("it to come", || !names(&site.path("vms")).is_empty());
    recv.signal(Signal::TERM);
    // Sooner it would be one wish with the first.
    std::thread::sleep(Duration::from_millis(2100));
    recv.signal(Signal::TERM);
    let ended = recv.wait().succeeded();
    assert!(!slow.wait().unwrap().success());
    let events = lines(&ended.stdout);
    let over = events.iter().find(|event| event["event"] == "ended").unwrap();
    assert_eq!(over["result"], "cancelled", "{ended:?}");
    assert_eq!(names(&site.path("vms")), [""; 0]);
}

#[test]
fn migrations_that_do_not_end_are_cancelled_after_a_time() {
    let site = Site::new();
    let (recv, uri) = site.recv(&["--stop-timeout", "200ms"]);
    site.guest(1, 1000);
    let mut slow = site.send(1, &uri, &["--max-bandwidth", "100KiB/s"]);
    wait_until("it to come", || !names(&site.path("vms")).is_empty());
    stop(recv);
    assert!(!slow.wait().unwrap().success());
    assert_eq!(names(&site.path("vms")), [""; 0]);
}

#[test]
fn each_vm_goes_where_its_uuid_says() {
    let site = Site::new();
    let mut there = Vec::new();
    for number in [1, 2] {
        let socket = format!("unix:{}/{}", site.folder.path().display(), uuid(number));
        let image = site.path(&format!("vm{number}"));
        site.guest(number, 300);
        let (recv, _) = Running::recv(&["--listen", &socket, "--to", text(&image)]);
        there.push((number, image, recv));
    }
    let (relay, uri) = relay(&format!("unix:{}/{{uuid}}", site.folder.path().display()), &[]);
    for (number, image, recv) in there {
        succeeds(site.send(number, &uri, &[]));
        recv.wait().succeeded();
        let sent = fs::read(site.path(&format!("guest{number}"))).unwrap();
        assert!(fs::read(image.join("pc.ram")).unwrap() == sent);
    }
    // Nobody waits for this one.
    site.guest(3, 300);
    assert!(!site.send(3, &uri, &[]).wait().unwrap().success());
    stop(relay);
}

#[test]
fn what_a_service_cannot_do_is_said_before_it_starts() {
    let usage = |args: &[&str], words: &str| {
        let ended = multifd(args);
        assert!(ended.status == Some(2) && ended.stderr.contains(words), "{ended:?}");
    };
    usage(&["recv", "--serve", "--listen", ANYWHERE, "--to", "vm"], "{uuid}");
    usage(&["recv", "--serve", "--to", "{uuid}"], "--listen");
    usage(&["recv", "--to", "vm"], "--listen");
    usage(&["recv", "--serve", "--listen", ANYWHERE, "--to", "{uuid}", "--json"], "--json-lines");
    usage(&["relay", "--serve", "--listen", ANYWHERE, "--to", ANYWHERE, "--inspect"], "--inspect");
    usage(&["relay", "--listen", ANYWHERE, "--to", ANYWHERE, "--audit", "a"], "--serve");
    let open = ["relay", "--serve", "--listen", ANYWHERE, "--to", "tcp:127.0.0.1:1"];
    let ended = multifd(&[&open[..], &["--metrics", "tcp:0.0.0.0:0"]].concat());
    assert!(!ended.stderr.is_empty() && ended.status != Some(0), "{ended:?}");
}

/// What a process has, by what the system says of it.
#[derive(Debug)]
struct Has {
    descriptors: usize,
    threads: usize,
    /// Resident, KiB.
    memory: u64,
}

fn has(process: u32) -> Has {
    let count = |what| fs::read_dir(format!("/proc/{process}/{what}")).unwrap().count();
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let memory = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let memory = memory.trim().trim_end_matches(" kB").parse().unwrap();
    Has { descriptors: count("fd"), threads: count("task"), memory }
}

/// One after another, and 20 at once, through a relay: it grows by no descriptor, no thread and next to no memory.
/// `MULTIFD_SOAK=1000` has as many, and says what it was.
#[test]
fn a_relay_that_serves_does_not_grow() {
    let asked = std::env::var("MULTIFD_SOAK").ok().map(|count| count.parse().unwrap());
    let count: usize = asked.unwrap_or(40);
    let site = Site::new();
    let token = text(&site.token);
    // Nobody reads what they say of each migration.
    let many = ["--most-migrations", "20", "--quiet"];
    let recv = ["--token-file", token, "--compression", "zstd"];
    let (recv, uri) = site.recv(&[&recv[..], &many].concat());
    let tokens = ["--from-token-file", token, "--to-token-file", token];
    let zstd = ["--to-compression", "zstd"];
    let (relay, uri) = relay(&uri, &[&tokens[..], &zstd, &many].concat());
    (0..20).for_each(|number| drop(site.guest(number, 2000)));
    let at_once = || {
        let sent: Vec<_> =
            (0..20).map(|number| site.send(number, &uri, &["--token-file", token])).collect();
        sent.into_iter().for_each(succeeds);
    };
    let clear = || {
        (0..20).for_each(|number| {
            let own = uuid(number);
            let vms = site.path("vms");
            for name in names(&vms).into_iter().filter(|name| name.starts_with(&own)) {
                let image = vms.join(name);
                let sent = fs::read(site.path(&format!("guest{number}"))).unwrap();
                assert!(fs::read(image.join("pc.ram")).unwrap() == sent, "{number} differs");
                fs::remove_dir_all(image).unwrap();
            }
        });
    };
    let process = relay.pid();
    let settled = |before: Option<&Has>| {
        // The threads of the last are about to end.
        let mut now = has(process);
        wait_until("threads to end", || {
            now = has(process);
            before.is_none_or(|before| {
                now.threads <= before.threads && now.descriptors <= before.descriptors
            })
        });
        now
    };
    at_once();
    clear();
    succeeds(site.send(0, &uri, &["--token-file", token]));
    std::thread::sleep(Duration::from_millis(200));
    let before = settled(None);
    at_once();
    let peak = peak(process);
    clear();
    let began = Instant::now();
    for number in 0..count {
        succeeds(site.send(number % 20, &uri, &["--token-file", token]));
        if number % 20 == 19 {
            clear();
        }
    }
    let (time, after) = (began.elapsed(), settled(Some(&before)));
    if asked.is_some() {
        let each = time.as_secs_f64() / count as f64;
        // Not by println, which is captured.
        let line = format!(
            "{count} one after another: {each:.3} s each; before {before:?}, after {after:?}; the most \
             memory, with 20 at once: {peak} KiB\n"
        );
        std::io::stderr().write_all(line.as_bytes()).unwrap();
    }
    // What the allocator keeps differs from run to run, by less than one migration's buffers.
    assert!(after.memory < before.memory + (8 << 10), "{before:?} {after:?}");
    // Of 20 at once on 4 channels each, by the documents' bound: 32 MiB, and 4 MiB a channel.
    assert!(peak < (32 + 20 * 4 * 4) << 10, "{peak} KiB");
    stop(relay);
    stop(recv);
}

/// The most resident memory of a process so far, KiB.
fn peak(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    peak.trim().trim_end_matches(" kB").parse().unwrap()
}
