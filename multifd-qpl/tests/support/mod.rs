//! What the tests share.
#![allow(dead_code, unreachable_pub, reason = "not every test needs all of it")]
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

pub mod channel;
pub mod inflate;
pub mod streams;

use multifd_core::MethodDescriptor;
use multifd_qpl::Path;
use qpl_sys::Library;

/// Why tests with libqpl are left out here. Where `QPL_LIBRARY` names one, they are not.
pub fn without_libqpl() -> Option<String> {
    match Library::open() {
        Err(error) if Library::named().is_none() => Some(error.to_string()),
        _ => None,
    }
}

/// The codec on each engine that is there.
pub fn engines() -> Vec<(Path, MethodDescriptor)> {
    let mut paths = vec![Path::Portable];
    match without_libqpl() {
        None => paths.push(Path::Software),
        Some(reason) => eprintln!("without libqpl: {reason}"),
    }
    paths.into_iter().map(|path| (path, path.descriptor())).collect()
}
