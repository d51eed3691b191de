//! Why a plan cannot be made.

use multifd_core::PageSize;
use multifd_core::vm_memory::mmap::MmapRegionError;

/// Why memory cannot be sampled, or a codec cannot be measured.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The guest's pages are not 4 KiB large.
    #[error("cannot sample memory with pages of {0}: only pages of 4 KiB are simulated")]
    PageSize(PageSize),
    /// The memory is not one or more whole pages.
    #[error("cannot sample {0} bytes of memory: they are not one or more whole pages of 4 KiB")]
    Size(u64),
    /// There is no memory for the sample's own pages.
    #[error("cannot allocate {bytes} bytes for the sampled pages; take fewer packets")]
    Memory {
        /// The size of the sampled pages.
        bytes: u64,
        /// What the system says.
        source: MmapRegionError,
    },
    /// A codec failed on the sampled pages.
    #[error("codec {codec} cannot be measured")]
    Codec {
        /// The codec's name.
        codec: &'static str,
        /// What the codec says.
        source: multifd_core::Error,
    },
}
