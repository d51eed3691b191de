//! What a run that was killed has left beside a VM's place.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{FlockOperation, flock};
use rustix::io::retry_on_intr;

use crate::image::MANIFEST;

/// How the name of a folder or file ends in which a VM is made.
pub(super) const PARTIAL: &str = ".partial";

/// How the name of a folder or file begins in which the VM `name` is made.
pub(super) fn prefix(name: &str) -> String {
    format!(".{name}.")
}

/// A folder that is empty for less than this may be one that a run has created and not yet marked.
const NEW: Duration = Duration::from_secs(2);

/// Marks a folder as one that is in use, until the result is dropped. Not every file system can do
/// that. A run that just looks whether it [is left](is_left) is waited for.
pub(super) fn mark(folder: &Path) -> Option<File> {
    let folder = File::open(folder).ok()?;
    retry_on_intr(|| flock(&folder, FlockOperation::LockExclusive)).ok()?;
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
    let now = SystemTime::now();
    let mut found: Vec<_> =
        partial.map(|entry| entry.path()).filter(|path| is_left(path, now)).collect();
    found.sort();
    found
}

/// Whether no running program makes an image there.
fn is_left(folder: &Path, now: SystemTime) -> bool {
    (folder.is_dir() || folder.is_file())
        && !is_new(folder, now)
        && File::open(folder)
            .is_ok_and(|folder| flock(&folder, FlockOperation::NonBlockingLockShared).is_ok())
}

/// Whether a run may be about to mark the folder. Nothing is in it before that.
fn is_new(folder: &Path, now: SystemTime) -> bool {
    let changed = folder.metadata().and_then(|metadata| metadata.modified());
    // Not one from the future: a clock may be wrong.
    let age = changed.ok().and_then(|changed| now.duration_since(changed).ok());
    let is_empty = || match fs::read_dir(folder) {
        Ok(mut entries) => entries.next().is_none(),
        Err(_) => folder.metadata().is_ok_and(|metadata| metadata.len() == 0),
    };
    age.is_some_and(|age| age < NEW) && is_empty()
}

/// What to say of such a folder, which is beside the place of the image `name`.
pub(super) fn describe(folder: &Path, name: &Path) -> String {
    let shown = folder.display();
    // Whether a file is whole is not looked at: one that has something in it may be.
    let may_be_whole = match folder.is_dir() {
        true => folder.join(MANIFEST).is_file(),
        false => folder.metadata().is_ok_and(|metadata| metadata.len() > 0),
    };
    if may_be_whole {
        describe_whole(folder, name)
    } else {
        format!("{shown} is what a run that was killed has left of a VM; remove it")
    }
}

/// What to say of such a folder with a whole image. It has swapped its name with `name`'s, or not.
pub(super) fn describe_whole(folder: &Path, name: &Path) -> String {
    let (folder, name) = (folder.display(), name.display());
    format!(
        "{folder} is the VM that {name} replaced, or would have become; compare it with {name} \
         first"
    )
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;
    use std::thread;

    use super::*;

    /// Whether somebody waits for a lock of the folder with this number.
    fn is_waited_for(inode: u64) -> bool {
        let (locks, inode) = (fs::read_to_string("/proc/locks").unwrap(), format!(":{inode} "));
        locks.lines().any(|lock| lock.contains("->") && lock.contains(&inode))
    }

    #[test]
    fn a_folder_is_marked_even_if_another_run_looks_at_it_just_then() {
        let folder = tempfile::tempdir().unwrap();
        let looking = File::open(folder.path()).unwrap();
        flock(&looking, FlockOperation::LockShared).unwrap();
        let inode = looking.metadata().unwrap().ino();
        let mark = thread::scope(|scope| {
            let marking = scope.spawn(|| mark(folder.path()));
            while !marking.is_finished() && !is_waited_for(inode) {
                thread::yield_now();
            }
            flock(&looking, FlockOperation::Unlock).unwrap();
            marking.join().unwrap()
        });
        let later = SystemTime::now() + 2 * NEW;
        assert!(mark.is_some() && !is_left(folder.path(), later));
        drop(mark);
        assert!(is_left(folder.path(), later));
    }

    #[test]
    fn a_file_that_may_be_a_whole_vm_is_not_said_to_be_removed() {
        let parent = tempfile::tempdir().unwrap();
        let left = parent.path().join(".vm.Ab12Cd.partial");
        fs::write(&left, "").unwrap();
        let file = File::options().write(true).open(&left).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!(find(parent.path(), "vm"), std::slice::from_ref(&left));
        assert!(describe(&left, Path::new("vm")).contains("remove it"));
        fs::write(&left, "QEVM").unwrap();
        let said = describe(&left, Path::new("vm"));
        assert!(said.contains("compare it with vm first") && !said.contains("remove"), "{said}");
        let mark = mark(&left);
        assert!(mark.is_some() && find(parent.path(), "vm").is_empty());
    }

    #[test]
    fn a_folder_that_a_run_may_be_about_to_mark_is_not_left() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let created = path.metadata().unwrap().modified().unwrap();
        assert!(!is_left(path, created) && !is_left(path, created + NEW / 2));
        assert!(is_left(path, created + NEW));
        assert!(is_left(path, created - NEW), "a clock was wrong");
        fs::write(path.join("pc.ram"), "x").unwrap();
        let written = path.metadata().unwrap().modified().unwrap();
        assert!(is_left(path, written), "a run that has written has marked it before");
    }
}
