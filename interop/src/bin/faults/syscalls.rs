//! A call to the system fails, or does less than it was asked to.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::bench::{Bench, Fault, Side};
use crate::{Case, Cases, NoCases, random};

/// Calls, and the errors that each is made to fail with, once in each thread: so strace counts. Left out are those whose failure the system
/// does not know (exit, futex as it is used), and those that only the allocator makes (brk).
const ERRORS: [(&str, &[&str]); 47] = [
    ("read", &["EIO", "EINTR"]),
    ("pread64", &["EIO"]),
    ("readv", &["EIO"]),
    ("write", &["ENOSPC", "EIO", "EINTR"]),
    ("pwrite64", &["ENOSPC", "EIO", "EINTR"]),
    ("writev", &["EIO"]),
    ("openat", &["EMFILE", "ENOMEM", "EACCES"]),
    ("mkdir", &["ENOSPC", "EACCES"]),
    ("rmdir", &["EIO"]),
    ("unlink", &["EIO"]),
    ("unlinkat", &["EIO"]),
    ("rename", &["EIO"]),
    ("renameat2", &["EIO", "ENOSPC", "EINVAL"]),
    ("ftruncate", &["ENOSPC", "EIO"]),
    ("fsync", &["EIO", "ENOSPC"]),
    ("fdatasync", &["EIO"]),
    ("flock", &["ENOLCK", "EINTR"]),
    ("fcntl", &["EMFILE"]),
    ("statx", &["EIO", "ENOMEM"]),
    ("newfstatat", &["EIO"]),
    ("getdents64", &["EIO"]),
    ("lseek", &["EIO"]),
    ("ioctl", &["EIO"]),
    ("readlink", &["EIO"]),
    ("mmap", &["ENOMEM"]),
    ("mprotect", &["ENOMEM"]),
    ("madvise", &["EINVAL", "ENOMEM"]),
    ("socket", &["EMFILE", "ENOBUFS"]),
    ("socketpair", &["EMFILE"]),
    ("bind", &["EADDRINUSE", "EACCES"]),
    ("listen", &["EADDRINUSE"]),
    ("accept4", &["EMFILE", "ECONNABORTED", "EINTR", "ENOMEM"]),
    ("connect", &["ECONNREFUSED", "ETIMEDOUT", "EINTR"]),
    ("setsockopt", &["ENOMEM"]),
    ("getsockopt", &["ENOBUFS"]),
    ("getsockname", &["ENOBUFS"]),
    ("getpeername", &["ENOTCONN"]),
    ("shutdown", &["ENOTCONN"]),
    ("sendto", &["ECONNRESET", "EINTR"]),
    ("sendmsg", &["ECONNRESET", "EPIPE", "ENOMEM", "EINTR"]),
    ("recvfrom", &["ECONNRESET", "ENOMEM", "EINTR"]),
    ("recvmsg", &["ECONNRESET", "ENOMEM", "EINTR"]),
    ("poll", &["ENOMEM", "EINTR"]),
    ("ppoll", &["ENOMEM", "EINTR"]),
    ("eventfd2", &["EMFILE"]),
    ("clone3", &["EAGAIN"]),
    ("getrandom", &["EIO"]),
];

/// So many of the first calls of each kind, and so many others by the seed.
const FIRST: u64 = 6;
const OTHERS: u64 = 4;

pub(crate) fn cases(bench: &Bench, quick: bool) -> Cases {
    let probe = Command::new("strace").args(["-qq", "-o", "/dev/null", "true"]).status();
    if !probe.is_ok_and(|status| status.success()) {
        return Err(NoCases::CannotBeHad("strace is missing, or may not trace here".to_owned()));
    }
    let mut cases = Vec::new();
    for side in Side::ALL {
        let made = made(bench, side)?;
        for (call, errors) in ERRORS {
            let Some(&(most, early)) = made.get(call) else { continue };
            for &error in errors {
                for nth in nths(bench.seed, most) {
                    cases.push(case(side, call, error, nth, nth <= early));
                }
            }
        }
    }
    if quick {
        let seed = bench.seed;
        let mut at = 0;
        cases.retain(|_| {
            at += 1;
            random(seed, at) % 60 == 0
        });
    }
    Ok(cases)
}

