//! Whether what has arrived is what was sent.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use multifd_interop::guest::difference;

use crate::error::Error;

/// So much is in memory at once, in bytes.
pub(crate) const PIECE: u64 = 64 << 20;

/// The RAM as it must be: a file that is read piece by piece.
#[derive(Debug)]
pub(crate) struct Expected {
    file: File,
    piece: Vec<u8>,
}

impl Expected {
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let file = File::open(path).map_err(Error::io(format!("open {}", path.display())))?;
        Ok(Self { file, piece: Vec::new() })
    }

    /// # Errors
    /// Something else was found at `at`.
    pub(crate) fn check(&mut self, at: u64, found: &[u8]) -> Result<(), Error> {
        self.piece.resize(found.len(), 0);
        self.file.read_exact_at(&mut self.piece, at).map_err(Error::io("read the RAM"))?;
        let differing = difference(&self.piece, found);
        differing.map_or(Ok(()), |why| Err(Error::Other(format!("from {at:#x} on: {why}"))))
    }

    /// # Errors
    /// The file has something else in it, or is not `bytes` long.
    pub(crate) fn check_file(&mut self, path: &Path, bytes: u64) -> Result<(), Error> {
        let reading = || Error::io(format!("read {}", path.display()));
        let file = File::open(path).map_err(reading())?;
        let has = file.metadata().map_err(reading())?.len();
        if has != bytes {
            let path = path.display();
            return Err(Error::Other(format!("{path} has {has} bytes in place of {bytes}")));
        }
        let mut found = Vec::new();
        for (at, length) in pieces(0, bytes) {
            found.resize(length, 0);
            file.read_exact_at(&mut found, at).map_err(reading())?;
            self.check(at, &found)?;
        }
        Ok(())
    }
}

/// The pieces from `begin` to `end`: where, and how long.
pub(crate) fn pieces(begin: u64, end: u64) -> impl Iterator<Item = (u64, usize)> {
    let starts = (begin..end).step_by(PIECE as usize);
    starts.map(move |at| (at, (end - at).min(PIECE) as usize))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that panics fails")]

    use std::fs;

    use super::*;

    #[test]
    fn a_byte_that_differs_is_found_and_so_is_what_is_missing() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, bytes: &[u8]| {
            let path = folder.path().join(name);
            fs::write(&path, bytes).unwrap();
            path
        };
        let mut bytes = vec![7; 8192];
        let mut expected = Expected::open(&file("expected", &bytes)).unwrap();
        expected.check_file(&file("same", &bytes), 8192).unwrap();
        expected.check(4096, &bytes[4096..]).unwrap();
        expected.check_file(&file("short", &bytes[1..]), 8192).unwrap_err();
        bytes[5000] = 8;
        let error = expected.check_file(&file("other", &bytes), 8192).unwrap_err().to_string();
        assert!(error.contains("1 pages differ, the first at 0x1388"), "{error}");
    }

    #[test]
    fn pieces_are_one_behind_the_other_up_to_the_end() {
        let found: Vec<_> = pieces(1 << 20, (1 << 20) + PIECE + 5).collect();
        assert_eq!(found, [(1 << 20, PIECE as usize), ((1 << 20) + PIECE, 5)]);
        assert_eq!(pieces(3, 3).count(), 0);
    }
}
