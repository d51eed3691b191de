//! VMs in files of QEMU's mapped-ram format.
//!
//! QEMU 9.0 and later write such a file with the capability mapped-ram and `migrate file:PATH`, and take one with
//! `-incoming file:PATH`. The file is a migration stream in which each RAM block has room of its own: page i of a block is
//! at one place, whatever the round, and a bitmap says which pages are there. So any thread can read and write any page, and
//! a page of zeros takes no room. docs/migration-stream.md in the repository describes the format.
//!
//! ```no_run
//! use std::fs::File;
//! use multifd::core::ram::{Ram, RamBlock};
//! use multifd::core::vm_memory::MmapRegion;
//! use multifd::mapped_ram::{self, MappedRam};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let saved = MappedRam::open(File::open("vm.mapped")?, 0, multifd::stream::Limits::default())?;
//! let blocks = saved.blocks().iter().map(|block| {
//!     let memory = MmapRegion::<()>::new(block.info.bytes as usize)?;
//!     Ok::<_, Box<dyn std::error::Error>>(RamBlock::new(block.info.name.clone(), memory).fresh())
//! });
//! let blocks = blocks.collect::<Result<Vec<_>, _>>()?;
//! let ram = Ram::new(saved.page_size(), blocks)?;
//! saved.load(&ram, 4)?;
//!
//! let copy = File::create("copy.mapped")?;
//! mapped_ram::Writer::new(&copy).threads(4).write(saved.vm(), &ram)?;
//! # Ok(())
//! # }
//! ```

mod bitmap;
mod chunks;
mod read;
mod write;

use std::io;

use multifd_core::wire::BlockName;

pub use read::MappedRam;
pub use write::Writer;

use crate::stream::StreamError;

/// Why a VM cannot be read from a mapped-ram file, or written into one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MappedRamError {
    /// The stream in the file is against the format, or cannot be written. Its offsets are the file's.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// The file ends before the end of a RAM block.
    #[error(
        "the file is cut off: it ends at byte {bytes}, but the pages of RAM block {name:?} at byte {end}"
    )]
    CutOff {
        /// The block.
        name: BlockName,
        /// Where its pages end.
        end: u64,
        /// The length of the file.
        bytes: u64,
    },
    /// The VM has more RAM than any machine.
    #[error("the file says that the VM has more than {} TiB of RAM", limit >> 40)]
    TooMuchRam {
        /// How much is accepted, in bytes.
        limit: u64,
    },
    /// A bitmap has bits behind the last page.
    #[error("the bitmap of RAM block {0:?} has bits behind the block's last page")]
    Bitmap(BlockName),
    /// The memory that is to be filled, or stored, has other blocks than the VM, of other sizes or of other pages.
    #[error("the RAM has not the blocks of the VM, in its order and sizes")]
    OtherRam,
    /// The file cannot be read.
    #[error("cannot read the file (at byte {offset})")]
    Read {
        /// Where in the file.
        offset: u64,
        /// The failure.
        source: io::Error,
    },
    /// The file cannot be written.
    #[error("cannot write the file (at byte {offset})")]
    Write {
        /// Where in the file.
        offset: u64,
        /// The failure.
        source: io::Error,
    },
    /// The caller has asked to stop.
    #[error("it was stopped")]
    Stopped,
}

impl MappedRamError {
    fn reading(offset: u64) -> impl Fn(io::Error) -> Self {
        move |source| Self::Read { offset, source }
    }

    fn writing(offset: u64) -> impl Fn(io::Error) -> Self {
        move |source| Self::Write { offset, source }
    }
}

#[cfg(test)]
mod tests;
