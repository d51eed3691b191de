//! Tests with a simulated IAA. The library is opened once in a process, and the environment says
//! what it is, so each such test has a process of its own: this program, for that test alone.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;

/// What tells the child what it is.
const CHILD: &str = "MULTIFD_QPL_TESTS_SIMULATED";

/// Whether this process has a simulated IAA.
pub fn is_child() -> bool {
    env::var_os(CHILD).is_some()
}

/// Runs tests of this program in a process with a simulated IAA, set up by `settings`: the devices'
/// variables without `IAA_SIM_`, and those of qpl-sim in full. Returns how many passed.
///
/// # Panics
/// Where one fails.
#[track_caller]
pub fn run(settings: &[(&str, &str)], args: &[&str]) -> usize {
    // Not the current executable: that is the loader, where that runs the program.
    let program = PathBuf::from(env::args_os().next().unwrap());
    let mut child = Command::new(program);
    child.args(args).arg("--quiet").env(CHILD, "1").envs(environment(settings));
    passed(&mut child, &format!("{settings:?}"))
}

/// Runs a child, and says how many of its tests passed.
///
/// # Panics
/// Where one fails; `with` says what the child had.
#[track_caller]
pub fn passed(child: &mut Command, with: &str) -> usize {
    let output = child.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "with {with}: {}\n{text}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    let passed = text.split_once("test result: ok. ").unwrap().1.split_once(" passed").unwrap().0;
    passed.parse().unwrap()
}

/// The library, and the variables of `settings`.
fn environment(settings: &[(&str, &str)]) -> Vec<(String, OsString)> {
    let library = ("QPL_LIBRARY".to_owned(), qpl_sim::library_file().unwrap().into());
    let settings = settings.iter().map(|(name, value)| match name.starts_with("QPL_SIM_") {
        true => ((*name).to_owned(), value.into()),
        false => (format!("IAA_SIM_{name}"), value.into()),
    });
    settings.chain([library]).collect()
}

/// Makes a test of each body, which runs in a process with a simulated IAA as the settings say.
macro_rules! simulated {
    ($($name:ident($($setting:ident = $value:literal),*) $body:block)*) => {$(
        #[test]
        fn $name() {
            if $crate::support::simulated::is_child() {
                return $body;
            }
            let name = concat!(module_path!(), "::", stringify!($name));
            let (_, name) = name.split_once("::").unwrap();
            let settings = &[$((stringify!($setting), $value)),*];
            assert_eq!($crate::support::simulated::run(settings, &["--exact", name]), 1);
        }
    )*};
}
pub(crate) use simulated;
