//! Memory for RAM blocks.

mod shrunk;

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use multifd::core::PageSize;
use multifd::core::vm_memory::{FileOffset, MmapRegion};

use crate::failure::Failure;
use crate::size::Bytes;
pub(crate) use shrunk::{check as check_files, page_bytes};

/// What may be done with a mapped file's memory. The file itself is never written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    /// Only this program sees what is written.
    PrivateWrite,
}

/// Fails unless `bytes` bytes are one or more whole pages. The error names `path`.
pub(crate) fn check_pages(path: &Path, bytes: u64) -> Result<(), Failure> {
    let page = PageSize::Kib4;
    if bytes > 0 && page.is_aligned(bytes) {
        return Ok(());
    }
    Err(Failure::new(format!(
        "cannot use {}: its {bytes} bytes are not one or more pages of {page}; a guest's memory \
         has only whole pages",
        path.display()
    )))
}

/// The `bytes` bytes of `file` from byte `offset` on, a multiple of this machine's page size, as memory. Where the file becomes shorter, that is zero, and
/// [`check_files`] fails. The file stays mapped as long as the program runs.
pub(crate) fn of_file(
    path: &Path,
    file: File,
    offset: u64,
    bytes: u64,
    access: Access,
) -> Result<Arc<MmapRegion>, Failure> {
    let cannot =
        |why: &dyn std::fmt::Display| Failure::new(format!("cannot map {}: {why}", path.display()));
    let length = usize::try_from(bytes).map_err(|error| cannot(&error))?;
    let (write, flags) = match access {
        // What is mapped shared has the file's own holes, which need not be read.
        Access::Read => (0, libc::MAP_SHARED),
        Access::PrivateWrite => (libc::PROT_WRITE, libc::MAP_PRIVATE),
    };
    let flags = flags | libc::MAP_NORESERVE;
    let watched = file.try_clone().map_err(|error| cannot(&error))?;
    let region = MmapRegion::build(
        Some(FileOffset::new(file, offset)),
        length,
        libc::PROT_READ | write,
        flags,
    )
    .map_err(|error| cannot(&error))?;
    let region = Arc::new(region);
    shrunk::watch(path, watched, offset, Arc::clone(&region)).map_err(|error| cannot(&error))?;
    Ok(region)
}

/// New memory, all zero. It takes room only as it is written.
pub(crate) fn anonymous(bytes: u64) -> Result<MmapRegion, String> {
    let refused = |error: &dyn std::fmt::Display| {
        format!(
            "cannot map {} of memory: {error}; free some memory or use a larger machine",
            Bytes(bytes)
        )
    };
    let length = usize::try_from(bytes).map_err(|error| refused(&error))?;
    MmapRegion::new(length).map_err(|error| refused(&error))
}

/// Bytes of memory and swap that this machine has.
pub(crate) fn memory_of_this_machine() -> u64 {
    let system = rustix::system::sysinfo();
    (system.totalram + system.totalswap).saturating_mul(system.mem_unit.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_stays_mapped_when_nobody_uses_its_memory_any_more() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(8192).unwrap();
        let (opened, bytes) = crate::file::open(file.path()).unwrap();
        let memory = of_file(file.path(), opened, 0, bytes, Access::Read).unwrap();
        assert_eq!(memory.size(), 8192);
        let used = Arc::downgrade(&memory);
        drop(memory);
        // The handler of SIGBUS may put zeros there at any time: the addresses must not be others'.
        assert!(used.upgrade().is_some());
    }
}