/// Which of so many calls fail.
fn nths(seed: u64, most: u64) -> Vec<u64> {
    let mut nths: Vec<_> = (1..=most.min(FIRST)).collect();
    if most > FIRST {
        nths.extend((0..OTHERS).map(|index| FIRST + 1 + random(seed, index) % (most - FIRST)));
        nths.sort_unstable();
        nths.dedup();
    }
    nths
}

fn case(side: Side, call: &'static str, error: &'static str, nth: u64, early: bool) -> Case {
    let name = format!("call/{call}/{error}/{}/{nth}", side.name());
    Case::new(name, format!("{call} fails"), side, move |bench| {
        let inject = format!("inject={call}:error={error}:when={nth}");
        let trace = format!("trace={call}");
        let words = [
            "strace",
            "-f",
            "-qq",
            "-o",
            "/dev/null",
            "--seccomp-bpf",
            "-e",
            &trace,
            "-e",
            &inject,
        ];
        let wrapper = words.map(str::to_owned).to_vec();
        let hits_each_thread = true;
        bench.breaks(&Fault { wrapper, may_be_early: early, hits_each_thread, ..Fault::at(side) })
    })
}

/// The most calls of each kind that a thread makes in a migration, since strace counts by threads, and
/// how many of them are made before the program's own code runs.
fn made(bench: &Bench, side: Side) -> Result<BTreeMap<String, (u64, u64)>, String> {
    let log = bench.path(&format!("{}.strace", side.name()));
    let trace = |log: &Path| {
        let words = ["strace", "-f", "-qq", "-o", &log.display().to_string()].map(str::to_owned);
        words.to_vec()
    };
    bench.breaks(&Fault { wrapper: trace(&log), is_harmless: true, ..Fault::at(side) })?;
    let all = count(&log)?;
    let words = trace(&log);
    let mut version = Command::new(&words[0]);
    version.args(&words[1..]).arg(&bench.program).arg("--version");
    version.output().map_err(|error| error.to_string())?;
    let early = count(&log)?;
    let early_of = |call: &str| early.get(call).copied().unwrap_or_default();
    Ok(all.into_iter().map(|(call, most)| (call.clone(), (most, early_of(&call)))).collect())
}

fn count(log: &Path) -> Result<BTreeMap<String, u64>, String> {
    let text = fs::read_to_string(log).map_err(|error| error.to_string())?;
    let mut by_thread: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for line in text.lines() {
        let Some((thread, rest)) = line.split_once(' ') else { continue };
        let Some((call, _)) = rest.trim_start().split_once('(') else { continue };
        *by_thread.entry((thread, call)).or_default() += 1;
    }
    let mut most: BTreeMap<String, u64> = BTreeMap::new();
    for ((_, call), count) in by_thread {
        let now = most.entry(call.to_owned()).or_default();
        *now = (*now).max(count);
    }
    Ok(most)
}

/// Calls of the C library that move fewer bytes than they could.
const SHORT: &str = include_str!("short.c");

pub(crate) fn short_cases(bench: &Bench, quick: bool) -> Cases {
    let (source, library) = (bench.path("short.c"), bench.path("short.so"));
    fs::write(&source, SHORT).map_err(|error| error.to_string())?;
    if Command::new("cc").arg("--version").output().is_err() {
        return Err(NoCases::CannotBeHad("there is no C compiler cc".to_owned()));
    }
    let mut compile = Command::new("cc");
    compile.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(&source).arg("-ldl");
    if !compile.status().is_ok_and(|status| status.success()) {
        return Err(NoCases::Failed("cc does not compile short.c".to_owned()));
    }
    let mut cases = Vec::new();
    for side in Side::ALL {
        for index in 0..if quick { 2 } else { 40 } {
            let (library, seed) = (library.display().to_string(), bench.seed * 1000 + index);
            let name = format!("short/{}/{index}", side.name());
            cases.push(Case::new(name, "short reads and writes", side, move |bench| {
                let wrapper = ["env", &format!("LD_PRELOAD={library}")].map(str::to_owned).to_vec();
                let environment = Some(("SHORT_SEED".to_owned(), seed.to_string()));
                let is_harmless = true;
                bench.breaks(&Fault { wrapper, environment, is_harmless, ..Fault::at(side) })
            }));
        }
    }
    Ok(cases)
}
