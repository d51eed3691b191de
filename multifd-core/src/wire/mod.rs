//! The bytes on a multifd channel: parse and write, no IO.
//!
//! `docs/wire-format.md` in the repository describes the format; the section numbers in this
//! module are that document's. Every integer is big-endian, every structure is packed.
//!
//! A channel carries one [`InitialPacket`], then any number of packets, each a
//! [`RamPacket`] with its payload or a [`DeviceStatePacket`] with its data. All start with a
//! [`PacketHeader`], which says which of the two it is.

mod compression;
mod device_state;
mod flags;
mod initial;
mod name;
mod ram;

pub use compression::{Compression, MAX_PAYLOAD, PrivateMethod, UnknownCompression};
pub use device_state::DeviceStatePacket;
pub use flags::{PacketFlags, PacketHeader};
pub use initial::{InitialPacket, MalformedUuid, Uuid};
pub use name::BlockName;
pub use ram::{Pages, RamPacket, RamPacketBuilder};

/// The first four bytes of every packet of a multifd channel, the initial one included.
pub const MAGIC: u32 = 0x1122_3344;

/// The only version of the format that there is.
pub const VERSION: u32 = 1;

use crate::error::PeerError;

/// Checks the two words that every packet starts with.
fn check_magic_and_version(magic: u32, version: u32) -> Result<(), PeerError> {
    match (magic, version) {
        (MAGIC, VERSION) => Ok(()),
        (MAGIC, version) => Err(PeerError::Version { found: version }),
        (magic, _) => Err(PeerError::Magic { found: magic }),
    }
}
