//! What the environment says about the simulated devices.

use std::ffi::{CString, OsString};
use std::fmt::Write;

/// What the name of every variable of the simulation begins with.
pub(crate) const PREFIX: &str = "QPL_SIM_";

/// The devices, their timing and their faults.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Config {
    /// What the library says it is.
    pub(crate) version: CString,
    pub(crate) devices: usize,
    /// The NUMA node of all devices, if they have one.
    pub(crate) numa_node: Option<i32>,
    /// Engines of a device.
    pub(crate) engines: usize,
    /// Jobs that a device takes before it is busy.
    pub(crate) queue_depth: usize,
    /// Nanoseconds.
    pub(crate) latency: u64,
    /// Bytes a second of an engine; 0 for no limit.
    pub(crate) throughput: u64,
    /// How far the time of a job may be off, as a fraction of it.
    pub(crate) jitter: f64,
    pub(crate) seed: u64,
    pub(crate) rates: Rates,
    /// The job at which the devices are lost.
    pub(crate) lost_after: Option<u64>,
    pub(crate) check_input: Option<bool>,
}

/// How often each fault happens: 0 for never, 1 for always.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Rates {
    pub(crate) busy: f64,
    pub(crate) page_fault: f64,
    pub(crate) compress_error: f64,
    pub(crate) decompress_error: f64,
    pub(crate) wrong_total_out: f64,
    pub(crate) hang: f64,
    pub(crate) init: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            version: c"1.9.0+sim".to_owned(),
            devices: 1,
            numa_node: None,
            engines: 8,
            queue_depth: 128,
            latency: 0,
            throughput: 0,
            jitter: 0.1,
            seed: 1,
            rates: Rates::default(),
            lost_after: None,
            check_input: None,
        }
    }
}

