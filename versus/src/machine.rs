//! On what was measured.

use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::error::Error;
use crate::guest::GuestSize;

/// The machine and the QEMU.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Machine {
    pub(crate) processor: String,
    pub(crate) cpus: usize,
    pub(crate) qemu: String,
    /// Processes that wanted a CPU in the minute before the measurement, on average.
    pub(crate) load_before: f64,
    /// The memory that new programs could take before the measurement, in MiB.
    pub(crate) available_mib: u64,
}

/// The load above which figures are not taken down.
const IDLE: f64 = 0.3;

/// How long a machine may take to become idle: the load is an average over a minute.
const PATIENCE: Duration = Duration::from_secs(5 * 60);

/// What the programs need beside the guest's RAM.
const SPARE_MIB: u64 = 1024;

impl Machine {
    /// This machine when it is idle, as it is some minutes after a build, which is waited for.
    ///
    /// # Errors
    /// Where something else runs.
    pub(crate) fn when_idle(qemu: &Path) -> Result<Self, Error> {
        let began = Instant::now();
        loop {
            let machine = Self::here(qemu)?;
            let idle = machine.must_be_idle();
            if idle.is_ok() || began.elapsed() > PATIENCE {
                return idle.map(|()| machine);
            }
            let load = machine.load_before;
            _ = writeln!(io::stderr(), "the load is {load:.2}: waiting for it to fall to {IDLE}");
            thread::sleep(Duration::from_secs(10));
        }
    }

    /// # Errors
    /// Where something else runs.
    fn must_be_idle(&self) -> Result<(), Error> {
        let load = self.load_before;
        if load <= IDLE {
            return Ok(());
        }
        Err(Error::Other(format!(
            "the load is {load:.2}, and what goes into docs is measured at {IDLE} at most: wait until nothing else \
             runs, or leave --docs out"
        )))
    }

    /// The guest's RAM is there as a file in the page cache, and at the destination; what is stored goes to
    /// the disk by the page cache.
    ///
    /// # Errors
    /// Where the guest is too large.
    pub(crate) fn must_have_memory(&self, guest: GuestSize) -> Result<(), Error> {
        let (needed, available) = (2 * guest.mib() + SPARE_MIB, self.available_mib);
        if needed <= available {
            return Ok(());
        }
        Err(Error::Other(format!(
            "a guest of {guest} wants {needed} MiB of memory, and {available} are available: ask for a smaller one by \
             --guest-size"
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
            cpus: thread::available_parallelism().map_or(1, usize::from),
            qemu: version.to_owned(),
            load_before: load(&read("/proc/loadavg")?),
            available_mib: available_mib(&read("/proc/meminfo")?),
        })
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { processor, cpus, qemu, load_before, .. } = self;
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

/// 0 where the system does not say.
fn available_mib(meminfo: &str) -> u64 {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or_default() >> 10
}

fn load(loadavg: &str) -> f64 {
    let word = loadavg.split_whitespace().next().unwrap_or_default();
    word.parse().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that panics fails")]

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
        let meminfo = "MemTotal: 9 kB\nMemAvailable:    2097152 kB\nBuffers: 7 kB\n";
        assert_eq!((available_mib(meminfo), available_mib("")), (2048, 0));
    }

    #[test]
    fn a_guest_that_does_not_fit_is_refused_and_how_to_go_on_is_said() {
        let with = |available_mib| Machine { available_mib, ..Machine::default() };
        let guest = crate::guest::tests::guest().size;
        assert!(with(9216).must_have_memory(guest).is_ok());
        let error = with(9215).must_have_memory(guest).unwrap_err().to_string();
        assert!(error.contains("9216 MiB") && error.contains("--guest-size"), "{error}");
    }
}
