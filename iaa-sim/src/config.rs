//! What the simulated devices are like: a value, from TOML, from variables, or made in Rust.

mod value;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::path::PathBuf;

pub use iaa_timing::Speed;

use crate::engine::LARGEST_TRANSFER;
use value::{fraction, list, nanoseconds, number, or_never, rate, switch, whole};

/// What the name of every variable of the simulation begins with.
pub const PREFIX: &str = "IAA_SIM_";

/// The variable that names a TOML file.
pub const FILE: &str = "IAA_SIM_CONFIG";

/// The devices, their time and their faults.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// How programs submit descriptors.
    pub face: Face,
    /// How many devices there are; all are alike but for their NUMA node.
    pub devices: usize,
    /// The NUMA node of each device, or none. The last one is that of all further devices.
    pub numa_nodes: Vec<Option<u16>>,
    /// Engines of a device.
    pub engines: usize,
    /// Shared work queues of a device, at least 1.
    pub queues: usize,
    /// Descriptors that each queue holds until an engine takes them, at least 1. The last one is that
    /// of all further queues.
    pub queue_depths: Vec<usize>,
    /// The priority of each queue: an engine takes from the highest one that has a descriptor.
    pub queue_priorities: Vec<u8>,
    /// The largest transfer in bytes: a power of 2.
    pub max_transfer: u32,
    /// Whether the queues permit that an engine waits for memory.
    pub block_on_fault: bool,
    /// Nanoseconds that a page fault takes where the engine waits for memory.
    pub block_time: u64,
    /// Nanoseconds after which an engine no longer waits for memory.
    pub block_limit: u64,
    /// The time of a compression.
    pub compress: Speed,
    /// The time of a decompression.
    pub decompress: Speed,
    /// How far the time of an operation may be off, as a fraction of it.
    pub jitter: f64,
    /// Of the jitter and the faults.
    pub seed: u64,
    /// What goes wrong.
    pub faults: FaultConfig,
    /// Where the counters are written, again and again. `{pid}` in it becomes the process's number.
    pub counters: Option<PathBuf>,
    /// Whether the counters are printed when the process exits.
    pub counters_at_exit: bool,
}

/// By what a program that opens a queue's file submits to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Face {
    /// By write: the file does not map.
    Write,
    /// By ENQCMD on the page that the file maps.
    Mapped,
}

/// How often each fault happens: 0 for never, 1 for always.
#[derive(Clone, Debug, PartialEq)]
pub struct FaultConfig {
    /// A submission is refused though there is room.
    pub queue_full: f64,
    /// Nanoseconds for which a queue with the face `write` is full then.
    pub queue_full_time: u64,
    /// A page fault.
    pub page_fault: f64,
    /// A page fault of a descriptor that had one and is submitted once more.
    pub page_fault_again: f64,
    /// What memory page faults are on; of several, each descriptor has one of those that it uses.
    pub page_fault_on: Vec<Place>,
    /// An end with an error.
    pub error: f64,
    /// The operations that it happens to.
    pub error_on: Vec<Operation>,
    /// Which: status and error code. Empty for all that the operation can have.
    pub error_status: Vec<(u8, u8)>,
    /// A success with a wrong size of the output.
    pub wrong_output_size: f64,
    /// No completion record is ever written.
    pub no_completion: f64,
    /// An operation takes longer.
    pub slow: f64,
    /// How many times as long.
    pub slow_factor: f64,
    /// The descriptor of a device at which the device is reset.
    pub reset_at: Option<u64>,
    /// The descriptor of a device at which its queue is disabled.
    pub queue_disabled_at: Option<u64>,
}

/// Memory that a descriptor uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Source 1.
    Source,
    /// The destination.
    Destination,
    /// Source 2.
    Aecs,
    /// The completion record.
    Completion,
}

/// What a descriptor asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Opcode 0x43.
    Compress,
    /// Opcode 0x42.
    Decompress,
}

/// What is wrong with a configuration: all of it, in one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError(String);

impl fmt::Display for ConfigError {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(&self.0)
    }
}

impl std::error::Error for ConfigError {}

impl Default for Config {
    fn default() -> Self {
        Self {
            face: Face::Write,
            devices: 1,
            numa_nodes: vec![None],
            engines: 8,
            queues: 1,
            queue_depths: vec![128],
            queue_priorities: vec![10],
            max_transfer: LARGEST_TRANSFER,
            block_on_fault: false,
            block_time: 10_000,
            block_limit: 1_000_000_000,
            compress: Speed::default(),
            decompress: Speed::default(),
            jitter: 0.1,
            seed: 1,
            faults: FaultConfig::default(),
            counters: None,
            counters_at_exit: false,
        }
    }
}