impl Config {
    /// Reads those of `variables` whose names begin with [`PREFIX`].
    ///
    /// # Errors
    /// A line for each that is unknown or has an impossible value.
    pub(crate) fn parse(
        variables: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, String> {
        let mut config = Self::default();
        let mut refused = String::new();
        for (name, value) in variables {
            let (name, value) = (name.to_string_lossy(), value.to_string_lossy());
            let Some(setting) = name.strip_prefix(PREFIX) else { continue };
            if let Err(why) = config.set(setting, &value) {
                let _ = write!(refused, "\n  {name}={value}: {why}");
            }
        }
        if refused.is_empty() { Ok(config) } else { Err(refused) }
    }

    /// Whether the devices may have jobs for `numa_id`: a node's number, or negative, a policy that
    /// they fit wherever the caller runs.
    pub(crate) fn fits(&self, numa_id: i32) -> bool {
        numa_id < 0 || self.numa_node.is_none_or(|node| node == numa_id)
    }

    /// Whether a job takes no time but that of the CPU.
    pub(crate) fn is_instant(&self) -> bool {
        self.latency == 0 && self.throughput == 0
    }

    /// Whether a job's input is looked at again at its end.
    pub(crate) fn checks_input(&self) -> bool {
        self.check_input.unwrap_or(!self.is_instant())
    }

    fn set(&mut self, setting: &str, value: &str) -> Result<(), String> {
        let rates = &mut self.rates;
        match setting {
            "VERSION" => {
                self.version = CString::new(value).map_err(|_| "no byte of it may be 0")?;
            }
            "NUMA_NODE" => self.numa_node = node(value)?,
            "DEVICES" => self.devices = count(value, 0, 64)?,
            "ENGINES" => self.engines = count(value, 1, 1024)?,
            "QUEUE_DEPTH" => self.queue_depth = count(value, 1, 65536)?,
            "LATENCY" => self.latency = nanoseconds(value)?,
            "THROUGHPUT" => self.throughput = throughput(value)?,
            "JITTER" => self.jitter = fraction(value, 0.5)?,
            "SEED" => self.seed = value.parse().map_err(|_| "not a whole number below 2^64")?,
            "BUSY" => rates.busy = fraction(value, 1.0)?,
            "PAGE_FAULT" => rates.page_fault = fraction(value, 1.0)?,
            "COMPRESS_ERROR" => rates.compress_error = fraction(value, 1.0)?,
            "DECOMPRESS_ERROR" => rates.decompress_error = fraction(value, 1.0)?,
            "WRONG_TOTAL_OUT" => rates.wrong_total_out = fraction(value, 1.0)?,
            "HANG" => rates.hang = fraction(value, 1.0)?,
            "INIT" => rates.init = fraction(value, 1.0)?,
            "DEVICE_LOST_AFTER" => {
                self.lost_after = Some(value.parse().map_err(|_| "not a number of jobs")?);
            }
            "CHECK_INPUT" => self.check_input = Some(switch(value)?),
            _ => return Err("unknown variable".to_owned()),
        }
        Ok(())
    }
}

fn count(value: &str, least: usize, most: usize) -> Result<usize, String> {
    let number = value.parse().ok().filter(|number| (least..=most).contains(number));
    number.ok_or_else(|| format!("not a whole number from {least} to {most}"))
}

fn node(value: &str) -> Result<Option<i32>, String> {
    match value {
        "none" => Ok(None),
        number => count(number, 0, 1023).map(|node| Some(node as i32)),
    }
}

fn fraction(value: &str, most: f64) -> Result<f64, String> {
    let number = value.parse().ok().filter(|number| (0.0..=most).contains(number));
    number.ok_or_else(|| format!("not a fraction from 0 to {most}, such as 0.3"))
}

fn switch(value: &str) -> Result<bool, String> {
    match value {
        "0" => Ok(false),
        "1" => Ok(true),
        _ => Err("neither 0 nor 1".to_owned()),
    }
}

/// A time such as `800`, `800ns`, `1.5us`, `2ms` or `1s`.
fn nanoseconds(value: &str) -> Result<u64, String> {
    let units = [("ns", 1.0), ("us", 1e3), ("ms", 1e6), ("s", 1e9)];
    // An hour: no job takes that long, and sums of it stay far below what a u64 holds.
    with_unit(value, &units, 3.6e12)
        .ok_or_else(|| "not a time up to an hour, such as 800ns, 5us, 1ms or 1s".to_owned())
}

/// A number of bytes such as `0`, `500000`, `800M` or `1.5G`, with powers of 1000.
fn throughput(value: &str) -> Result<u64, String> {
    let units = [("K", 1e3), ("M", 1e6), ("G", 1e9)];
    let bytes = with_unit(value, &units, 1e12);
    // Slower than that, a page would take seconds.
    bytes
        .filter(|&bytes| bytes == 0 || bytes >= 1000)
        .ok_or_else(|| "neither 0 nor 1K to 1000G bytes a second, such as 800M or 1.5G".to_owned())
}

fn with_unit(value: &str, units: &[(&str, f64)], most: f64) -> Option<u64> {
    let unit = units.iter().find_map(|(unit, factor)| Some((value.strip_suffix(unit)?, *factor)));
    let (number, factor) = unit.unwrap_or((value, 1.0));
    let number = number.parse::<f64>().ok()? * factor;
    (0.0..=most).contains(&number).then(|| number.round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(setting: &str, value: &str) -> Result<Config, String> {
        Config::parse([(format!("{PREFIX}{setting}").into(), value.into())])
    }

    #[test]
    fn other_variables_are_ignored() {
        let others = [("PATH", "/bin"), ("QPL_LIBRARY", "x"), ("QPL_SIMILAR", "y")];
        let others = others.map(|(name, value)| (name.into(), value.into()));
        assert_eq!(Config::parse(others), Ok(Config::default()));
    }

    #[test]
    fn times_and_throughputs_have_units() {
        for (value, nanoseconds) in [("0", 0), ("800", 800), ("1.5us", 1500), ("2ms", 2_000_000)] {
            assert_eq!(parse("LATENCY", value).unwrap().latency, nanoseconds, "{value}");
        }
        for (value, bytes) in [("0", 0), ("5000", 5000), ("1.5G", 1_500_000_000), ("8K", 8000)] {
            assert_eq!(parse("THROUGHPUT", value).unwrap().throughput, bytes, "{value}");
        }
    }

    #[test]
    fn a_bad_value_is_refused_with_name_value_and_reason() {
        let bad = [
            ("DEVICES", "-1"),
            ("DEVICES", "65"),
            ("NUMA_NODE", "-1"),
            ("NUMA_NODE", "1024"),
            ("ENGINES", "0"),
            ("QUEUE_DEPTH", "0"),
            ("QUEUE_DEPTH", ""),
            ("LATENCY", "5m"),
            ("LATENCY", "-5"),
            ("LATENCY", "2000000s"),
            ("THROUGHPUT", "1T"),
            ("THROUGHPUT", "NaN"),
            ("THROUGHPUT", "10"),
            ("JITTER", "0.6"),
            ("SEED", "x"),
            ("BUSY", "1.01"),
            ("HANG", "30%"),
            ("INIT", "-0.1"),
            ("PAGE_FAULT", "nan"),
            ("DEVICE_LOST_AFTER", "never"),
            ("CHECK_INPUT", "yes"),
            ("LATENZY", "5"),
            ("", "5"),
        ];
        for (setting, value) in bad {
            let refused = parse(setting, value).unwrap_err();
            let begin = format!("\n  {PREFIX}{setting}={value}: ");
            assert!(refused.starts_with(&begin) && refused.len() > begin.len(), "{refused}");
        }
    }

    #[test]
    fn all_that_is_wrong_is_named_at_once() {
        let bad = [("QPL_SIM_SEED", "x"), ("QPL_SIM_BUSY", "2"), ("QPL_SIM_INIT", "1")];
        let refused = Config::parse(bad.map(|(name, value)| (name.into(), value.into())));
        assert_eq!(refused.unwrap_err().lines().count(), 3, "an empty line and two");
    }

    #[test]
    fn input_is_checked_where_jobs_take_time_unless_said_otherwise() {
        assert!(!Config::default().checks_input());
        assert!(parse("LATENCY", "1").unwrap().checks_input());
        assert!(parse("THROUGHPUT", "1G").unwrap().checks_input());
        assert!(parse("CHECK_INPUT", "1").unwrap().checks_input());
    }

    #[test]
    fn the_readme_has_every_variable_with_its_default() {
        let readme = include_str!("../README.md");
        let rows: Vec<_> = readme.lines().filter(|line| line.starts_with("| `QPL_SIM_")).collect();
        assert_eq!(rows.len(), 18);
        for row in rows {
            let mut cells = row.split('|').map(|cell| cell.trim().trim_matches('`')).skip(1);
            let (name, default) = (cells.next().unwrap(), cells.next().unwrap());
            let setting = name.strip_prefix(PREFIX).unwrap();
            match default {
                "never" => assert!(parse(setting, "7").is_ok(), "{row}"),
                "see below" => assert!(parse(setting, "1").is_ok(), "{row}"),
                _ => assert_eq!(parse(setting, default), Ok(Config::default()), "{row}"),
            }
        }
    }
}
