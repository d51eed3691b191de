//! The VM that is migrated.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use multifd_interop::qemu::{Qemu, Settings};
use serde_json::json;
use tempfile::TempDir;

use crate::compare::pieces;
use crate::error::Error;
use crate::guest::{self, Guest, GuestSize};
use crate::peer::{Program, machine};

/// The block with the guest's RAM.
pub(crate) const RAM: &str = "pc.ram";

/// A VM image of `multifd`: a guest's RAM in the machine of a QEMU, which sends it to
/// `multifd recv` for that. Either side maps the RAM from the image's file, so both read the same.
#[derive(Debug)]
pub(crate) struct Image {
    folder: TempDir,
    pub(crate) guest: Guest,
    /// Whether the QEMU has QPL.
    pub(crate) qemu_has_qpl: bool,
}

impl Image {
    /// A VM of this size, made of the RAM in the file `real`.
    pub(crate) fn of(
        real: &Path,
        size: GuestSize,
        qemu: &Path,
        multifd: &Path,
    ) -> Result<Self, Error> {
        // Beside the RAM, where there is room for as much.
        let parent = real.parent().filter(|parent| !parent.as_os_str().is_empty());
        let parent = parent.unwrap_or(Path::new("."));
        remove_leftovers(parent)?;
        let folder = tempfile::Builder::new().prefix(PREFIX).tempdir_in(parent);
        let folder = folder.map_err(Error::io("make a folder"))?;
        let ram = folder.path().join("guest.ram");
        let guest = guest::write(real, size, &ram)?;
        let mut image = Self { folder, guest, qemu_has_qpl: false };

        let mut command = Command::new(multifd);
        command.args(["recv", "--listen", "tcp:127.0.0.1:0", "--to"]).arg(image.path());
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let mut destination = Program::start(&mut command)?;
        let uri = destination.listening()?;
        let mut source = Qemu::with_memory(qemu, &private_memory(&ram, size), &machine(size))?;
        source.set_up(&Settings::default())?;
        source.migrate(&uri)?;
        source.complete_migration()?;
        destination.end()?;
        image.qemu_has_qpl =
            source.set_parameters(&json!({ "multifd-compression": "qpl" })).is_ok();
        fs::remove_file(&ram).map_err(Error::io(format!("remove {}", ram.display())))?;
        fill_holes(&image.ram())?;
        Ok(image)
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("vm")
    }

    /// The file with the guest's RAM.
    pub(crate) fn ram(&self) -> PathBuf {
        self.path().join(RAM)
    }

    /// A folder for what is stored; it does not exist.
    pub(crate) fn stored(&self) -> PathBuf {
        self.folder.path().join("stored")
    }

    /// A folder with certificates for TLS.
    pub(crate) fn certificates(&self) -> PathBuf {
        self.folder.path().join("tls")
    }

    /// A folder for what else is needed.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The guest's RAM as a memory backend of a QEMU. What QEMU writes stays in its process.
    pub(crate) fn memory(&self) -> String {
        private_memory(&self.ram(), self.guest.size)
    }
}

/// What the folders' names begin with.
const PREFIX: &str = "versus-";

/// Removes what a run that was interrupted has left.
fn remove_leftovers(parent: &Path) -> Result<(), Error> {
    let doing = || Error::io(format!("look for leftovers in {}", parent.display()));
    for entry in fs::read_dir(parent).map_err(doing())? {
        let entry = entry.map_err(doing())?;
        if entry.file_name().to_string_lossy().starts_with(PREFIX) {
            fs::remove_dir_all(entry.path()).map_err(doing())?;
        }
    }
    Ok(())
}

/// Writes the file's zero pages, too, so that they are read by either source: multifd does not read the holes of
/// a file, which a guest's memory has not. Returns when the disk has it, which would be busy later.
fn fill_holes(path: &Path) -> Result<(), Error> {
    let doing = || Error::io(format!("fill the holes of {}", path.display()));
    let file = File::options().read(true).write(true).open(path).map_err(doing())?;
    let bytes = file.metadata().map_err(doing())?.len();
    let mut piece = Vec::new();
    for (at, length) in pieces(0, bytes) {
        piece.resize(length, 0);
        file.read_exact_at(&mut piece, at).map_err(doing())?;
        file.write_all_at(&piece, at).map_err(doing())?;
    }
    file.sync_all().map_err(doing())
}

fn private_memory(ram: &Path, size: GuestSize) -> String {
    let mib = size.mib();
    let path = ram.display().to_string().replace(',', ",,");
    format!("memory-backend-file,id={RAM},size={mib}M,share=off,mem-path={path}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that panics fails")]

    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn a_file_without_holes_holds_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ram");
        let file = File::create(&path).unwrap();
        file.set_len(5 << 20).unwrap();
        file.write_all_at(b"data", 3 << 20).unwrap();
        let before = fs::read(&path).unwrap();
        fill_holes(&path).unwrap();
        assert!(fs::read(&path).unwrap() == before);
        assert!(path.metadata().unwrap().blocks() * 512 >= 5 << 20);
    }

    #[test]
    fn what_an_interrupted_run_has_left_is_removed_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["versus-a1", "guest"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        remove_leftovers(folder.path()).unwrap();
        assert!(!folder.path().join("versus-a1").exists() && folder.path().join("guest").exists());
    }
}