impl Default for FaultConfig {
    fn default() -> Self {
        Self {
            queue_full: 0.0,
            queue_full_time: 1_000_000,
            page_fault: 0.0,
            page_fault_again: 0.0,
            page_fault_on: vec![Place::Source, Place::Destination, Place::Aecs],
            error: 0.0,
            error_on: vec![Operation::Compress, Operation::Decompress],
            error_status: Vec::new(),
            wrong_output_size: 0.0,
            no_completion: 0.0,
            slow: 0.0,
            slow_factor: 10.0,
            reset_at: None,
            queue_disabled_at: None,
        }
    }
}

impl Config {
    /// Reads those of `variables` whose names begin with [`PREFIX`], and first the file that
    /// [`FILE`] among them names: a variable wins over the file.
    ///
    /// # Errors
    /// All keys that are unknown or have an impossible value, and a file that cannot be read.
    pub fn from_variables(
        variables: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, ConfigError> {
        let ours: BTreeMap<_, _> = variables
            .into_iter()
            .filter(|(name, _)| name.as_encoded_bytes().starts_with(PREFIX.as_bytes()))
            .collect();
        let mut config = Self::default();
        let mut wrong = Vec::new();
        for (name, value) in &ours {
            if name == FILE && !value.is_empty() {
                match fs::read_to_string(value) {
                    Ok(text) => {
                        let file = format!("{}: ", value.to_string_lossy());
                        config.add_toml(&text, &file, &mut wrong);
                    }
                    Err(error) => {
                        wrong.push(format!("{FILE}={}: {error}", value.to_string_lossy()));
                    }
                }
            }
        }
        for (name, value) in ours.iter().filter(|(name, _)| *name != FILE) {
            let (name, value) = (name.to_string_lossy(), value.to_string_lossy());
            let key = name[PREFIX.len()..].to_string();
            let set = if key.chars().any(|char| char.is_ascii_lowercase()) {
                Err("unknown variable".to_owned())
            } else {
                config.set(&key.to_ascii_lowercase(), &value)
            };
            if let Err(why) = set {
                wrong.push(format!("{name}={value}: {}", why.replace(UNKNOWN, "unknown variable")));
            }
        }
        config.verdict(&wrong)
    }

    /// Reads a file's text.
    ///
    /// # Errors
    /// It is not TOML, or keys in it are unknown or have an impossible value.
    pub fn from_toml(text: &str) -> Result<Self, ConfigError> {
        let mut config = Self::default();
        let mut wrong = Vec::new();
        config.add_toml(text, "", &mut wrong);
        config.verdict(&wrong)
    }

    /// The depth of the queue of that number.
    #[must_use]
    pub fn queue_depth(&self, queue: usize) -> usize {
        of_list(&self.queue_depths, queue).unwrap_or(1)
    }

    /// The priority of the queue of that number.
    #[must_use]
    pub fn queue_priority(&self, queue: usize) -> u8 {
        of_list(&self.queue_priorities, queue).unwrap_or(1)
    }

    /// The NUMA node of the device of that number, if it has one.
    #[must_use]
    pub fn numa_node(&self, device: usize) -> Option<u16> {
        of_list(&self.numa_nodes, device).flatten()
    }

    fn add_toml(&mut self, text: &str, file: &str, wrong: &mut Vec<String>) {
        match value::toml_keys(text) {
            Ok(keys) => {
                for (key, value) in keys {
                    if let Err(why) = value.clone().and_then(|value| self.set(&key, &value)) {
                        let value = value.unwrap_or_default();
                        wrong.push(format!("{file}{key} = {value}: {why}"));
                    }
                }
            }
            Err(why) => wrong.push(format!("{file}{why}")),
        }
    }

    fn verdict(self, wrong: &[String]) -> Result<Self, ConfigError> {
        // What a value has in it must not make a second line.
        let line = wrong.join("; ").replace(char::is_control, " ");
        if wrong.is_empty() { Ok(self) } else { Err(ConfigError(line)) }
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        match key {
            "face" => self.face = face(value)?,
            "devices" => self.devices = whole(value, 0, 64)?,
            "numa_nodes" => self.numa_nodes = list(value, node)?,
            "engines" => self.engines = whole(value, 1, 64)?,
            "queues" => self.queues = whole(value, 1, 64)?,
            "queue_depths" => self.queue_depths = list(value, |depth| whole(depth, 1, 256))?,
            "queue_priorities" => {
                self.queue_priorities =
                    list(value, |priority| whole(priority, 1, 15).map(|number| number as u8))?;
            }
            "max_transfer" => {
                self.max_transfer = value::power_of_2(value, 4 << 10, LARGEST_TRANSFER)?;
            }
            "block_on_fault" => self.block_on_fault = switch(value)?,
            "block_time" => self.block_time = nanoseconds(value)?,
            "block_limit" => self.block_limit = nanoseconds(value)?,
            "compress_latency" => self.compress.latency = nanoseconds(value)?,
            "compress_throughput" => self.compress.throughput = value::throughput(value)?,
            "decompress_latency" => self.decompress.latency = nanoseconds(value)?,
            "decompress_throughput" => self.decompress.throughput = value::throughput(value)?,
            "jitter" => self.jitter = fraction(value, 0.0, 0.5)?,
            "seed" => self.seed = number(value)?,
            "counters" => self.counters = (value != "none").then(|| value.into()),
            "counters_at_exit" => self.counters_at_exit = switch(value)?,
            _ => return self.faults.set(key, value),
        }
        Ok(())
    }
}

/// What is said of a key that does not exist.
const UNKNOWN: &str = "unknown key";

impl FaultConfig {
    fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        match key {
            "queue_full" => self.queue_full = rate(value)?,
            "queue_full_time" => self.queue_full_time = nanoseconds(value)?,
            "page_fault" => self.page_fault = rate(value)?,
            "page_fault_again" => self.page_fault_again = rate(value)?,
            "page_fault_on" => self.page_fault_on = list(value, place)?,
            "error" => self.error = rate(value)?,
            "error_on" => self.error_on = list(value, operation)?,
            "error_status" if value == "any" => self.error_status = Vec::new(),
            "error_status" => self.error_status = list(value, status)?,
            "wrong_output_size" => self.wrong_output_size = rate(value)?,
            "no_completion" => self.no_completion = rate(value)?,
            "slow" => self.slow = rate(value)?,
            "slow_factor" => self.slow_factor = fraction(value, 1.0, 1e6)?,
            "reset_at" => self.reset_at = or_never(value)?,
            "queue_disabled_at" => self.queue_disabled_at = or_never(value)?,
            _ => return Err(UNKNOWN.to_owned()),
        }
        Ok(())
    }
}

