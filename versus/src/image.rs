//! The VM that is migrated.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use multifd_interop::qemu::{Qemu, Settings};
use serde_json::json;
use tempfile::TempDir;

use crate::error::Error;
use crate::peer::{Program, machine};

/// The block with the guest's RAM.
pub(crate) const RAM: &str = "pc.ram";

/// A VM image of `multifd`: a guest's RAM in the machine of a QEMU, which sends it to
/// `multifd recv` for that. Either side maps the RAM from the image's file, so both read the same.
#[derive(Debug)]
pub(crate) struct Image {
    folder: TempDir,
    pub(crate) mib: u64,
    /// Whether the QEMU has QPL.
    pub(crate) qemu_has_qpl: bool,
}

impl Image {
    /// The VM with the RAM in the file `ram`.
    pub(crate) fn of(ram: &Path, qemu: &Path, multifd: &Path) -> Result<Self, Error> {
        let bytes = ram.metadata().map_err(Error::io(format!("read {}", ram.display())))?.len();
        let mib = bytes >> 20;
        if bytes == 0 || bytes != mib << 20 {
            return Err(Error::Other(format!("{} is not of whole MiB", ram.display())));
        }
        // Beside the RAM, where there is room for as much.
        let parent = ram.parent().filter(|parent| !parent.as_os_str().is_empty());
        let parent = parent.unwrap_or(Path::new("."));
        let folder = tempfile::tempdir_in(parent).map_err(Error::io("make a folder"))?;
        let mut image = Self { folder, mib, qemu_has_qpl: false };

        let mut command = Command::new(multifd);
        command.args(["recv", "--listen", "tcp:127.0.0.1:0", "--to"]).arg(image.path());
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let mut destination = Program::start(&mut command)?;
        let uri = destination.listening()?;
        let mut source = Qemu::with_memory(qemu, &private_memory(ram, mib), &machine(mib))?;
        source.set_up(&Settings::default())?;
        source.migrate(&uri)?;
        source.complete_migration()?;
        destination.end()?;
        image.qemu_has_qpl =
            source.set_parameters(&json!({ "multifd-compression": "qpl" })).is_ok();
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

    /// The guest's RAM as a memory backend of a QEMU. What QEMU writes stays in its process.
    pub(crate) fn memory(&self) -> String {
        private_memory(&self.ram(), self.mib)
    }
}

fn private_memory(ram: &Path, mib: u64) -> String {
    let path = ram.display().to_string().replace(',', ",,");
    format!("memory-backend-file,id={RAM},size={mib}M,share=off,mem-path={path}")
}
