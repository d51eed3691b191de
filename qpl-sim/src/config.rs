//! What the environment says about the library. What it says about the devices is
//! [`iaa_sim::Config`]'s.

use std::ffi::{CString, OsString};
use std::fmt::Write;

/// What the name of every variable of the library begins with.
pub(crate) const PREFIX: &str = "QPL_SIM_";

/// The library, and the devices behind it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Config {
    /// What the library says it is.
    pub(crate) version: CString,
    /// How often the initialisation of a job for hardware fails.
    pub(crate) init: f64,
    /// Submissions after which all further ones are refused.
    pub(crate) refuse_after: Option<u64>,
    /// Whether a job's input is looked at again at its end, where that is said.
    pub(crate) check_input: Option<bool>,
    /// Whether pages of one repeated byte are done without a device.
    pub(crate) at_once: bool,
    pub(crate) devices: iaa_sim::Config,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            version: c"1.9.0+sim".to_owned(),
            init: 0.0,
            refuse_after: None,
            check_input: None,
            at_once: false,
            devices: iaa_sim::Config::default(),
        }
    }
}

impl Config {
    /// Reads those of `variables` whose names begin with [`PREFIX`], and the devices' own.
    ///
    /// # Errors
    /// A line for each that is unknown or has an impossible value; one for all of the devices' own.
    pub(crate) fn parse(
        variables: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, String> {
        let variables: Vec<_> = variables.into_iter().collect();
        let mut config = Self::default();
        let mut refused = String::new();
        for (name, value) in &variables {
            let (name, value) = (name.to_string_lossy(), value.to_string_lossy());
            let Some(setting) = name.strip_prefix(PREFIX) else { continue };
            if let Err(why) = config.set(setting, &value) {
                let _ = write!(refused, "\n  {name}={value}: {why}");
            }
        }
        match iaa_sim::Config::from_variables(variables) {
            Ok(devices) => config.devices = devices,
            Err(why) => refused = format!("{refused}\n  {why}"),
        }
        if refused.is_empty() { Ok(config) } else { Err(refused) }
    }

    /// Whether a job's input is looked at again at its end.
    pub(crate) fn checks_input(&self) -> bool {
        let speeds = [self.devices.compress, self.devices.decompress];
        let take_time = speeds.iter().any(|speed| speed.latency != 0 || speed.throughput != 0);
        self.check_input.unwrap_or(take_time)
    }

    fn set(&mut self, setting: &str, value: &str) -> Result<(), String> {
        match setting {
            "VERSION" => {
                self.version = CString::new(value).map_err(|_| "no byte of it may be 0")?;
            }
            "INIT" => self.init = rate(value)?,
            "REFUSE_AFTER" => self.refuse_after = or_never(value)?,
            "CHECK_INPUT" => self.check_input = Some(switch(value)?),
            "AT_ONCE" => self.at_once = switch(value)?,
            _ => return Err(unknown(setting)),
        }
        Ok(())
    }
}

/// The settings that were the library's once, and what the devices have in their place.
const MOVED: [(&str, &str); 14] = [
    ("NUMA_NODE", "IAA_SIM_NUMA_NODES"),
    ("DEVICES", "IAA_SIM_DEVICES"),
    ("ENGINES", "IAA_SIM_ENGINES"),
    ("QUEUE_DEPTH", "IAA_SIM_QUEUE_DEPTHS"),
    ("LATENCY", "IAA_SIM_COMPRESS_LATENCY and IAA_SIM_DECOMPRESS_LATENCY"),
    ("THROUGHPUT", "IAA_SIM_COMPRESS_THROUGHPUT and IAA_SIM_DECOMPRESS_THROUGHPUT"),
    ("JITTER", "IAA_SIM_JITTER"),
    ("SEED", "IAA_SIM_SEED"),
    ("BUSY", "IAA_SIM_QUEUE_FULL"),
    ("PAGE_FAULT", "IAA_SIM_PAGE_FAULT and IAA_SIM_PAGE_FAULT_AGAIN"),
    ("COMPRESS_ERROR", "IAA_SIM_ERROR with IAA_SIM_ERROR_ON=compress"),
    ("DECOMPRESS_ERROR", "IAA_SIM_ERROR with IAA_SIM_ERROR_ON=decompress"),
    ("WRONG_TOTAL_OUT", "IAA_SIM_WRONG_OUTPUT_SIZE"),
    ("HANG", "IAA_SIM_NO_COMPLETION"),
];

fn unknown(setting: &str) -> String {
    let moved = MOVED.iter().find(|(old, _)| *old == setting);
    match (moved, setting) {
        (Some((_, new)), _) => format!("it is the device's now: set {new}"),
        (None, "DEVICE_LOST_AFTER") => {
            format!("it is the device's now: set IAA_SIM_RESET_AT, or {PREFIX}REFUSE_AFTER")
        }
        (None, _) => "unknown variable".to_owned(),
    }
}

fn rate(value: &str) -> Result<f64, String> {
    let number = value.parse().ok().filter(|number| (0.0..=1.0).contains(number));
    number.ok_or_else(|| "not a fraction from 0 to 1, such as 0.3".to_owned())
}

fn or_never(value: &str) -> Result<Option<u64>, String> {
    match value {
        "never" => Ok(None),
        number => number.parse().map(Some).map_err(|_| "neither never nor a number".to_owned()),
    }
}

fn switch(value: &str) -> Result<bool, String> {
    match value {
        "0" => Ok(false),
        "1" => Ok(true),
        _ => Err("neither 0 nor 1".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(name: &str, value: &str) -> Result<Config, String> {
        Config::parse([(name.into(), value.into())])
    }

    #[test]
    fn other_variables_are_ignored() {
        let others = [("PATH", "/bin"), ("QPL_LIBRARY", "x"), ("QPL_SIMILAR", "y")];
        let others = others.map(|(name, value)| (name.into(), value.into()));
        assert_eq!(Config::parse(others), Ok(Config::default()));
    }

    #[test]
    fn the_devices_have_their_own_variables() {
        assert_eq!(parse("IAA_SIM_DEVICES", "3").unwrap().devices.devices, 3);
    }

    #[test]
    fn a_bad_value_is_refused_with_name_value_and_reason() {
        let bad = [
            ("QPL_SIM_INIT", "-0.1"),
            ("QPL_SIM_INIT", "nan"),
            ("QPL_SIM_REFUSE_AFTER", "soon"),
            ("QPL_SIM_CHECK_INPUT", "yes"),
            ("QPL_SIM_AT_ONCE", "2"),
            ("QPL_SIM_LATENZY", "5"),
            ("QPL_SIM_", "5"),
            ("IAA_SIM_DEVICES", "-1"),
        ];
        for (name, value) in bad {
            let refused = parse(name, value).unwrap_err();
            let begin = format!("\n  {name}={value}: ");
            assert!(refused.starts_with(&begin) && refused.len() > begin.len(), "{refused}");
        }
    }

    #[test]
    fn a_setting_that_has_moved_is_refused_with_its_new_name() {
        let devices = include_str!("../../iaa-sim/README.md");
        for (old, new) in MOVED.into_iter().chain([("DEVICE_LOST_AFTER", "IAA_SIM_RESET_AT")]) {
            let refused = parse(&format!("{PREFIX}{old}"), "1").unwrap_err();
            assert!(refused.contains(new), "{refused}");
            let names = new.split([' ', '=']).filter(|word| word.starts_with("IAA_SIM_"));
            assert!(names.clone().all(|name| devices.contains(&format!("`{name}`"))), "{new}");
        }
    }

    #[test]
    fn all_that_is_wrong_is_named_at_once() {
        let bad = [("QPL_SIM_AT_ONCE", "x"), ("IAA_SIM_SEED", "x"), ("QPL_SIM_INIT", "1")];
        let refused = Config::parse(bad.map(|(name, value)| (name.into(), value.into())));
        assert_eq!(refused.unwrap_err().lines().count(), 3, "an empty line and two");
    }

    #[test]
    fn input_is_checked_where_jobs_take_time_unless_said_otherwise() {
        assert!(!Config::default().checks_input());
        assert!(parse("IAA_SIM_COMPRESS_LATENCY", "1").unwrap().checks_input());
        assert!(parse("IAA_SIM_DECOMPRESS_THROUGHPUT", "1G").unwrap().checks_input());
        assert!(parse("QPL_SIM_CHECK_INPUT", "1").unwrap().checks_input());
    }

    #[test]
    fn the_readme_has_every_variable_with_its_default() {
        let readme = include_str!("../README.md");
        let rows: Vec<_> = readme.lines().filter(|line| line.starts_with("| `QPL_SIM_")).collect();
        assert_eq!(rows.len(), 5);
        for row in rows {
            let mut cells = row.split('|').map(|cell| cell.trim().trim_matches('`')).skip(1);
            let (name, default) = (cells.next().unwrap(), cells.next().unwrap());
            match default {
                "see below" => assert!(parse(name, "1").is_ok(), "{row}"),
                _ => assert_eq!(parse(name, default), Ok(Config::default()), "{row}"),
            }
        }
    }
}
