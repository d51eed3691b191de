//! What the system says of this process.

use std::fs;

use rustix::param::{clock_ticks_per_second, page_size};

/// What the system says of this process, as far as it says it.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Process {
    /// When it started, in seconds since 1970.
    pub(super) start: Option<f64>,
    pub(super) resident_bytes: Option<u64>,
    pub(super) virtual_bytes: Option<u64>,
    pub(super) threads: Option<u64>,
    pub(super) open_files: Option<u64>,
    pub(super) most_files: Option<u64>,
}

impl Process {
    pub(super) fn now() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let mut process = Self::parse(&read("/proc/self/stat"), &read("/proc/stat"));
        // Less the one that lists them.
        let files = fs::read_dir("/proc/self/fd").map(|files| files.count().saturating_sub(1));
        process.open_files = files.ok().map(|files| files as u64);
        process.most_files = most_files(&read("/proc/self/limits"));
        process
    }

    /// From the process's `stat` and the system's.
    fn parse(own: &str, system: &str) -> Self {
        // Its second field, the program's name in brackets, may have anything in it.
        let rest = own.rsplit_once(')').map_or("", |(_, rest)| rest);
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        let boot = system.lines().find_map(|line| line.strip_prefix("btime "));
        let boot = boot.and_then(|seconds| seconds.trim().parse::<f64>().ok());
        let ticks = field(22).map(|ticks| ticks as f64 / clock_ticks_per_second() as f64);
        Self {
            start: boot.zip(ticks).map(|(boot, ticks)| boot + ticks),
            resident_bytes: field(24).map(|pages| pages * page_size() as u64),
            virtual_bytes: field(23),
            threads: field(20),
            open_files: None,
            most_files: None,
        }
    }
}

fn most_files(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_are_those_behind_the_name_whatever_that_is() {
        let own = "7 (a) R (b) S 1 7 7 0 -1 4194304 9 0 0 0 5 6 0 0 20 0 3 0 250 8192 2 184 1 1";
        let process = Process::parse(own, "cpu 1 2\nbtime 1000\nprocesses 9\n");
        let start = 1000.0 + 250.0 / clock_ticks_per_second() as f64;
        assert_eq!((process.start, process.threads), (Some(start), Some(3)));
        assert_eq!(process.virtual_bytes, Some(8192));
        assert_eq!(process.resident_bytes, Some(2 * page_size() as u64));
        assert_eq!(Process::parse("", "btime x"), Process::default());
    }

    #[test]
    fn this_process_has_begun_and_has_memory_threads_and_files() {
        let process = Process::now();
        let now = super::super::clock::unix_seconds();
        let age = now - process.start.unwrap();
        assert!((-2.0..3600.0).contains(&age), "{age}");
        assert!(process.resident_bytes > Some(1 << 20) && process.threads > Some(0));
        assert!(process.open_files >= Some(3) && process.most_files > process.open_files);
    }
}
