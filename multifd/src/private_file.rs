//! Files with secrets: read where not every user of the machine can get at them.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// The permission of all users to read, write and run a file.
const OTHERS: u32 = 0o007;

/// Why a file with a secret is not read.
#[derive(Debug)]
pub(crate) enum Unreadable {
    Missing,
    /// Every user of the machine can get at it, by these permissions.
    Public {
        mode: u32,
    },
    Io(io::Error),
}

/// Opens a file that not every user can get at. A group may be the one that both sides' programs are in.
pub(crate) fn open(path: &Path) -> Result<File, Unreadable> {
    let file = File::open(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Unreadable::Missing,
        _ => Unreadable::Io(error),
    })?;
    // Of the file that is read, whatever its name comes to stand for.
    let mode = file.metadata().map_err(Unreadable::Io)?.permissions().mode();
    match mode & OTHERS {
        0 => Ok(file),
        _ => Err(Unreadable::Public { mode: mode & 0o777 }),
    }
}

/// Reads at most `most` bytes of it into `bytes`.
pub(crate) fn read(path: &Path, most: u64, bytes: &mut Vec<u8>) -> Result<(), Unreadable> {
    let read = open(path)?.take(most).read_to_end(bytes);
    read.map(drop).map_err(Unreadable::Io)
}
