//! Which codec a migration uses.

use std::fmt;
use std::str::FromStr;

use super::PacketFlags;
use crate::page_size::PACKET_BYTES;

/// The codec of a migration: the value that both sides configure.
///
/// [`Display`](fmt::Display) and [`FromStr`] use QEMU's names: `none`, `zlib`, `zstd`, `qpl`,
/// `uadk`, `qatzip`. A private method reads `private-0x06`.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Compression {
    /// Pages as they are.
    None,
    /// One zlib stream (RFC 1950) a channel.
    Zlib,
    /// One zstd frame (RFC 8878) a channel.
    Zstd,
    /// A raw DEFLATE stream (RFC 1951) a page, as Intel's IAA makes them.
    Qpl,
    /// A zlib stream a page, as `HiSilicon`'s accelerators make them.
    Uadk,
    /// gzip members (RFC 1952) with Intel QAT's header.
    Qatzip,
    /// A value that QEMU does not use, for a codec between two peers that agree on it.
    Private(PrivateMethod),
}

impl Compression {
    /// The methods that QEMU knows, in the order of their values.
    pub const QEMU: [Self; 6] =
        [Self::None, Self::Zlib, Self::Zstd, Self::Qpl, Self::Uadk, Self::Qatzip];

    /// The value of the compression field in a packet's flags.
    pub const fn flags(self) -> PacketFlags {
        PacketFlags::from_bits_retain(match self {
            Self::None => 0x00,
            Self::Zlib => 0x02,
            Self::Zstd => 0x04,
            Self::Qpl => 0x08,
            Self::Uadk => 0x10,
            Self::Qatzip => 0x20,
            Self::Private(method) => method.bits,
        })
    }

    /// The codec that the compression field of `flags` names. Every value names one.
    pub fn of(flags: PacketFlags) -> Self {
        let field = flags & PacketFlags::COMPRESSION;
        Self::QEMU
            .into_iter()
            .find(|method| method.flags() == field)
            .unwrap_or(Self::Private(PrivateMethod { bits: field.bits() }))
    }

    /// The sizes of payload, in bytes, that a packet with `normal` pages of `page_bytes` bytes
    /// may have: from the first to the second, both included.
    pub fn payload_bounds(self, normal: usize, page_bytes: usize) -> (usize, usize) {
        let pages = normal * page_bytes;
        match self {
            _ if normal == 0 => (0, 0),
            Self::None => (pages, pages),
            Self::Qpl | Self::Uadk => (4 * normal + 1, 4 * normal + pages),
            _ => (1, MAX_PAYLOAD),
        }
    }
}

/// The most payload that any packet carries, in bytes: the receive buffer of QEMU.
pub const MAX_PAYLOAD: usize = 2 * PACKET_BYTES;

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::None => "none",
            Self::Zlib => "zlib",
            Self::Zstd => "zstd",
            Self::Qpl => "qpl",
            Self::Uadk => "uadk",
            Self::Qatzip => "qatzip",
            Self::Private(method) => return write!(f, "private-{:#04x}", method.bits),
        })
    }
}

impl FromStr for Compression {
    type Err = UnknownCompression;

    fn from_str(name: &str) -> Result<Self, UnknownCompression> {
        if let Some(method) = Self::QEMU.into_iter().find(|method| method.to_string() == name) {
            return Ok(method);
        }
        name.strip_prefix("private-0x")
            .and_then(|digits| u32::from_str_radix(digits, 16).ok())
            .and_then(PrivateMethod::new)
            .map(Self::Private)
            .ok_or_else(|| UnknownCompression(name.to_owned()))
    }
}

/// A name that is not a compression method's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' is not a compression method: use none, zlib, zstd, qpl, uadk, qatzip or private-0xNN"
)]
pub struct UnknownCompression(String);

/// A value of the compression field that QEMU leaves unused.
///
/// A QEMU refuses a packet that carries it: such a method works between peers that agree on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PrivateMethod {
    bits: u32,
}

impl PrivateMethod {
    /// The method with the value `bits` (of the flags word, so an even number from 0x06 to 0x3e).
    /// `None` where QEMU uses the value or the field cannot hold it.
    pub const fn new(bits: u32) -> Option<Self> {
        let in_field = bits & !PacketFlags::COMPRESSION.bits() == 0;
        // QEMU's own values have at most one bit set.
        if in_field && bits.count_ones() > 1 { Some(Self { bits }) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_of_the_field_names_one_method_and_back() {
        for bits in (0..=0x3e).step_by(2) {
            let flags = PacketFlags::from_bits(bits).unwrap();
            let method = Compression::of(flags);
            assert_eq!(method.flags(), flags);
            assert_eq!(method.to_string().parse(), Ok(method));
        }
    }

    #[test]
    fn a_private_method_never_takes_a_value_of_qemus() {
        for method in Compression::QEMU {
            assert_eq!(PrivateMethod::new(method.flags().bits()), None);
        }
        assert_eq!(PrivateMethod::new(0x07), None);
        assert_eq!(PrivateMethod::new(0x46), None);
        assert!(PrivateMethod::new(0x3e).is_some());
    }

    #[test]
    fn a_sync_flag_does_not_change_the_method() {
        assert_eq!(
            Compression::of(PacketFlags::SYNC | Compression::Zstd.flags()),
            Compression::Zstd
        );
    }

    #[test]
    fn an_unknown_name_is_refused_with_the_list() {
        let error = "lzo".parse::<Compression>().unwrap_err();
        assert!(error.to_string().contains("zstd"));
        assert!("private-0x02".parse::<Compression>().is_err());
    }

    #[test]
    fn a_payload_has_the_bounds_that_its_codec_sets() {
        for method in Compression::QEMU {
            assert_eq!(method.payload_bounds(0, 4096), (0, 0), "{method}");
        }
        assert_eq!(Compression::None.payload_bounds(3, 4096), (12288, 12288));
        for method in [Compression::Qpl, Compression::Uadk] {
            // A length a page, and then 1 byte at least, or every page as it is.
            assert_eq!(method.payload_bounds(3, 4096), (13, 12 + 12288), "{method}");
        }
        for method in [Compression::Zlib, Compression::Zstd, Compression::Qatzip] {
            assert_eq!(method.payload_bounds(3, 4096), (1, MAX_PAYLOAD), "{method}");
        }
        assert_eq!(MAX_PAYLOAD, 1 << 20);
    }
}
