//! Tests with the real libqpl on a simulated IAA, `multifd-iaa-sim`, which libqpl finds in
//! libaccel-config's place. The environment says what the device is, so each such test has a process
//! of its own, as with [`simulated`](super::simulated).

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use std::{env, fs, process, thread};

use qpl_sys::Library;

use super::simulated::passed;

/// What tells the child what it is.
const CHILD: &str = "MULTIFD_QPL_TESTS_REAL";

/// What the simulation's variables begin with.
const PREFIX: &str = "IAA_SIM_";

/// By what libqpl submits: a write of each descriptor, or ENQCMD on a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Face {
    Write,
    Mapped,
}

impl Face {
    pub const ALL: [Self; 2] = [Self::Write, Self::Mapped];

    fn name(self) -> &'static str {
        match self {
            Self::Write => "write",
            Self::Mapped => "mapped",
        }
    }
}

/// Whether this process has the real libqpl on a simulated IAA.
pub fn is_child() -> bool {
    env::var_os(CHILD).is_some()
}

/// Whether `QPL_LIBRARY` names a libqpl, as `scripts/qpl-library` does. Says so where it does not.
pub fn is_here() -> bool {
    let named = Library::named().is_some();
    if !named {
        // Not by eprintln, which is captured: it is to be seen.
        let why = "LEFT OUT: QPL_LIBRARY names no libqpl (scripts/qpl-library cargo test …)";
        _ = writeln!(std::io::stderr(), "{why}");
    }
    named
}

/// What a child came to.
pub struct Ran {
    /// Tests that passed.
    pub passed: usize,
    /// The devices' counters.
    pub counters: Counters,
}

/// Runs tests of this program in a process whose libqpl has a simulated IAA, set up by `settings`:
/// variables without `IAA_SIM_`.
///
/// # Panics
/// Where one fails.
#[track_caller]
pub fn run(face: Face, settings: &[(&str, &str)], args: &[&str]) -> Ran {
    let file = CounterFile::new();
    let mut child = command();
    child.args(args).arg("--quiet").env(CHILD, "1");
    for (name, _) in env::vars_os().filter(|(name, _)| is_setting(name)) {
        child.env_remove(name);
    }
    // By its name, libqpl finds what is loaded already.
    child.env("LD_PRELOAD", iaa_sim::library_file().unwrap());
    child.env("IAA_SIM_FACE", face.name()).env("IAA_SIM_COUNTERS", &file.0);
    for (name, value) in settings {
        child.env(format!("{PREFIX}{name}"), value);
    }
    let passed = passed(&mut child, &format!("{face:?}, {settings:?}"));
    Ran { passed, counters: file.read() }
}

fn is_setting(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(PREFIX.as_bytes())
}

/// This program, by the loader that `scripts/qpl-library` has cargo start programs by.
fn command() -> Command {
    let runner = env::var_os("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER").unwrap_or_default();
    let words = runner.as_bytes().split(u8::is_ascii_whitespace);
    let words = words.filter(|word| !word.is_empty()).map(OsStr::from_bytes);
    // Not the current executable: that is the loader, where that runs the program.
    let program = std::path::absolute(env::args_os().next().unwrap()).unwrap();
    let mut words = words.map(OsString::from).chain([program.into()]);
    let mut command = Command::new(words.next().unwrap());
    command.args(words);
    command
}

/// Sums over all devices, by name.
#[derive(Debug, Default)]
pub struct Counters(BTreeMap<String, u64>);

impl Counters {
    fn parse(text: &str) -> Self {
        let mut sums = BTreeMap::new();
        for (name, count) in text.lines().filter_map(|line| line.split_once(" = ")) {
            *sums.entry(name.to_owned()).or_default() += count.parse::<u64>().unwrap();
        }
        Self(sums)
    }

    /// The count of that name.
    #[track_caller]
    pub fn get(&self, name: &str) -> u64 {
        *self.0.get(name).unwrap_or_else(|| panic!("no {name} in {self:?}"))
    }
}

/// Waits, in a child, until its devices have counted what is awaited.
#[track_caller]
pub fn wait_for_counters(what: &str, mut counted: impl FnMut(&Counters) -> bool) {
    let (file, began) = (env::var_os("IAA_SIM_COUNTERS").unwrap(), Instant::now());
    loop {
        let counters = Counters::parse(&fs::read_to_string(&file).unwrap());
        if counted(&counters) {
            return;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "no {what}: {counters:?}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// The file that a child's counters go to.
struct CounterFile(PathBuf);

impl CounterFile {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self(env::temp_dir().join(format!("multifd-qpl-{}-{number}.toml", process::id())))
    }

    fn read(&self) -> Counters {
        // A child that has not asked for devices has not written it.
        fs::read_to_string(&self.0).map(|text| Counters::parse(&text)).unwrap_or_default()
    }
}

impl Drop for CounterFile {
    fn drop(&mut self) {
        _ = fs::remove_file(&self.0);
    }
}

/// Makes a test of each body, which runs with the real libqpl on a simulated IAA as the settings say,
/// once with each face. Where no libqpl is named, it says so and passes.
macro_rules! real {
    ($($name:ident($($setting:ident = $value:literal),*) $body:block)*) => {$(
        #[test]
        fn $name() {
            if $crate::support::real::is_child() {
                return $body;
            }
            let name = concat!(module_path!(), "::", stringify!($name));
            let (_, name) = name.split_once("::").unwrap();
            let settings = &[$((stringify!($setting), $value)),*];
            if $crate::support::real::is_here() {
                for face in $crate::support::real::Face::ALL {
                    let ran = $crate::support::real::run(face, settings, &["--exact", name]);
                    assert_eq!(ran.passed, 1);
                }
            }
        }
    )*};
}
pub(crate) use real;
