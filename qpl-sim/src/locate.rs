//! Where the built library lies, for the tests of other crates.

use std::io;
use std::path::PathBuf;

/// The library of the build that this program belongs to: what to give to
/// `qpl_sys::Library::open_file`, or to a program that is started, as `QPL_LIBRARY`.
///
/// Cargo builds it for a test that has this crate as a dependency or dev-dependency, into
/// `target/<profile>/deps`, beside the test itself. It is looked for from the first argument of
/// the process, which is this program even where another loader has started it.
///
/// # Errors
/// It is not there; the error says where it was looked for and how to build it.
pub fn library_file() -> io::Result<PathBuf> {
    iaa_sim::built("libqpl_sim.so", "qpl-sim")
}
