//! The libraries that QPL's hardware path needs.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use qpl_sys::{Library, OpenError, Version};

/// libqpl, as the codec would open it.
#[derive(Clone, Debug)]
pub(in crate::doctor) struct Libqpl {
    /// The name or path that was opened.
    pub(in crate::doctor) origin: String,
    pub(in crate::doctor) version: Version,
}

impl Libqpl {
    pub(super) fn find() -> Result<Self, OpenError> {
        let library = Library::open()?;
        Ok(Self { origin: library.origin().to_owned(), version: library.version() })
    }
}

/// The path of libaccel-config, by which libqpl finds devices. libqpl opens it at its first use; here
/// it is only searched for in the loader's folders.
pub(super) fn find_accel_config() -> Option<PathBuf> {
    const NAME: &str = "libaccel-config.so.1";
    const CACHE: &str = "/etc/ld.so.cache";
    const FOLDERS: [&str; 8] = [
        "/lib/x86_64-linux-gnu",
        "/usr/lib/x86_64-linux-gnu",
        "/lib64",
        "/usr/lib64",
        "/lib",
        "/usr/lib",
        "/usr/local/lib",
        "/usr/local/lib64",
    ];
    let named = env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let named: Vec<_> = env::split_paths(&named).filter(|path| path.is_absolute()).collect();
    let folders = named.iter().map(PathBuf::as_path).chain(FOLDERS.iter().map(Path::new));
    let file = folders.map(|folder| folder.join(NAME)).find(|file| file.exists());
    // The administrator's own folders are in the loader's cache, with the full paths of their files.
    file.or_else(|| listed(&fs::read(CACHE).ok()?, NAME))
}

/// The full path of the library called `name` in the loader's cache, whose texts each end in a NUL.
fn listed(cache: &[u8], name: &str) -> Option<PathBuf> {
    let texts = cache.split(|&byte| byte == 0).filter_map(|text| std::str::from_utf8(text).ok());
    let mut paths = texts.map(Path::new).filter(|path| path.is_absolute());
    paths.find(|path| path.file_name().is_some_and(|file| file == name)).map(Path::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loaders_cache_has_a_library_by_its_full_path() {
        let cache = b"glibc-ld.so.cache1.1\0\x01\xff\0libx.so.1\0/opt/lib/libx.so.1\0/lib/y\0";
        assert_eq!(listed(cache, "libx.so.1"), Some("/opt/lib/libx.so.1".into()));
        assert_eq!(listed(cache, "libx.so"), None);
        assert_eq!(listed(b"", "libx.so.1"), None);
    }
}
