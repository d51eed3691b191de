//! The audit file: lines that are added to it, and are on the disk when that is said.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::failure::Failure;

/// A file that lines are added to, by one write each, so that those of several programs do not mix. When
/// something else is under its name, or nothing, as where logs are rotated, it is opened anew.
#[derive(Debug)]
pub(super) struct Audit {
    path: PathBuf,
    open: Mutex<Open>,
}

#[derive(Debug)]
struct Open {
    file: File,
    /// Its device and inode.
    id: (u64, u64),
    /// Whether its last line is incomplete, as on a full disk.
    torn: bool,
}

impl Audit {
    /// Opens the file, or creates one that only its owner can read.
    pub(super) fn open(path: &Path) -> Result<Self, Failure> {
        let opened = Open::new(path);
        let open = opened
            .map_err(|error| Failure::io(format!("cannot write {}", path.display()), &error))?;
        Ok(Self { path: path.to_owned(), open: Mutex::new(open) })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Adds a line, which ends in a newline; to the disk if it is `durable`.
    pub(super) fn write(&self, line: &str, durable: bool) -> io::Result<()> {
        // A panic of another thread leaves at worst a torn line, which is noted.
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if std::fs::metadata(&self.path).ok().map(|file| id_of(&file)) != Some(open.id) {
            *open = Open::new(&self.path)?;
        }
        open.write(line)?;
        if durable { open.file.sync_data() } else { Ok(()) }
    }
}

impl Open {
    fn new(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        // A pipe that nobody reads would hold the program up.
        options
            .append(true)
            .create(true)
            .mode(0o600)
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
        let file = options.open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            let why = "it is not a file, but a pipe or a device";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        Ok(Self { file, id: id_of(&metadata), torn: false })
    }

    fn write(&mut self, line: &str) -> io::Result<()> {
        let line = if self.torn { format!("\n{line}") } else { line.to_owned() };
        match self.file.write(line.as_bytes())? {
            written if written == line.len() => {
                self.torn = false;
                Ok(())
            }
            written => {
                self.torn |= written > 0;
                Err(io::ErrorKind::StorageFull.into())
            }
        }
    }
}

fn id_of(file: &Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn lines_are_added_to_a_file_that_only_its_owner_can_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit");
        Audit::open(&path).unwrap().write("one\n", true).unwrap();
        Audit::open(&path).unwrap().write("two\n", false).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one\ntwo\n");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_file_that_was_renamed_or_removed_is_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let (path, old) = (folder.path().join("audit"), folder.path().join("audit.1"));
        let audit = Audit::open(&path).unwrap();
        audit.write("one\n", true).unwrap();
        std::fs::rename(&path, &old).unwrap();
        audit.write("two\n", true).unwrap();
        assert_eq!(std::fs::read_to_string(&old).unwrap(), "one\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "two\n");
        std::fs::remove_file(&path).unwrap();
        audit.write("three\n", true).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "three\n");
    }

    #[test]
    fn a_line_behind_a_torn_one_is_on_a_line_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit");
        let audit = Audit::open(&path).unwrap();
        // As a full disk leaves it.
        let mut open = audit.open.lock().unwrap();
        open.file.write_all(b"{\"ev").unwrap();
        open.torn = true;
        drop(open);
        audit.write("one\n", false).unwrap();
        audit.write("two\n", false).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "{\"ev\none\ntwo\n");
    }

    #[test]
    fn a_pipe_a_device_and_a_missing_folder_are_refused_without_waiting() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        for path in [&pipe, Path::new("/dev/null"), &folder.path().join("no/audit")] {
            let error = Audit::open(path).unwrap_err().to_string();
            assert!(error.starts_with("cannot write "), "{error}");
        }
    }
}
