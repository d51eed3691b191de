//! The program `multifd` while it runs.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;

pub use rustix::process::Signal;
use rustix::process::{Pid, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::error::Error;
use crate::wait::wait_until;

/// `multifd` with some arguments. It ends when this is dropped.
#[derive(Debug)]
pub struct Multifd {
    child: Child,
    folder: TempDir,
}

/// How it ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// Whether with success.
    pub success: bool,
    /// Its results.
    pub stdout: String,
    /// Its errors.
    pub stderr: String,
}

impl Multifd {
    /// Starts it.
    ///
    /// # Errors
    /// It is not built and cannot be, or does not start.
    pub fn start<A: AsRef<std::ffi::OsStr>>(
        arguments: impl IntoIterator<Item = A>,
    ) -> Result<Self, Error> {
        Self::spawn(Command::new(built()?).args(arguments))
    }

    /// Starts it where no file may grow above 1 MiB: writing fails then, as on a disk that is full.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_on_full_disk<A: AsRef<std::ffi::OsStr>>(
        arguments: impl IntoIterator<Item = A>,
    ) -> Result<Self, Error> {
        // Blocks of 512 bytes. The signal would end the program where a full disk does not.
        let limited = r#"trap "" XFSZ; ulimit -f 2048; exec "$0" "$@""#;
        Self::spawn(Command::new("sh").args(["-c", limited]).arg(built()?).args(arguments))
    }

    fn spawn(command: &mut Command) -> Result<Self, Error> {
        let folder = tempfile::tempdir().map_err(Error::io("make a folder"))?;
        let file = |name| File::create(folder.path().join(name)).map_err(Error::io("make a file"));
        let child = command
            .stdin(Stdio::null())
            .stdout(file("stdout")?)
            .stderr(file("stderr")?)
            .env_remove("RUST_LOG")
            .spawn()
            .map_err(Error::io("run multifd"))?;
        Ok(Self { child, folder })
    }

    /// Runs it to its end and wants success. Gives what it wrote to stdout.
    ///
    /// # Errors
    /// It fails.
    pub fn run<A: AsRef<std::ffi::OsStr>>(
        arguments: impl IntoIterator<Item = A>,
    ) -> Result<String, Error> {
        Self::start(arguments)?.succeed()
    }

    /// Where `multifd recv` listens, as soon as it does.
    ///
    /// # Errors
    /// It ends before.
    pub fn listening(&mut self) -> Result<String, Error> {
        let line = self.says("listening on ")?;
        Ok(line.trim_start_matches("listening on ").to_owned())
    }

    /// The first line on stderr that has `words` in it, as soon as there is one.
    ///
    /// # Errors
    /// It ends before.
    pub fn says(&mut self, words: &str) -> Result<String, Error> {
        wait_until("multifd says what it is to say", || {
            // Asked first, so that what it said last is seen.
            let ended = self.ended()?;
            let said = self.read("stderr");
            let whole = said.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
            match (whole.into_iter().find(|line| line.contains(words)), ended) {
                (None, Some(status)) => {
                    let status = status.to_string();
                    Err(Error::Ended { program: "multifd", status, stderr: said })
                }
                (line, _) => Ok(line.map(str::to_owned)),
            }
        })
    }

    /// Whether a line on stderr has had `words` in it by now.
    pub fn has_said(&self, words: &str) -> bool {
        self.read("stderr").contains(words)
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// It has ended.
    pub fn signal(&self, signal: Signal) -> Result<(), Error> {
        kill_process(Pid::from_child(&self.child), signal)
            .map_err(|error| Error::io("send multifd a signal")(error.into()))
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// It does not end.
    pub fn wait(mut self) -> Result<Ended, Error> {
        let status = wait_until("multifd ends", || self.ended())?;
        let (stdout, stderr) = (self.read("stdout"), self.read("stderr"));
        Ok(Ended { success: status.success(), stdout, stderr })
    }

    /// Waits for its end and wants success. Gives what it wrote to stdout.
    ///
    /// # Errors
    /// It fails, in its own words.
    pub fn succeed(self) -> Result<String, Error> {
        let ended = self.wait()?;
        if ended.success {
            return Ok(ended.stdout);
        }
        Err(Error::Failed(format!("multifd failed: {}", ended.stderr.trim_end())))
    }

    /// How it has ended, if it has.
    ///
    /// # Errors
    /// The system does not say.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>, Error> {
        self.child.try_wait().map_err(Error::io("look after multifd"))
    }

    /// What it has said on stderr so far.
    pub fn stderr(&self) -> String {
        self.read("stderr")
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.folder.path().join(name)).unwrap_or_default()
    }
}

impl Drop for Multifd {
    fn drop(&mut self) {
        // Fails where it has ended already.
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// The program that the variable names, or else as this workspace builds it now.
fn built() -> Result<&'static Path, Error> {
    static PROGRAM: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let program = PROGRAM.get_or_init(build).as_ref();
    program.map(PathBuf::as_path).map_err(|why| Error::Failed(format!("no multifd: {why}")))
}

fn build() -> Result<PathBuf, String> {
    if let Some(program) = std::env::var_os("MULTIFD_PROGRAM") {
        let program = PathBuf::from(program);
        return match program.is_file() {
            true => Ok(program),
            false => Err(format!("MULTIFD_PROGRAM={}: it is not there", program.display())),
        };
    }
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--locked", "-p", "multifd-cli", "--message-format", "json"]);
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    cargo.current_dir(env!("CARGO_MANIFEST_DIR")).stderr(Stdio::inherit());
    let output = cargo.output().map_err(|error| error.to_string())?;
    let messages = output.stdout.split(|&byte| byte == b'\n');
    let messages = messages.filter_map(|line| serde_json::from_slice::<Value>(line).ok());
    let mut executables = messages.filter_map(|message| {
        (message["target"]["name"] == "multifd").then_some(())?;
        message["executable"].as_str().map(PathBuf::from)
    });
    executables.next_back().ok_or_else(|| format!("cargo build ended with {}", output.status))
}
