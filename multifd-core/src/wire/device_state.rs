//! The device-state packet (section 4).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, U32, Unaligned, byteorder::BE};

use super::flags::RawHeader;
use super::name::{NAME_BYTES, parse_name, write_name};
use super::{BlockName, PacketFlags};
use crate::error::PeerError;

/// Announces a part of one device's state, which follows it on the channel. QEMU 10.0 and later
/// send it, only with compression none.
#[allow(clippy::exhaustive_structs, reason = "the format is fixed")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceStatePacket {
    /// The device's id, with the same limits as a block's name.
    pub device: BlockName,
    /// Tells apart devices with one id.
    pub instance_id: u32,
    /// Bytes of device data that follow, at least 1. The format has no upper limit.
    pub data_bytes: u32,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Raw {
    header: RawHeader,
    idstr: [u8; NAME_BYTES],
    instance_id: U32<BE>,
    next_packet_size: U32<BE>,
}

impl DeviceStatePacket {
    /// Size of the packet in bytes.
    pub const BYTES: usize = size_of::<Raw>();

    /// The packet's bytes.
    pub fn to_bytes(&self) -> [u8; Self::BYTES] {
        let mut idstr = [0; NAME_BYTES];
        write_name(&mut idstr, self.device.as_str());
        zerocopy::transmute!(Raw {
            header: RawHeader::new(PacketFlags::DEVICE_STATE),
            idstr,
            instance_id: self.instance_id.into(),
            next_packet_size: self.data_bytes.into(),
        })
    }

    /// Reads a packet.
    ///
    /// # Errors
    /// What [`PacketHeader::parse`](super::PacketHeader::parse) refuses; any flag but
    /// `DEVICE_STATE`; an id that is empty, not terminated or not UTF-8; no data.
    pub fn parse(bytes: &[u8; Self::BYTES]) -> Result<Self, PeerError> {
        let raw = Raw::ref_from_bytes(bytes).map_err(|_| PeerError::Truncated)?;
        let flags = raw.header.check()?.flags;
        if flags != PacketFlags::DEVICE_STATE {
            return Err(PeerError::DeviceStateFlags { flags: flags.bits() });
        }
        let device = BlockName::new(parse_name(&raw.idstr)?).map_err(|_| PeerError::NameEmpty)?;
        let data_bytes = raw.next_packet_size.get();
        if data_bytes == 0 {
            return Err(PeerError::DeviceStateEmpty { device });
        }
        Ok(Self { device, instance_id: raw.instance_id.get(), data_bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet() -> DeviceStatePacket {
        let device = BlockName::new("0000:00:05.0/vfio").unwrap();
        DeviceStatePacket { device, instance_id: 7, data_bytes: 4096 }
    }

    #[test]
    fn a_device_state_packet_is_276_bytes_and_reads_back() {
        let bytes = packet().to_bytes();
        assert_eq!(bytes.len(), 276);
        assert_eq!(bytes[8..12], [0, 0, 0, 0x40]);
        assert_eq!(DeviceStatePacket::parse(&bytes), Ok(packet()));
    }

    #[test]
    fn device_state_with_sync_a_method_or_no_data_is_refused() {
        for extra in [0x01, 0x02] {
            let mut bytes = packet().to_bytes();
            bytes[11] |= extra;
            let flags = 0x40 | u32::from(extra);
            let refused = Err(PeerError::DeviceStateFlags { flags });
            assert_eq!(DeviceStatePacket::parse(&bytes), refused);
        }
        let mut bytes = packet().to_bytes();
        bytes[272..].fill(0);
        let device = packet().device;
        assert_eq!(DeviceStatePacket::parse(&bytes), Err(PeerError::DeviceStateEmpty { device }));
    }

    #[test]
    fn a_device_without_a_name_is_refused() {
        let mut bytes = packet().to_bytes();
        bytes[12] = 0;
        assert_eq!(DeviceStatePacket::parse(&bytes), Err(PeerError::NameEmpty));
    }
}
