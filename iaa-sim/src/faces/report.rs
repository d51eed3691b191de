//! The counters, as a file while the process runs, and when it exits.

use std::fmt::Write;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;
use std::{fs, io, process, thread};

use super::say;
use crate::config::Config;
use crate::device::Device;

/// How long the file may be behind.
const PERIOD: Duration = Duration::from_millis(100);

#[derive(Debug)]
struct Report {
    devices: Vec<Arc<Device>>,
    file: Option<PathBuf>,
    at_exit: bool,
    /// A child that was forked exits, too, but has counted nothing.
    process: u32,
    /// Held while the file is written.
    writing: Mutex<()>,
}

/// Starts to write the counters, as far as the configuration asks for them.
pub(super) fn start(config: &Config, devices: Vec<Arc<Device>>) -> io::Result<()> {
    static REPORT: OnceLock<Report> = OnceLock::new();
    extern "C" fn at_exit() {
        if let Some(report) = REPORT.get().filter(|report| report.process == process::id()) {
            report.last();
        }
    }
    let file = config
        .counters
        .as_ref()
        .map(|file| file.to_string_lossy().replace("{pid}", &process::id().to_string()).into());
    let at_exit_wanted = config.counters_at_exit;
    if file.is_none() && !at_exit_wanted {
        return Ok(());
    }
    let (process, writing) = (process::id(), Mutex::default());
    let make = || Report { devices, file, at_exit: at_exit_wanted, process, writing };
    let report = REPORT.get_or_init(make);
    report.write()?;
    // SAFETY: the function stays loaded, since the library does.
    if unsafe { libc::atexit(at_exit) } != 0 {
        return Err(io::Error::other("no function can be called at exit"));
    }
    if report.file.is_some() {
        let run = move || {
            crate::thread::become_a_device();
            let mut before = String::new();
            loop {
                thread::sleep(PERIOD);
                let text = report.text();
                if text != before && report.write().is_ok() {
                    before = text;
                }
            }
        };
        thread::Builder::new().name("iaa-sim-counters".to_owned()).spawn(run)?;
    }
    Ok(())
}

impl Report {
    /// A table for each device, in TOML.
    fn text(&self) -> String {
        let mut text = String::new();
        for (number, device) in self.devices.iter().enumerate() {
            let _ = writeln!(text, "[{}]\n{}", super::name(number), device.counters());
        }
        text
    }

    /// Writes the file anew, so that whoever reads it sees a whole one.
    fn write(&self) -> io::Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut new = file.clone().into_os_string();
        new.push(format!(".{}", self.process));
        fs::write(&new, self.text())?;
        fs::rename(&new, file)
    }

    fn last(&self) {
        if let Err(error) = self.write() {
            say(&format!("the counters cannot be written: {error}"));
        }
        if self.at_exit {
            for line in self.text().lines().filter(|line| !line.is_empty()) {
                say(line);
            }
        }
    }
}
