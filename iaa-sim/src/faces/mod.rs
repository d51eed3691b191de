//! How a program that was not made for it finds the devices: libaccel-config's functions, and behind
//! them files that stand for the queues.

#[allow(unsafe_code, reason = "functions that C calls")]
mod accel_config;
#[cfg(target_arch = "x86_64")]
mod enqcmd;
#[allow(unsafe_code, reason = "a handler for fork")]
mod fork;
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code, reason = "handlers of signals, and a memfd")]
mod mapped;
#[allow(unsafe_code, reason = "system calls on pipes")]
mod pipe;
#[allow(unsafe_code, reason = "a handler for the exit")]
mod report;

use std::sync::{Arc, OnceLock};
use std::{env, io, process};

use crate::config::{Config, ConfigError, Face};
use crate::device::{Device, Devices, Pull};
use crate::memory::OwnMemory;
use pipe::Pipe;

/// The devices of this process.
#[derive(Debug)]
struct Faces {
    config: Config,
    devices: Devices,
    /// The name of each device: libqpl wants `iax` in it, and reads up to 3 bytes beyond its end.
    names: Vec<String>,
    /// The file of each queue of each device.
    paths: Vec<Vec<String>>,
    /// The process that has made them: a child that it forks has no threads for them.
    process: u32,
}

/// Why there are no devices.
#[derive(Debug)]
enum Absent {
    Config(ConfigError),
    Io { what: &'static str, error: io::Error },
}

/// A user has so many pages of pipes, a queue one for each of its places.
const PIPE_FAILED: &str = "a queue's pipe cannot be made: have fewer or shorter queues, or raise \
    fs.pipe-user-pages-soft and fs.pipe-max-size";

/// The devices by the environment. Without any, where they cannot be made: that is said once, in a line
/// on stderr, and the program sees a machine that has none.
fn faces() -> Option<&'static Faces> {
    static FACES: OnceLock<Option<Faces>> = OnceLock::new();
    let make = || match Faces::from_environment() {
        Ok(faces) => Some(faces),
        Err(absent) => {
            say(&match absent {
                Absent::Config(error) => format!("no devices: {error}"),
                Absent::Io { what, error } => format!("no devices: {what}: {error}"),
            });
            None
        }
    };
    let faces = FACES.get_or_init(make).as_ref()?;
    (faces.process == process::id()).then_some(faces)
}

/// Prints a line for the person who has loaded the library.
#[allow(
    clippy::print_stderr,
    reason = "the program that loads the library has no other way to learn it"
)]
fn say(line: &str) {
    eprintln!("iaa-sim: {line}");
}

/// The name of the device of that number, as the kernel's driver would give it.
fn name(number: usize) -> String {
    format!("iax{}", number + 1)
}

impl Faces {
    fn from_environment() -> Result<Self, Absent> {
        let config = Config::from_variables(env::vars_os()).map_err(Absent::Config)?;
        match config.face {
            Face::Write => Self::write(config),
            Face::Mapped => Self::mapped(config),
        }
    }

    fn write(config: Config) -> Result<Self, Absent> {
        let (mut devices, mut paths, mut pipes) = (Vec::new(), Vec::new(), Vec::new());
        for number in 0..config.devices {
            let of_device = (0..config.queues).map(|queue| Pipe::new(config.queue_depth(queue)));
            let of_device: Vec<_> = io::Result::from_iter(of_device)
                .map_err(|error| Absent::Io { what: PIPE_FAILED, error })?;
            paths.push(of_device.iter().map(Pipe::path).collect());
            let pulls = of_device.iter().map(|pipe| Box::new(pipe.clone()) as Box<dyn Pull>);
            devices.push(Device::pulling(&config, number, pulls.collect()));
            pipes.push(of_device);
        }
        let faces = Self::start(config, devices, paths)?;
        pipe::watch(pipes, &faces.devices)
            .map_err(|error| Absent::Io { what: "the queues cannot be watched", error })?;
        fork::prepare()
            .map_err(|error| Absent::Io { what: "a fork cannot be prepared for", error })?;
        Ok(faces)
    }

    #[cfg(target_arch = "x86_64")]
    fn mapped(config: Config) -> Result<Self, Absent> {
        let devices: Vec<_> =
            (0..config.devices).map(|number| Device::new(&config, number)).collect();
        let pages = mapped::Pages::new(config.devices, config.queues)
            .map_err(|error| Absent::Io { what: "a queue's memfd cannot be made", error })?;
        let paths = pages.paths();
        let faces = Self::start(config, devices, paths)?;
        pages
            .catch(&faces.devices)
            .map_err(|error| Absent::Io { what: "signals cannot be caught", error })?;
        Ok(faces)
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn mapped(config: Config) -> Result<Self, Absent> {
        // No configuration says so on another processor.
        Self::write(config)
    }

    fn start(
        config: Config,
        devices: Vec<Device>,
        paths: Vec<Vec<String>>,
    ) -> Result<Self, Absent> {
        let devices = Devices::start_all(&config, devices, &OwnMemory)
            .map_err(|error| Absent::Io { what: "a device's thread cannot be started", error })?;
        let all: Vec<_> = devices.devices().iter().map(Arc::clone).collect();
        report::start(&config, all)
            .map_err(|error| Absent::Io { what: "the counters cannot be written", error })?;
        let names = (0..config.devices).map(|number| format!("{}\0\0\0\0", name(number)));
        let names = names.collect();
        Ok(Self { config, devices, names, paths, process: process::id() })
    }
}
