//! The page sizes that a migration can have.

use std::fmt;

/// Bytes of guest memory that one packet covers at most, whatever the page size: 512 KiB.
pub const PACKET_BYTES: usize = 512 * 1024;

/// Size of a guest page. Both sides of a migration must have the same.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PageSize {
    /// 4096 bytes, 128 pages in a packet: x86 and most others.
    #[default]
    Kib4,
    /// 16384 bytes, 32 pages in a packet.
    Kib16,
    /// 65536 bytes, 8 pages in a packet.
    Kib64,
}

impl PageSize {
    /// Every page size, smallest first.
    pub const ALL: [Self; 3] = [Self::Kib4, Self::Kib16, Self::Kib64];

    /// The size in bytes.
    pub const fn bytes(self) -> usize {
        match self {
            Self::Kib4 => 4 << 10,
            Self::Kib16 => 16 << 10,
            Self::Kib64 => 64 << 10,
        }
    }

    /// Page slots in a packet: `page_count` of the wire format.
    pub const fn page_count(self) -> usize {
        PACKET_BYTES / self.bytes()
    }

    /// The page size of `bytes` bytes, if it is one that a migration can have.
    pub fn from_bytes(bytes: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|size| size.bytes() as u64 == bytes)
    }

    /// The size as a power of two: 12, 14 or 16.
    pub const fn bits(self) -> u32 {
        self.bytes().trailing_zeros()
    }

    /// The page size of 2^`bits` bytes, if it is one that a migration can have.
    pub fn from_bits(bits: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|size| size.bits() == bits)
    }

    /// Whether `offset` is a multiple of the page size.
    pub const fn is_aligned(self, offset: u64) -> bool {
        offset % self.bytes() as u64 == 0
    }
}

impl fmt::Display for PageSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} KiB", self.bytes() >> 10)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_covers_512_kib_whatever_the_page_size() {
        for size in PageSize::ALL {
            assert_eq!(size.bytes() * size.page_count(), PACKET_BYTES);
            assert_eq!(PageSize::from_bytes(size.bytes() as u64), Some(size));
            assert_eq!(PageSize::from_bits(size.bits()), Some(size));
        }
        assert_eq!(PageSize::Kib4.page_count(), 128);
        assert_eq!(PageSize::Kib64.page_count(), 8);
        assert_eq!((PageSize::from_bytes(8192), PageSize::from_bits(13)), (None, None));
    }
}
