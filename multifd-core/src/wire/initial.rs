//! The initial packet (section 1).

use std::fmt;
use std::str::FromStr;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, U32, Unaligned, byteorder::BE};

use super::{MAGIC, VERSION, check_magic_and_version};
use crate::error::PeerError;

/// The UUID of a virtual machine, all zero where it has none.
#[allow(clippy::exhaustive_structs, reason = "the format is fixed")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Uuid(pub [u8; 16]);

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, byte) in self.0.iter().enumerate() {
            let dash = if matches!(at, 4 | 6 | 8 | 10) { "-" } else { "" };
            write!(f, "{dash}{byte:02x}")?;
        }
        Ok(())
    }
}

impl FromStr for Uuid {
    type Err = MalformedUuid;

    fn from_str(text: &str) -> Result<Self, MalformedUuid> {
        let refused = || MalformedUuid(text.to_owned());
        let digits: String = text.chars().filter(|&c| c != '-').collect();
        if digits.len() != 32 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(refused());
        }
        let value = u128::from_str_radix(&digits, 16).map_err(|_| refused())?;
        Ok(Self(value.to_be_bytes()))
    }
}

/// A text that is not a UUID.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' is not a UUID: write 32 hexadecimal digits, as in 01020304-0506-0708-090a-0b0c0d0e0f10"
)]
pub struct MalformedUuid(String);

/// What each channel sends first, once: which VM it belongs to and which channel it is.
#[allow(clippy::exhaustive_structs, reason = "the format is fixed")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InitialPacket {
    /// The VM's UUID. Both sides must agree.
    pub uuid: Uuid,
    /// Channel number: 0 to channels - 1, each once.
    pub channel: u8,
    /// The source will say at the end what its RAM holds: see
    /// [`RamDigests`](crate::ram::RamDigests). QEMU's never does, and does not look.
    pub digests: bool,
}

/// What the unused bytes begin with where the source will say what its RAM holds.
const DIGESTS: [u8; 7] = *b"digest1";

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Raw {
    magic: U32<BE>,
    version: U32<BE>,
    uuid: [u8; 16],
    id: u8,
    digests: [u8; DIGESTS.len()],
    unused: [u8; 32],
}

impl InitialPacket {
    /// The packet of channel `channel`.
    pub const fn new(uuid: Uuid, channel: u8) -> Self {
        Self { uuid, channel, digests: false }
    }

    /// Whether the source will say what its RAM holds.
    #[must_use]
    pub const fn with_digests(self, digests: bool) -> Self {
        Self { digests, ..self }
    }

    /// Size of the packet in bytes.
    pub const BYTES: usize = size_of::<Raw>();

    /// The packet's bytes.
    pub fn to_bytes(&self) -> [u8; Self::BYTES] {
        zerocopy::transmute!(Raw {
            magic: MAGIC.into(),
            version: VERSION.into(),
            uuid: self.uuid.0,
            id: self.channel,
            digests: if self.digests { DIGESTS } else { [0; DIGESTS.len()] },
            unused: [0; 32],
        })
    }

    /// Reads a packet.
    ///
    /// # Errors
    /// A wrong magic or version. That UUID and channel are the expected ones is checked by
    /// [`expect`](Self::expect).
    pub fn parse(bytes: &[u8; Self::BYTES]) -> Result<Self, PeerError> {
        let raw: Raw = zerocopy::transmute!(*bytes);
        check_magic_and_version(raw.magic.get(), raw.version.get())?;
        let digests = raw.digests == DIGESTS;
        Ok(Self { uuid: Uuid(raw.uuid), channel: raw.id, digests })
    }

    /// Checks the packet against what the receiver was set up for.
    ///
    /// # Errors
    /// Another UUID than `uuid`, where one is given, and a channel number at or past `channels`.
    pub fn expect(&self, uuid: Option<Uuid>, channels: u8) -> Result<(), PeerError> {
        if let Some(expected) = uuid.filter(|&expected| expected != self.uuid) {
            return Err(PeerError::Uuid { expected, found: self.uuid });
        }
        if self.channel >= channels {
            return Err(PeerError::ChannelId { id: self.channel, channels });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: &str = "01020304-0506-0708-090a-0b0c0d0e0f10";

    #[test]
    fn the_initial_packet_is_64_bytes_and_reads_back() {
        let packet = InitialPacket::new(UUID.parse().unwrap(), 3);
        let bytes = packet.to_bytes();
        assert_eq!(bytes.len(), 64);
        assert_eq!(bytes[..8], [0x11, 0x22, 0x33, 0x44, 0, 0, 0, 1]);
        assert_eq!((bytes[8], bytes[23], bytes[24]), (1, 16, 3));
        assert_eq!(InitialPacket::parse(&bytes), Ok(packet));
    }

    #[test]
    fn a_channel_number_at_the_channel_count_is_refused() {
        let packet = InitialPacket::new(Uuid::default(), 2);
        assert_eq!(packet.expect(None, 3), Ok(()));
        assert_eq!(packet.expect(None, 2), Err(PeerError::ChannelId { id: 2, channels: 2 }));
    }

    #[test]
    fn another_uuid_is_refused() {
        let expected = UUID.parse().unwrap();
        let packet = InitialPacket::new(Uuid::default(), 0);
        assert_eq!(
            packet.expect(Some(expected), 1),
            Err(PeerError::Uuid { expected, found: Uuid::default() })
        );
    }

    #[test]
    fn a_uuid_reads_as_it_is_written_and_other_text_is_refused() {
        assert_eq!(UUID.parse::<Uuid>().unwrap().to_string(), UUID);
        for wrong in ["", "0102", "+1020304-0506-0708-090a-0b0c0d0e0f10", "g", &UUID[1..]] {
            assert!(wrong.parse::<Uuid>().is_err(), "{wrong}");
        }
    }
}
