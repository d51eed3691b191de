//! `POSTCOPY_ADVISE`: that the source may want to switch to postcopy.

/// What a source says that may want to switch to postcopy later. A source sends it where the
/// capability is on, whether or not it ever does; a destination QEMU with the capability expects it.
/// Zero pages have to be written when they first arrive from then on, since a page that was never
/// written counts as missing in postcopy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PostcopyAdvise {
    /// `dirty-bitmaps` is on, but not `postcopy-ram`: no RAM comes by postcopy.
    DirtyBitmaps,
    /// `postcopy-ram` is on.
    Ram {
        /// The sizes of the pages that the source's RAM blocks are made of, in bytes: their sum in
        /// binary, so a bit for each.
        page_sizes: u64,
        /// The size of the pages that are migrated, in bytes.
        target_page_bytes: u64,
    },
}

impl PostcopyAdvise {
    /// [`Ram`](Self::Ram) with these numbers.
    pub const fn ram(page_sizes: u64, target_page_bytes: u64) -> Self {
        Self::Ram { page_sizes, target_page_bytes }
    }

    /// The command's data: nothing, or 16 bytes.
    pub(super) fn to_bytes(self) -> Vec<u8> {
        match self {
            Self::DirtyBitmaps => Vec::new(),
            Self::Ram { page_sizes, target_page_bytes } => {
                [page_sizes.to_be_bytes(), target_page_bytes.to_be_bytes()].concat()
            }
        }
    }

    /// From the data of `postcopy-ram`'s form.
    pub(super) fn of_ram(data: [u8; 16]) -> Self {
        let number = |bytes: &[u8]| bytes.iter().fold(0, |n, &byte| n << 8 | u64::from(byte));
        Self::Ram { page_sizes: number(&data[..8]), target_page_bytes: number(&data[8..]) }
    }
}
