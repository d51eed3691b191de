//! The header of every packet and its flags (section 2).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, U32, Unaligned, byteorder::BE};

use super::{Compression, MAGIC, VERSION, check_magic_and_version};
use crate::error::PeerError;

bitflags::bitflags! {
    /// The flags word of a packet. Only these bits are defined; a receiver refuses any other.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct PacketFlags: u32 {
        /// The end of a round on this channel.
        const SYNC = 0x01;
        /// The 5-bit field that holds one [`Compression`], not a set: see [`Compression::of`].
        const COMPRESSION = 0x1f << 1;
        /// The packet is a [`DeviceStatePacket`](super::DeviceStatePacket).
        const DEVICE_STATE = 0x40;
    }
}

/// The 12 bytes that every packet after the initial one starts with, checked.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketHeader {
    /// The packet's flags.
    pub flags: PacketFlags,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct RawHeader {
    magic: U32<BE>,
    version: U32<BE>,
    flags: U32<BE>,
}

impl RawHeader {
    pub(super) fn new(flags: PacketFlags) -> Self {
        Self { magic: MAGIC.into(), version: VERSION.into(), flags: flags.bits().into() }
    }

    pub(super) fn check(&self) -> Result<PacketHeader, PeerError> {
        check_magic_and_version(self.magic.get(), self.version.get())?;
        let bits = self.flags.get();
        let flags = PacketFlags::from_bits(bits)
            .ok_or(PeerError::Flags { flags: bits, unknown: bits & !PacketFlags::all().bits() })?;
        Ok(PacketHeader { flags })
    }
}

impl PacketHeader {
    /// Size of the header in bytes.
    pub const BYTES: usize = size_of::<RawHeader>();

    /// Reads the header at the start of a packet.
    ///
    /// # Errors
    /// A wrong magic or version, and a flag that is not defined.
    pub fn parse(bytes: &[u8; Self::BYTES]) -> Result<Self, PeerError> {
        RawHeader::ref_from_bytes(bytes).map_err(|_| PeerError::Truncated)?.check()
    }

    /// The codec that the packet names.
    pub fn compression(self) -> Compression {
        Compression::of(self.flags)
    }

    /// Bytes of the packet that follow this header, before its payload, with `page_count` page
    /// slots in a packet.
    pub fn following_bytes(self, page_count: usize) -> usize {
        let whole = if self.flags.contains(PacketFlags::DEVICE_STATE) {
            super::DeviceStatePacket::BYTES
        } else {
            super::RamPacket::bytes(page_count)
        };
        whole - Self::BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(magic: u32, version: u32, flags: u32) -> [u8; 12] {
        let mut bytes = [0; 12];
        bytes[..4].copy_from_slice(&magic.to_be_bytes());
        bytes[4..8].copy_from_slice(&version.to_be_bytes());
        bytes[8..].copy_from_slice(&flags.to_be_bytes());
        bytes
    }

    #[test]
    fn each_defined_flag_is_accepted_and_any_other_refused() {
        for bit in 0..32 {
            let flags = 1u32 << bit;
            let parsed = PacketHeader::parse(&header(MAGIC, VERSION, flags));
            if flags <= 0x40 {
                assert_eq!(parsed.unwrap().flags.bits(), flags);
            } else {
                assert_eq!(parsed, Err(PeerError::Flags { flags, unknown: flags }));
            }
        }
    }

    #[test]
    fn a_wrong_magic_or_version_is_refused() {
        let parse = |magic, version| PacketHeader::parse(&header(magic, version, 0));
        assert_eq!(parse(0x5145_564d, 1), Err(PeerError::Magic { found: 0x5145_564d }));
        assert_eq!(parse(MAGIC, 2), Err(PeerError::Version { found: 2 }));
    }
}
