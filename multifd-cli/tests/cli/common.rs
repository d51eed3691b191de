//! Running the program.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::JoinHandle;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_multifd");

/// What the program said, and its exit status.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    fn new(output: Output) -> Self {
        Self {
            status: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    #[track_caller]
    pub(crate) fn succeeded(self) -> Self {
        assert_eq!(self.status, Some(0), "{self:?}");
        self
    }

    /// Asserts that it failed with one line that has all of `words` in it, beside the log of who was
    /// refused.
    #[track_caller]
    pub(crate) fn failed_saying(self, words: &[&str]) -> Self {
        assert_eq!(self.status, Some(1), "{self:?}");
        let said = |line: &&str| {
            !line.starts_with("listening on ") && !line.contains(" a connection was refused")
        };
        let lines: Vec<_> = self.stderr.lines().filter(said).collect();
        assert!(lines.len() == 1 && lines[0].starts_with("multifd: "), "{self:?}");
        for word in words {
            assert!(lines[0].contains(word), "{word:?} is not in: {}", lines[0]);
        }
        self
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

pub(crate) fn command(args: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(args).env_remove("RUST_LOG");
    command
}

pub(crate) fn multifd(args: &[&str]) -> Ended {
    run(&mut command(args))
}

/// The program with that environment.
pub(crate) fn run(command: &mut Command) -> Ended {
    Ended::new(command.stdin(Stdio::null()).output().unwrap())
}

/// The program while it runs.
pub(crate) struct Running {
    child: Child,
    stderr: BufReader<std::process::ChildStderr>,
    stdout: JoinHandle<String>,
    /// What it has said on stderr so far.
    said: String,
}

impl Running {
    pub(crate) fn start(command: &mut Command) -> Self {
        let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let mut stdout = child.stdout.take().unwrap();
        let stdout = std::thread::spawn(move || {
            let mut text = String::new();
            stdout.read_to_string(&mut text).unwrap();
            text
        });
        Self { child, stderr, stdout, said: String::new() }
    }

    /// `multifd recv` with `args`, and where it listens.
    pub(crate) fn recv(args: &[&str]) -> (Self, String) {
        let mut running = Self::start(command(&["recv"]).args(args));
        let uri = running.listening();
        (running, uri)
    }

    /// Waits for the line that says where the program listens.
    pub(crate) fn listening(&mut self) -> String {
        let line = self.line();
        let uri = line.strip_prefix("listening on ");
        uri.unwrap_or_else(|| panic!("it said: {line}")).to_owned()
    }

    /// Waits for the next line on stderr.
    pub(crate) fn line(&mut self) -> String {
        let from = self.said.len();
        self.stderr.read_line(&mut self.said).unwrap();
        self.said[from..].trim_end().to_owned()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    pub(crate) fn wait(mut self) -> Ended {
        let mut stderr = self.said;
        self.stderr.read_to_string(&mut stderr).unwrap();
        let status = self.child.wait().unwrap().code();
        Ended { status, stdout: self.stdout.join().unwrap(), stderr }
    }
}

/// The recordings of real QEMUs.
pub(crate) fn recordings() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../conformance/recordings");
    let mut folders: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("main.bin").is_file())
        .collect();
    folders.sort();
    assert!(!folders.is_empty(), "there are recordings");
    folders
}

/// Memory of so many pages: a third of them zero, the others with something in them.
pub(crate) fn memory(pages: usize) -> Vec<u8> {
    let mut bytes = vec![0; pages * 4096];
    for (at, page) in bytes.chunks_mut(4096).enumerate() {
        match at % 3 {
            0 => {}
            1 => page.fill(at as u8 | 1),
            _ => {
                for (i, byte) in page.iter_mut().enumerate() {
                    *byte = ((i * at) >> 3) as u8 | 1;
                }
            }
        }
    }
    bytes
}

/// The names in a folder, hidden ones included.
pub(crate) fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

/// Asserts that two images have the same files with the same content, whether or not the source of
/// each said what its RAM holds.
#[track_caller]
pub(crate) fn assert_same_files(one: &Path, other: &Path) {
    assert_eq!(names(one), names(other));
    for name in names(one) {
        let [one, other] = [one, other].map(|image| fs::read(image.join(&name)).unwrap());
        let same = if name == "vm.json" {
            without_digests(&one) == without_digests(&other)
        } else {
            one == other
        };
        assert!(same, "{name} differs");
    }
}

fn without_digests(manifest: &[u8]) -> Value {
    let mut manifest: Value = serde_json::from_slice(manifest).unwrap();
    for block in manifest["blocks"].as_array_mut().unwrap() {
        block.as_object_mut().unwrap().remove("digest");
    }
    manifest
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
