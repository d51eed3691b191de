//! The examples, run against each other as a user runs them.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The example called `name`. Cargo builds the examples with the tests, in a folder beside theirs.
fn example(name: &str) -> Command {
    let test = std::env::current_exe().unwrap();
    let path: PathBuf = test.ancestors().nth(2).unwrap().join("examples").join(name);
    assert!(path.exists(), "run `cargo test -p multifd` without --test, which builds {path:?}");
    let mut command = Command::new(path);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A destination, its output, and the address it listens on.
struct Listening {
    process: Child,
    output: BufReader<std::process::ChildStdout>,
    uri: String,
}

impl Listening {
    fn start(uri: &str, compression: &str) -> Self {
        let mut command = example("vmm_destination");
        let mut process =
            command.args(["--listen", uri, "--compression", compression]).spawn().unwrap();
        let mut output = BufReader::new(process.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        let uri = line.trim_end().strip_prefix("listening on ").expect(&line).to_owned();
        Self { process, output, uri }
    }

    fn end(mut self) -> (bool, String) {
        let mut text = String::new();
        self.output.read_to_string(&mut text).unwrap();
        (self.process.wait().unwrap().success(), text)
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        // A test that fails leaves no process behind; one that has ended cannot be killed.
        _ = self.process.kill();
        _ = self.process.wait();
    }
}

fn send(uri: &str, compression: &str) -> Output {
    example("vmm_source").args(["--to", uri, "--compression", compression]).output().unwrap()
}

/// What stands behind `prefix` in its line of `text`.
fn after<'a>(text: &'a str, prefix: &str) -> &'a str {
    text.lines().find_map(|line| line.strip_prefix(prefix)).unwrap_or_else(|| {
        panic!("no line starts with '{prefix}' in:\n{text}");
    })
}

fn went_on(text: &str, prefix: &str) -> (u64, u64) {
    let (from, to) = after(text, prefix).split_once(" to ").unwrap();
    (from.parse().unwrap(), to.parse().unwrap())
}

fn migrate(uri: &str, compression: &str) {
    let destination = Listening::start(uri, compression);
    let source = send(&destination.uri, compression);
    let (is_good, at_destination) = destination.end();
    let at_source = String::from_utf8(source.stdout).unwrap();
    assert!(source.status.success(), "{}", String::from_utf8_lossy(&source.stderr));
    assert!(is_good, "{at_destination}");

    assert_eq!(after(&at_source, "memory: "), after(&at_destination, "memory: "));
    let stopped: u64 = after(&at_source, "moved, at count ").parse().unwrap();
    let (from, to) = went_on(&at_destination, "the guest runs here, from count ");
    assert!(0 < stopped && stopped == from && from < to, "{stopped}, then {from} to {to}");
}

#[test]
fn the_examples_guest_moves_over_tcp_and_runs_on_there() {
    for compression in ["none", "zstd"] {
        migrate("tcp:127.0.0.1:0", compression);
    }
}

#[test]
fn the_examples_guest_moves_over_a_unix_socket_and_runs_on_there() {
    let folder = tempfile::tempdir().unwrap();
    for compression in ["none", "zstd"] {
        migrate(&format!("unix:{}", folder.path().join(compression).display()), compression);
    }
}

/// The least that has reached the destination when it is killed: some of the first round, which has
/// 36 MiB.
const ENOUGH: usize = 8 << 20;

/// Carries connections to `destination`, which it kills in the middle of the first round.
fn carry_until_killed(proxy: &TcpListener, mut destination: Listening) {
    let address = destination.uri.strip_prefix("tcp:").unwrap().to_owned();
    let carried = Arc::new(AtomicUsize::new(0));
    // The main channel and four others.
    let mut threads = Vec::new();
    for _ in 0..5 {
        let (source, _) = proxy.accept().unwrap();
        let onward = TcpStream::connect(&address).unwrap();
        let (mut back_from, mut back_to) =
            (onward.try_clone().unwrap(), source.try_clone().unwrap());
        std::thread::spawn(move || std::io::copy(&mut back_from, &mut back_to));
        let carried = Arc::clone(&carried);
        threads.push(std::thread::spawn(move || carry(source, onward, &carried)));
    }
    while carried.load(Ordering::Relaxed) < ENOUGH {
        std::thread::yield_now();
    }
    destination.process.kill().unwrap();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

/// Carries what comes from `source`, as long as that is less than [`ENOUGH`] with all others.
fn carry(mut source: TcpStream, mut onward: TcpStream, carried: &AtomicUsize) {
    let mut buffer = vec![0; 64 << 10];
    while carried.load(Ordering::Relaxed) < ENOUGH {
        match source.read(&mut buffer) {
            Ok(bytes) if bytes > 0 && onward.write_all(&buffer[..bytes]).is_ok() => {
                carried.fetch_add(bytes, Ordering::Relaxed);
            }
            _ => break,
        }
    }
    // The killed destination's end closes the connection.
    _ = onward.read(&mut buffer);
    _ = source.shutdown(Shutdown::Both);
}

#[test]
fn the_examples_guest_runs_on_at_the_source_when_the_destination_is_killed() {
    let destination = Listening::start("tcp:127.0.0.1:0", "none");
    let proxy = TcpListener::bind("127.0.0.1:0").unwrap();
    let uri = format!("tcp:{}", proxy.local_addr().unwrap());
    let killer = std::thread::spawn(move || carry_until_killed(&proxy, destination));
    let source = send(&uri, "none");
    killer.join().unwrap();

    let text = String::from_utf8(source.stdout).unwrap();
    assert_eq!(source.status.code(), Some(1), "{text}");
    after(&text, "sending 12288 pages");
    assert!(!text.contains("round 1"), "{text}");
    assert!(!after(&text, "migration failed: ").is_empty());
    let (from, to) = went_on(&text, "the guest runs on here, from count ");
    assert!(0 < from && from < to, "{from} to {to}");
}

#[test]
fn the_examples_guest_runs_on_at_the_source_when_the_destination_refuses_it() {
    let destination = Listening::start("tcp:127.0.0.1:0", "zlib");
    let source = send(&destination.uri, "zstd");
    assert!(!destination.end().0);

    let text = String::from_utf8(source.stdout).unwrap();
    assert_eq!(source.status.code(), Some(1), "{text}");
    assert!(after(&text, "migration failed: ").contains("destination reports failure"), "{text}");
    let (from, to) = went_on(&text, "the guest runs on here, from count ");
    assert!(from < to, "{from} to {to}");
}