fn of_list<T: Copy>(list: &[T], at: usize) -> Option<T> {
    list.get(at).or(list.last()).copied()
}

fn face(value: &str) -> Result<Face, String> {
    match value {
        "write" => Ok(Face::Write),
        "mapped" if cfg!(target_arch = "x86_64") => Ok(Face::Mapped),
        "mapped" => Err("this processor has no ENQCMD; write is possible".to_owned()),
        _ => Err("neither write nor mapped".to_owned()),
    }
}

fn node(value: &str) -> Result<Option<u16>, String> {
    match value {
        "none" => Ok(None),
        number => whole(number, 0, 1023).map(|node| Some(node as u16)),
    }
}

fn place(value: &str) -> Result<Place, String> {
    match value {
        "source" => Ok(Place::Source),
        "destination" => Ok(Place::Destination),
        "aecs" => Ok(Place::Aecs),
        "completion" => Ok(Place::Completion),
        _ => Err("not a list of source, destination, aecs, completion".to_owned()),
    }
}

fn operation(value: &str) -> Result<Operation, String> {
    match value {
        "compress" => Ok(Operation::Compress),
        "decompress" => Ok(Operation::Decompress),
        _ => Err("not a list of compress, decompress".to_owned()),
    }
}

/// A status, or a status and an error code: `0x10`, `0x0a:17`.
fn status(value: &str) -> Result<(u8, u8), String> {
    let wrong = || "not any, nor a list of statuses such as 0x10 or 0x0a:17".to_owned();
    let byte = |text: &str| match text.strip_prefix("0x") {
        Some(digits) => u8::from_str_radix(digits, 16).map_err(|_| wrong()),
        None => text.parse::<u8>().map_err(|_| wrong()),
    };
    let (status, code) = value.split_once(':').unwrap_or((value, "0"));
    let status = byte(status)?;
    // 0 is no end, 1 a success; page faults have keys of their own.
    if matches!(status, 0 | 1 | 0x03 | 0x83) { Err(wrong()) } else { Ok((status, byte(code)?)) }
}

#[cfg(test)]
mod tests;
