//! Which CPUs the program runs on, and with what priority.

use std::fmt;
use std::io;
use std::str::FromStr;

use rustix::io::Errno;
use rustix::process::{getpriority_process, setpriority_process};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::failure::Failure;

/// Which CPUs the program runs on, and with what priority, so that a migration can be kept off the CPUs of
/// the VMs that run beside it.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Options of CPUs")]
pub(crate) struct Cpu {
    /// Run on these CPUs alone, such as 0-3,8, as taskset -c has them; on those it was started on if not given
    #[arg(long, value_name = "LIST")]
    cpus: Option<CpuList>,
    /// Run with this priority, from -20, which is the highest, to 19; with that it was started with if not given
    #[arg(
        long,
        value_name = "N",
        allow_negative_numbers = true,
        value_parser = clap::value_parser!(i8).range(-20..=19)
    )]
    nice: Option<i8>,
}

impl Cpu {
    /// Has this thread, and each that it starts from now on, run so: to be called before any is started.
    pub(crate) fn apply(&self) -> Result<(), Failure> {
        self.cpus.map_or(Ok(()), CpuList::apply)?;
        self.nice.map_or(Ok(()), apply_nice)
    }
}

/// One CPU or more, by their numbers.
#[derive(Clone, Copy, PartialEq, Eq)]
struct CpuList(CpuSet);

impl CpuList {
    /// Has this thread run on all of these, and on no others.
    fn apply(self) -> Result<(), Failure> {
        let cannot = |error: Errno| {
            Failure::io(format!("cannot run on CPUs {self}"), &io::Error::from(error))
        };
        let missing = match sched_setaffinity(None, &self.0) {
            Err(Errno::INVAL) => Some(self),
            // Of several CPUs, the kernel says nothing of those that it cannot give.
            set => self.without(
                sched_getaffinity(None).and_then(|got| set.map(|()| got)).map_err(cannot)?,
            ),
        };
        let Some(missing) = missing else { return Ok(()) };
        let online = std::fs::read_to_string("/sys/devices/system/cpu/online");
        let online = online.map_or(String::new(), |list| format!("; online are {}", list.trim()));
        Err(Failure::usage(format!(
            "--cpus {self}: there is no CPU {missing} for this process, or its cpuset does not have it{online}"
        )))
    }

    /// Those that are not in `set`, if any.
    fn without(self, mut set: CpuSet) -> Option<Self> {
        for cpu in 0..CpuSet::MAX_CPU {
            if self.0.is_set(cpu) && !set.is_set(cpu) { set.set(cpu) } else { set.unset(cpu) }
        }
        (set.count() > 0).then_some(Self(set))
    }

    /// The first and the last of each run of CPUs.
    fn runs(&self) -> impl Iterator<Item = (usize, usize)> {
        let is_set = |cpu: &usize| *cpu < CpuSet::MAX_CPU && self.0.is_set(*cpu);
        let starts = (0..CpuSet::MAX_CPU)
            .filter(move |cpu| is_set(cpu) && !cpu.checked_sub(1).as_ref().is_some_and(is_set));
        starts.map(move |first| (first, (first..).take_while(is_set).last().unwrap_or(first)))
    }
}

/// As taskset writes it: `0-3,8`, and `0-31:2` for every second.
impl FromStr for CpuList {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            let last = CpuSet::MAX_CPU - 1;
            format!("'{text}' is not a list of CPUs from 0 to {last}, such as 0-3,8 or 0-6:2")
        };
        let number = |text: &str| text.parse().ok().filter(|cpu| *cpu < CpuSet::MAX_CPU);
        let mut set = CpuSet::new();
        for run in text.split(',') {
            let (run, step) = run.split_once(':').unwrap_or((run, "1"));
            let (first, last) = run.split_once('-').unwrap_or((run, run));
            let step = number(step).filter(|step| *step > 0).ok_or_else(wrong)?;
            let (first, last) = number(first).zip(number(last)).ok_or_else(wrong)?;
            if first > last {
                return Err(wrong());
            }
            (first..=last).step_by(step).for_each(|cpu| set.set(cpu));
        }
        Ok(Self(set))
    }
}

impl fmt::Display for CpuList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (first, last)) in self.runs().enumerate() {
            f.write_str(if at > 0 { "," } else { "" })?;
            if first == last { write!(f, "{first}") } else { write!(f, "{first}-{last}") }?;
        }
        Ok(())
    }
}

impl fmt::Debug for CpuList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CpuList({self})")
    }
}

fn apply_nice(nice: i8) -> Result<(), Failure> {
    setpriority_process(None, nice.into()).map_err(|error| match error {
        Errno::ACCESS | Errno::PERM => {
            let from = getpriority_process(None).map_or(String::new(), |now| format!(" from {now}"));
            Failure::new(format!(
                "--nice {nice}: raising the priority{from} needs CAP_SYS_NICE, or LimitNICE={nice:+} in the unit of \
                 systemd"
            ))
        }
        error => Failure::io(format!("cannot run with --nice {nice}"), &error.into()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> CpuList {
        text.parse().unwrap()
    }

    #[test]
    fn a_list_of_cpus_is_read_as_taskset_reads_it() {
        for (text, same) in [
            ("0", "0"),
            ("0-3,8", "0-3,8"),
            ("8,0-3", "0-3,8"),
            ("3,2,1,2", "1-3"),
            ("0-6:2", "0,2,4,6"),
            ("0-7:3,1023", "0,3,6,1023"),
            ("5-5", "5"),
        ] {
            assert_eq!(list(text).to_string(), same, "{text}");
        }
    }

    #[test]
    fn what_is_not_a_list_of_cpus_is_refused() {
        let wrong = [
            "",
            ",",
            "1,",
            "3-1",
            "-1",
            "1-",
            "0-3:0",
            "0-3:",
            "a",
            "0x1",
            "1024",
            "0-99999999999",
            "1 2",
        ];
        for text in wrong {
            let error = text.parse::<CpuList>().unwrap_err();
            assert!(error.contains(&format!("'{text}'")) && error.contains("0-3,8"), "{error}");
        }
    }

    #[test]
    fn the_cpus_that_were_not_given_are_known() {
        assert_eq!(list("0-3,8").without(list("0-2,9").0), Some(list("3,8")));
        assert_eq!(list("0-3,8").without(list("0-9").0), None);
    }
}
