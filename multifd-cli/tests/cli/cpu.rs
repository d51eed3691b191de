//! Which CPUs the program runs on, and with what priority.

use std::fs;
use std::path::Path;

use rustix::process::Signal;

use crate::common::{Running, command, multifd, text};

/// What `/proc` says in `status` of a process or a thread.
fn allowed(of: &Path) -> String {
    let status = fs::read_to_string(of.join("status")).unwrap();
    let cpus = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    cpus.unwrap().trim().to_owned()
}

/// The 19th field of `stat`; the second is a name in brackets.
fn nice(of: &Path) -> i32 {
    let stat = fs::read_to_string(of.join("stat")).unwrap();
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    fields.split(' ').nth(16).unwrap().parse().unwrap()
}

#[test]
fn every_thread_runs_on_the_cpus_and_with_the_priority_that_are_asked_for() {
    let cpus = allowed(Path::new("/proc/self"));
    let cpu = cpus.split([',', '-']).next().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("vm");
    for to in [["recv", "--to", text(&image)], ["relay", "--to", "tcp:127.0.0.1:1"]] {
        let options = ["--listen", "tcp:127.0.0.1:0", "--cpus", cpu, "--nice", "19"];
        let mut running = Running::start(command(&to).args(options));
        running.listening();
        let tasks = fs::read_dir(format!("/proc/{}/task", running.pid())).unwrap();
        let tasks: Vec<_> = tasks.map(|task| task.unwrap().path()).collect();
        assert!(tasks.len() > 1, "the thread for signals is one: {tasks:?}");
        for task in tasks {
            assert_eq!((&*allowed(&task), nice(&task)), (cpu, 19), "{}", task.display());
        }
        running.signal(Signal::TERM);
        running.wait();
    }
}

#[test]
fn a_cpu_that_is_not_there_is_wrong_usage_that_says_which_are() {
    let cpus = allowed(Path::new("/proc/self"));
    for wanted in ["1023", &format!("{cpus},1023")] {
        for ends in [
            ["send", "--ram", "/nonexistent"],
            ["recv", "--listen", "unix:/nonexistent"],
            ["relay", "--listen", "unix:/nonexistent"],
        ] {
            let options = ["--to", "unix:/nonexistent/sock", "--cpus", wanted];
            let ended = multifd(&[&ends[..], &options].concat());
            assert_eq!(ended.status, Some(2), "{ended:?}");
            assert!(ended.stderr.contains("there is no CPU 1023 for this process"), "{ended:?}");
            // Where the system says it.
            let is_known = Path::new("/sys/devices/system/cpu/online").exists();
            assert_eq!(ended.stderr.contains("; online are "), is_known, "{ended:?}");
        }
    }
}
