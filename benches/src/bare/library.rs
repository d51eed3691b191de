//! Libraries that are opened at run time, and never closed.

use std::env;
use std::ffi::OsStr;
use std::mem::ManuallyDrop;

use libloading::os::unix as loader;

/// A library whose functions may be kept: it stays loaded until the process ends.
pub(super) struct Library {
    name: &'static str,
    loaded: ManuallyDrop<loader::Library>,
}

impl Library {
    /// Opens the file that the environment's `variable` names, or that called `name` where the loader looks or where
    /// libraries usually are: a loader with a library path of its own, as that of `scripts/qpl-library`, looks
    /// there alone.
    pub(super) fn open(variable: &str, name: &'static str) -> Option<Self> {
        const FOLDERS: [&str; 6] = [
            "",
            "/usr/lib/x86_64-linux-gnu/",
            "/usr/lib/aarch64-linux-gnu/",
            "/usr/lib64/",
            "/usr/lib/",
            "/usr/local/lib/",
        ];
        let named = env::var_os(variable).filter(|file| !file.is_empty());
        let loaded = match named {
            Some(file) => load(&file),
            None => FOLDERS.iter().find_map(|folder| load(format!("{folder}{name}").as_ref())),
        };
        loaded.map(|loaded| Self { name, loaded: ManuallyDrop::new(loaded) })
    }

    /// # Safety
    /// `F` must be the type of the function `name`.
    pub(super) unsafe fn function<F: Copy>(&self, name: &str) -> Result<F, String> {
        // SAFETY: as the caller promises.
        let symbol = unsafe { self.loaded.get::<F>(name.as_bytes()) };
        symbol.map(|symbol| *symbol).map_err(|_| format!("{} has no function {name}", self.name))
    }
}

fn load(file: &OsStr) -> Option<loader::Library> {
    // SAFETY: this runs what the library runs when it is loaded, and that is trusted as this program is: whoever
    // runs it names the file, or it is installed where libraries are.
    unsafe { loader::Library::open(Some(file), loader::RTLD_NOW | loader::RTLD_LOCAL) }.ok()
}
