//! The VM that is migrated.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use multifd_interop::qemu::{Qemu, Settings};
use serde_json::json;
use tempfile::TempDir;

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
        let folder = tempfile::tempdir_in(parent).map_err(Error::io("make a folder"))?;
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

fn private_memory(ram: &Path, size: GuestSize) -> String {
    let mib = size.mib();
    let path = ram.display().to_string().replace(',', ",,");
    format!("memory-backend-file,id={RAM},size={mib}M,share=off,mem-path={path}")
}
