//! On what was measured.

use std::fmt;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde::Serialize;

use crate::error::Error;

/// The machine and the QEMU.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Machine {
    pub(crate) processor: String,
    pub(crate) cpus: usize,
    pub(crate) qemu: String,
    /// Processes that wanted a CPU in the minute before the measurement, on average.
    pub(crate) load_before: f64,
}

/// The load above which figures are not taken down.
const IDLE: f64 = 0.3;

impl Machine {
    /// # Errors
    /// Where something else runs.
    pub(crate) fn must_be_idle(&self) -> Result<(), Error> {
        let load = self.load_before;
        if load <= IDLE {
            return Ok(());
        }
        Err(Error::Other(format!(
            "the load is {load:.2}, and what goes into docs is measured at {IDLE} at most: wait until nothing else \
             runs, or leave --docs out"
        )))
    }

    /// This machine, with the QEMU `qemu`.
    pub(crate) fn here(qemu: &Path) -> Result<Self, Error> {
        let output = Command::new(qemu).arg("--version").output();
        let output = output.map_err(Error::io(format!("run {}", qemu.display())))?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let version = said.split_whitespace().nth(3);
        let version = version.ok_or_else(|| Error::Other(format!("no QEMU's version: {said}")))?;
        Ok(Self {
            processor: processor(&read("/proc/cpuinfo")?).to_owned(),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            qemu: version.to_owned(),
            load_before: load(&read("/proc/loadavg")?),
        })
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { processor, cpus, qemu, load_before } = self;
        write!(f, "QEMU {qemu}; {cpus} CPUs, {processor}; load {load_before:.1} before")
    }
}

fn read(path: &str) -> Result<String, Error> {
    fs::read_to_string(path).map_err(Error::io(format!("read {path}")))
}

fn processor(cpuinfo: &str) -> &str {
    let named = |line: &'_ str| line.starts_with("model name");
    let line = cpuinfo.lines().find(|line| named(line)).unwrap_or_default();
    line.split_once(": ").map_or("unknown processor", |(_, name)| name)
}

fn load(loadavg: &str) -> f64 {
    let word = loadavg.split_whitespace().next().unwrap_or_default();
    word.parse().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_idle_machine_is_measured_for_docs() {
        let with = |load_before| Machine { load_before, ..Machine::default() };
        assert!(with(0.3).must_be_idle().is_ok());
        assert!(with(0.31).must_be_idle().is_err());
        assert!(with(f64::NAN).must_be_idle().is_err());
    }

    #[test]
    fn the_systems_files_are_understood() {
        let cpuinfo = "processor\t: 0\nmodel name\t: AMD EPYC 9: x\nmodel name\t: other\n";
        assert_eq!(processor(cpuinfo), "AMD EPYC 9: x");
        assert_eq!(processor(""), "unknown processor");
        assert!((load("1.25 2.00 3.00 1/200 77\n") - 1.25).abs() < 1e-9);
        assert!(load("").is_nan());
    }
}
