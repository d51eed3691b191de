//! What a run that was killed has left beside an image's place.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::name::MANIFEST;

/// How the name of a folder ends in which an image is made.
pub(super) const PARTIAL: &str = ".partial";

/// How the name of a folder begins in which the image `name` is made.
pub(super) fn prefix(name: &str) -> String {
    format!(".{name}.")
}

/// Marks a folder as one that is in use, until the result is dropped. Not every file system can do
/// that.
pub(super) fn mark(folder: &Path) -> Option<File> {
    let folder = File::open(folder).ok()?;
    flock(&folder, FlockOperation::NonBlockingLockExclusive).ok()?;
    Some(folder)
}

/// The folders in `parent` in which an image `name` was made by runs that were killed.
pub(super) fn find(parent: &Path, name: &str) -> Vec<PathBuf> {
    let prefix = prefix(name);
    let is_partial = |file: &str| {
        let random = file.strip_prefix(&prefix).and_then(|rest| rest.strip_suffix(PARTIAL));
        random.is_some_and(|random| {
            !random.is_empty() && random.chars().all(|c| c.is_ascii_alphanumeric())
        })
    };
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    let partial = entries.filter(|entry| entry.file_name().to_str().is_some_and(is_partial));
    let mut found: Vec<_> =
        partial.map(|entry| entry.path()).filter(|path| is_left(path)).collect();
    found.sort();
    found
}

/// Whether no running program makes an image there.
fn is_left(folder: &Path) -> bool {
    folder.is_dir()
        && File::open(folder)
            .is_ok_and(|folder| flock(&folder, FlockOperation::NonBlockingLockShared).is_ok())
}

/// What to say of such a folder.
pub(super) fn describe(folder: &Path) -> String {
    let shown = folder.display();
    if folder.join(MANIFEST).is_file() {
        format!("{shown} is the image of a run that was killed at its end; keep or remove it")
    } else {
        format!("{shown} is what a run that was killed has left of an image; remove it")
    }
}
