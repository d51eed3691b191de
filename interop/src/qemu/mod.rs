//! A QEMU that runs: its process, its guest's memory, and its end.

mod migration;
mod qmp;
mod version;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

pub use migration::{Migration, Settings, UNLIMITED};
use qmp::Qmp;
pub use version::{Missing, Version};

use crate::error::Error;
use crate::firmware;
use crate::wait::wait_until;

/// A QEMU with the guest of [`firmware`], in a folder of its own. It ends when this is dropped.
#[derive(Debug)]
pub struct Qemu {
    child: Child,
    qmp: Qmp,
    folder: TempDir,
}

impl Qemu {
    /// Starts a QEMU whose guest waits for [`cont`](Self::cont).
    ///
    /// `arguments` say which machine with how much memory, which must be `mib` MiB, and whether it
    /// is to be migrated to. The memory is a file, so that it can be compared as it is.
    ///
    /// # Errors
    /// QEMU does not run, or refuses the arguments, in its words.
    pub fn start(program: &Path, mib: u32, arguments: &[String]) -> Result<Self, Error> {
        // In memory where that is possible: a QEMU has postcopy-ram only then.
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        let folder = folder.map_err(Error::io("make a folder"))?;
        let file = folder.path().join("ram");
        let ram = format!(
            "memory-backend-file,id=pc.ram,size={mib}M,share=on,mem-path={}",
            file.display()
        );
        Self::start_in(folder, program, &ram, arguments)
    }

    /// As [`start`](Self::start), with memory that the caller describes: a memory backend with the
    /// id `pc.ram`, as QEMU's option `-object` takes it.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn with_memory(program: &Path, memory: &str, arguments: &[String]) -> Result<Self, Error> {
        let folder = tempfile::tempdir().map_err(Error::io("make a folder"))?;
        Self::start_in(folder, program, memory, arguments)
    }

    fn start_in(
        folder: TempDir,
        program: &Path,
        memory: &str,
        arguments: &[String],
    ) -> Result<Self, Error> {
        let file = |name: &str| folder.path().join(name);
        fs::write(file("firmware"), firmware::image()).map_err(Error::io("write the firmware"))?;
        let stderr = File::create(file("stderr")).map_err(Error::io("make a file"))?;
        let mut child = Command::new(program)
            .args(["-nodefaults", "-accel", "tcg", "-display", "none", "-S"])
            .args(arguments)
            .args(["-object", memory, "-machine", "memory-backend=pc.ram"])
            .arg("-bios")
            .arg(file("firmware"))
            .args(["-qmp", &format!("unix:{},server=on,wait=off", file("qmp").display())])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn()
            .map_err(Error::io(format!("run {}", program.display())))?;
        let connected = wait_until("QEMU listens to commands", || match ended(&mut child)? {
            Some(status) => Err(ended_with(status, &file("stderr"))),
            None => Qmp::connect(&file("qmp")),
        });
        match connected {
            Ok(qmp) => Ok(Self { child, qmp, folder }),
            Err(error) => {
                kill(&mut child);
                Err(error)
            }
        }
    }

    /// Executes a QMP command and gives what it returns.
    ///
    /// # Errors
    /// QEMU refuses it, or has ended; then with what it has said.
    pub fn execute(&mut self, command: &str, arguments: &Value) -> Result<Value, Error> {
        match self.qmp.execute(command, arguments) {
            // Its socket closes a moment before it ends.
            Err(error @ Error::Io { .. }) if !error.is_timeout() => match self.wait() {
                Ok(status) => Err(ended_with(status, &self.file("stderr"))),
                Err(_) => Err(error),
            },
            executed => executed,
        }
    }

    /// Waits for an event of this name for which `take` gives something. Events are read only here:
    /// those that came before another command's answer are gone.
    ///
    /// # Errors
    /// It does not come, or QEMU has ended.
    pub fn wait_for_event<T>(
        &mut self,
        name: &str,
        take: impl FnMut(&Value) -> Option<T>,
    ) -> Result<T, Error> {
        self.qmp.wait_for_event(name, take)
    }

    /// The number of its process.
    pub fn process_id(&self) -> u32 {
        self.child.id()
    }

    /// Lets the guest run.
    ///
    /// # Errors
    /// Those of [`execute`](Self::execute), as for all that follow.
    pub fn cont(&mut self) -> Result<(), Error> {
        self.execute("cont", &json!({})).map(drop)
    }

    /// Stops the guest.
    ///
    /// # Errors
    /// As [`cont`](Self::cont).
    pub fn stop(&mut self) -> Result<(), Error> {
        self.execute("stop", &json!({})).map(drop)
    }

    /// The state of the machine: `running`, `paused`, `postmigrate`…
    ///
    /// # Errors
    /// As [`cont`](Self::cont).
    pub fn status(&mut self) -> Result<String, Error> {
        let status = self.execute("query-status", &json!({}))?;
        Ok(status["status"].as_str().unwrap_or_default().to_owned())
    }

    /// `bytes` of the guest's memory from a physical address on, as its processor sees it.
    ///
    /// # Errors
    /// As [`cont`](Self::cont).
    pub fn memory(&mut self, address: u32, bytes: u32) -> Result<Vec<u8>, Error> {
        let saved = self.file("saved");
        let arguments = json!({ "val": address, "size": bytes, "filename": saved });
        self.execute("pmemsave", &arguments)?;
        fs::read(saved).map_err(Error::io("read what QEMU saved"))
    }

    /// The whole of the guest's RAM.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn ram(&self) -> Result<Vec<u8>, Error> {
        fs::read(self.file("ram")).map_err(Error::io("read the guest's RAM"))
    }

    /// A file of its folder, such as a socket that it is to listen on.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What it has said so far.
    pub fn stderr(&self) -> String {
        read(&self.file("stderr"))
    }

    /// Has [`execute`](Self::execute) wait no longer than this for an answer.
    ///
    /// # Errors
    /// The system refuses that.
    pub fn set_patience(&mut self, patience: Duration) -> Result<(), Error> {
        self.qmp.set_patience(patience)
    }

    /// How it has ended, if it has.
    ///
    /// # Errors
    /// The system does not say.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>, Error> {
        ended(&mut self.child)
    }

    /// Waits until it ends by itself.
    ///
    /// # Errors
    /// It does not.
    pub fn wait(&mut self) -> Result<ExitStatus, Error> {
        let child = &mut self.child;
        wait_until("QEMU ends", || ended(child))
    }

    /// Has it do nothing until [`thaw`](Self::thaw): it then does not even read its sockets.
    ///
    /// # Errors
    /// It has ended.
    pub fn freeze(&self) -> Result<(), Error> {
        self.signal(Signal::STOP)
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// It has ended.
    pub fn thaw(&self) -> Result<(), Error> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> Result<(), Error> {
        kill_process(Pid::from_child(&self.child), signal)
            .map_err(|error| Error::io("send QEMU a signal")(error.into()))
    }

    /// Ends it at once, as a crash of its host would.
    pub fn kill(&mut self) {
        kill(&mut self.child);
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        self.kill();
    }
}

fn ended(child: &mut Child) -> Result<Option<ExitStatus>, Error> {
    child.try_wait().map_err(Error::io("look after QEMU"))
}

fn ended_with(status: ExitStatus, stderr: &Path) -> Error {
    Error::Ended { program: "QEMU", status: status.to_string(), stderr: read(stderr) }
}

fn kill(child: &mut Child) {
    // Fails where it has ended already.
    _ = child.kill();
    _ = child.wait();
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default().trim_end().to_owned()
}
