//! Files that others have named: opened and read without trust in what they are.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::failure::Failure;
use crate::size::Bytes;

/// Opens a regular file. Returns it with its length in bytes.
pub(crate) fn open(path: &Path) -> Result<(File, u64), Failure> {
    let cannot = |error| cannot_read(path, &error);
    let not_a_file = || {
        Failure::new(format!(
            "cannot read {}: it is not a file, but a folder, a pipe or a device",
            path.display()
        ))
    };
    // Before it is opened: that has effects on some devices, and waits at a pipe.
    if !std::fs::metadata(path).map_err(cannot)?.is_file() {
        return Err(not_a_file());
    }
    let mut options = OpenOptions::new();
    let opened = options.read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path);
    let file = opened.map_err(cannot)?;
    let metadata = file.metadata().map_err(cannot)?;
    // It may be another one by now.
    if !metadata.is_file() {
        return Err(not_a_file());
    }
    Ok((file, metadata.len()))
}

/// Reads a regular file of at most `limit` bytes. One that goes on behind its length, as those of
/// the kernel may do, is refused as well.
pub(crate) fn read(path: &Path, limit: u64) -> Result<Vec<u8>, Failure> {
    read_or(path, limit, None)
}

/// As [`read`]. The error of a file that is too long ends in `advice`.
pub(crate) fn read_or(path: &Path, limit: u64, advice: Option<&str>) -> Result<Vec<u8>, Failure> {
    let (file, bytes) = open(path)?;
    let too_long = |found: &dyn std::fmt::Display| {
        Failure::new(format!(
            "cannot read {}: it has {found}, but at most {} are expected{}",
            path.display(),
            Bytes(limit),
            advice.map(|advice| format!("; {advice}")).unwrap_or_default()
        ))
    };
    if bytes > limit {
        return Err(too_long(&Bytes(bytes)));
    }
    let mut content = Vec::new();
    let most = limit.saturating_add(1);
    file.take(most).read_to_end(&mut content).map_err(|error| cannot_read(path, &error))?;
    if content.len() as u64 > limit {
        return Err(too_long(&"more"));
    }
    Ok(content)
}

/// Creates a file that only its owner can read. It must not exist.
pub(crate) fn create_private(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

fn cannot_read(path: &Path, error: &io::Error) -> Failure {
    Failure::io(format!("cannot read {}", path.display()), error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_up_to_the_limit_and_one_that_is_longer_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vm.json");
        std::fs::write(&path, [7; 100]).unwrap();
        assert_eq!(read(&path, 100).unwrap(), [7; 100]);
        let error = read(&path, 99).unwrap_err().to_string();
        assert!(error.contains("vm.json: it has 100 bytes, but at most 99 bytes"), "{error}");
    }

    #[test]
    fn a_file_that_goes_on_behind_its_length_is_refused() {
        // It says that it has 0 bytes.
        let path = Path::new("/proc/self/status");
        assert!(!read(path, 1 << 20).unwrap().is_empty());
        let error = read(path, 10).unwrap_err().to_string();
        assert!(error.contains("it has more, but at most 10 bytes"), "{error}");
    }

    #[test]
    fn a_pipe_a_device_and_a_folder_are_refused_without_waiting() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        for path in [&pipe, Path::new("/dev/zero"), folder.path()] {
            let error = open(path).unwrap_err().to_string();
            assert!(error.contains("it is not a file"), "{error}");
        }
    }
}
