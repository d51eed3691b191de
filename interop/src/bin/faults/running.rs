//! A program that runs.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use multifd_interop::program::Signal;
use rustix::process::{Pid, WaitId, WaitIdOptions, kill_process, kill_process_group, waitid};

use crate::bench::{LIMIT, WAITS};
use crate::stop;

const PAUSE: Duration = Duration::from_millis(2);

/// How a program ended, and what it said.
#[derive(Debug)]
pub(crate) struct Ended {
    /// `None` if it has not.
    pub(crate) status: Option<ExitStatus>,
    pub(crate) said: String,
}

impl Ended {
    pub(crate) fn code(&self) -> Option<i32> {
        self.status.and_then(|status| status.code())
    }

    /// It has not ended.
    pub(crate) fn is_not(&self) -> bool {
        self.status.is_none()
    }

    pub(crate) fn failed(&self) -> bool {
        self.code() != Some(0)
    }
}

/// A program that runs, and whose words go to files.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    stderr: PathBuf,
    /// From here on its number may be that of another process.
    status: Option<ExitStatus>,
}

impl Running {
    pub(crate) fn start(run: &Path, name: &str, mut command: Command) -> Result<Self, String> {
        let stderr = run.join(format!("{name}.err"));
        let file = fs::File::create(&stderr).map_err(|error| error.to_string())?;
        // A group of its own: strace leaves what it traces running where it is killed.
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(file);
        let child = command.spawn();
        let child = child.map_err(|error| format!("cannot run {command:?}: {error}"))?;
        Ok(Self { child, stderr, status: None })
    }

    /// Waits until it listens. `false` if it ends before.
    pub(crate) fn listens(&mut self) -> Result<bool, String> {
        let begun = Instant::now();
        while begun.elapsed() < LIMIT && !stop::is_told() {
            let ended = self.ended();
            // Its word may be what fails.
            if self.said().contains("listening on ") || self.is_late(begun) {
                return Ok(true);
            }
            if ended.is_some() {
                return Ok(false);
            }
            sleep(PAUSE);
        }
        self.end();
        Err(format!("it does not come to listen: {}", self.said()))
    }

    /// Whether its socket has been there for a while without a word.
    fn is_late(&self, begun: Instant) -> bool {
        let socket = if self.stderr.ends_with("relay.err") { "from" } else { "to" };
        begun.elapsed() > WAITS / 2 && self.stderr.with_file_name(socket).exists()
    }

    pub(crate) fn said(&self) -> String {
        fs::read_to_string(&self.stderr).unwrap_or_default()
    }

    /// Its status, if it has ended; its group has then, too.
    fn ended(&mut self) -> Option<ExitStatus> {
        let pid = Pid::from_child(&self.child);
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        if self.status.is_none() && waitid(WaitId::Pid(pid), look).is_ok_and(|it| it.is_some()) {
            self.end();
        }
        self.status
    }

    pub(crate) fn signal(&self, signal: Signal) {
        if self.status.is_none() {
            // As long as its status has not been taken, nobody else has its number.
            _ = kill_process(Pid::from_child(&self.child), signal);
        }
    }

    /// Waits for its end, but no longer than this.
    pub(crate) fn wait(&mut self, limit: Duration) -> Ended {
        let begun = Instant::now();
        let mut status = self.ended();
        while status.is_none() && begun.elapsed() < limit && !stop::is_told() {
            sleep(PAUSE);
            status = self.ended();
        }
        Ended { status, said: self.said() }
    }

    /// Its exit status, if it ends in time.
    pub(crate) fn code(&mut self) -> Option<i32> {
        self.wait(LIMIT).code()
    }

    /// Kills what is left of its group.
    fn end(&mut self) {
        if self.status.is_none() {
            _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
            self.status = self.child.wait().ok();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}
