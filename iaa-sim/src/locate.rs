//! Where a built library lies, for the tests of other crates.

use std::path::{Path, PathBuf};
use std::{env, fmt, io};

/// The library of the build that this program belongs to: what a program that is started preloads, by
/// `LD_PRELOAD`, or finds in a folder of `LD_LIBRARY_PATH` by the name `libaccel-config.so.1`.
///
/// Cargo builds it for a test that has this crate as a dependency or dev-dependency, into
/// `target/<profile>/deps`, beside the test itself. It is looked for from the first argument of
/// the process, which is this program even where another loader has started it.
///
/// # Errors
/// It is not there; the error says where it was looked for and how to build it.
pub fn library_file() -> io::Result<PathBuf> {
    built("libiaa_sim.so", "multifd-iaa-sim")
}

/// As [`library_file`], of the library `name` that `package` is built to.
///
/// # Errors
/// It is not there.
#[doc(hidden)]
pub fn built(name: &str, package: &str) -> io::Result<PathBuf> {
    let missing = |why: fmt::Arguments<'_>| {
        let how = format!("build it with the same profile: cargo build -p {package}");
        io::Error::new(io::ErrorKind::NotFound, format!("{name} was not found ({why}); {how}"))
    };
    let program = env::args_os().next();
    let program = program.ok_or_else(|| missing(format_args!("the process has no arguments")))?;
    let program = std::path::absolute(program)?;
    let folder = program.parent().unwrap_or(Path::new("/"));
    // The program is a test in `deps`, or a binary, an example or a bench around it.
    let folders =
        [Some(folder.to_owned()), Some(folder.join("deps")), folder.parent().map(Path::to_owned)];
    let files = folders.into_iter().flatten().map(|folder| folder.join(name));
    files.into_iter().find(|file| file.is_file()).ok_or_else(|| {
        let program = program.display();
        missing(format_args!("it is not beside {program}, nor one folder below or above"))
    })
}
