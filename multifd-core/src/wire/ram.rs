//! The RAM packet (section 3) and the SYNC packet (section 5), which has the same layout.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, U32, U64, Unaligned, byteorder::BE};

use super::flags::RawHeader;
use super::name::{NAME_BYTES, parse_name, write_name};
use super::{BlockName, Compression, PacketFlags};
use crate::error::PeerError;
use crate::page_size::PageSize;

/// A RAM packet, borrowed from the bytes that it was read from.
///
/// Every count, offset and size in it is within what the format and the codec that the packet
/// names allow. Not yet known is whether the block exists and holds the offsets: that is
/// [`Ram::pages`](crate::ram::Ram::pages)'s to say.
#[non_exhaustive]
#[derive(Clone, Copy, Debug)]
pub struct RamPacket<'a> {
    /// The packet's flags.
    pub flags: PacketFlags,
    /// The source's packet counter over all channels: gaps and reordering are normal.
    pub packet_num: u64,
    /// The pages that the packet carries; a packet that only synchronises has none.
    pub pages: Option<Pages<'a>>,
    /// Bytes of payload that follow the packet: 0 without normal pages, else within
    /// [`Compression::payload_bounds`].
    pub payload_bytes: usize,
}

/// The pages of a packet: at least one, at most `page_count`, all of one block.
#[non_exhaustive]
#[derive(Clone, Copy, Debug)]
pub struct Pages<'a> {
    /// The name of the block, not empty.
    pub block: &'a str,
    /// Offsets in the block, in bytes, of the pages with data, in the order of the payload. Each
    /// is a multiple of the page size.
    pub normal: &'a [U64<BE>],
    /// Offsets of the pages that are all zero.
    pub zero: &'a [U64<BE>],
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Raw {
    header: RawHeader,
    pages_alloc: U32<BE>,
    normal_pages: U32<BE>,
    next_packet_size: U32<BE>,
    packet_num: U64<BE>,
    zero_pages: U32<BE>,
    unused: [u8; 28],
    ramblock: [u8; NAME_BYTES],
}

impl<'a> RamPacket<'a> {
    /// Size in bytes of a packet with `page_count` page slots, without its payload.
    pub const fn bytes(page_count: usize) -> usize {
        size_of::<Raw>() + page_count * size_of::<U64<BE>>()
    }

    /// Reads a packet of [`bytes`](Self::bytes) bytes.
    ///
    /// # Errors
    /// Whatever section 3 has a receiver check, but for the existence of the block.
    pub fn parse(bytes: &'a [u8], page_size: PageSize) -> Result<Self, PeerError> {
        if bytes.len() != Self::bytes(page_size.page_count()) {
            return Err(PeerError::Truncated);
        }
        let (raw, slots) = Raw::ref_from_prefix(bytes).map_err(|_| PeerError::Truncated)?;
        let flags = raw.header.check()?.flags;
        if flags.contains(PacketFlags::DEVICE_STATE) {
            return Err(PeerError::DeviceStateFlags { flags: flags.bits() });
        }
        let (normal_count, zero_count) = raw.page_counts(page_size.page_count())?;
        let mut packet =
            Self { flags, packet_num: raw.packet_num.get(), pages: None, payload_bytes: 0 };
        if normal_count + zero_count == 0 {
            // Nothing follows, whatever next_packet_size says: QEMU before 9.0 leaves the last
            // packet's value standing in its SYNC packets.
            return Ok(packet);
        }
        packet.payload_bytes = raw.payload_bytes(flags, normal_count, page_size)?;
        let slots = <[U64<BE>]>::ref_from_bytes(slots).map_err(|_| PeerError::Truncated)?;
        let used = slots.get(..normal_count + zero_count).ok_or(PeerError::Truncated)?;
        if let Some(offset) = used.iter().find(|offset| !page_size.is_aligned(offset.get())) {
            return Err(PeerError::OffsetMisaligned { offset: offset.get(), page_size });
        }
        let (normal, zero) = used.split_at(normal_count);
        packet.pages = Some(Pages { block: raw.block()?, normal, zero });
        Ok(packet)
    }

    /// The number that a packet claims, whatever else may be wrong with it; to report it by.
    pub fn claimed_num(bytes: &[u8]) -> Option<u64> {
        Raw::ref_from_prefix(bytes).ok().map(|(raw, _)| raw.packet_num.get())
    }

    /// The codec that the packet names.
    pub fn compression(&self) -> Compression {
        Compression::of(self.flags)
    }

    /// Whether the packet ends a round on its channel. Its pages come first.
    pub fn is_sync(&self) -> bool {
        self.flags.contains(PacketFlags::SYNC)
    }
}

impl Raw {
    /// The numbers of normal and of zero pages, at most `page_count` together.
    fn page_counts(&self, page_count: usize) -> Result<(usize, usize), PeerError> {
        let (alloc, normal, zero) =
            (self.pages_alloc.get(), self.normal_pages.get(), self.zero_pages.get());
        if alloc as usize > page_count {
            return Err(PeerError::PagesAlloc { found: alloc, page_count });
        }
        if normal > alloc {
            return Err(PeerError::NormalPages { found: normal, pages_alloc: alloc });
        }
        if zero > alloc - normal {
            return Err(PeerError::ZeroPages { found: zero, left: alloc - normal });
        }
        Ok((normal as usize, zero as usize))
    }

    fn payload_bytes(
        &self,
        flags: PacketFlags,
        normal: usize,
        page_size: PageSize,
    ) -> Result<usize, PeerError> {
        let found = self.next_packet_size.get();
        let (least, most) = Compression::of(flags).payload_bounds(normal, page_size.bytes());
        if (least..=most).contains(&(found as usize)) {
            Ok(found as usize)
        } else {
            Err(PeerError::PayloadSize { found, least, most })
        }
    }

    fn block(&self) -> Result<&str, PeerError> {
        match parse_name(&self.ramblock)? {
            "" => Err(PeerError::NameEmpty),
            name => Ok(name),
        }
    }
}

/// Writes RAM packets into a buffer of its own, which it reuses.
#[derive(Debug)]
pub struct RamPacketBuilder {
    page_count: usize,
    bytes: Vec<u8>,
}

impl RamPacketBuilder {
    /// A builder for packets of a migration with pages of `page_size`.
    pub fn new(page_size: PageSize) -> Self {
        let page_count = page_size.page_count();
        Self { page_count, bytes: vec![0; RamPacket::bytes(page_count)] }
    }

    /// The packet that carries the pages of `block` at the offsets `normal`, whose content is
    /// `payload_bytes` bytes of payload, and `zero`, which are all zero.
    ///
    /// # Panics
    /// With more pages than a packet has slots. Offsets are not checked.
    pub fn pages(
        &mut self,
        compression: Compression,
        packet_num: u64,
        block: &BlockName,
        [normal, zero]: [&[u64]; 2],
        payload_bytes: usize,
    ) -> &[u8] {
        assert!(normal.len() + zero.len() <= self.page_count, "more pages than a packet holds");
        let (raw, slots) = self.raw(compression.flags(), packet_num);
        // The casts cannot truncate: page_count is at most 128 and payloads at most 1 MiB.
        raw.normal_pages = (normal.len() as u32).into();
        raw.zero_pages = (zero.len() as u32).into();
        raw.next_packet_size = (payload_bytes as u32).into();
        raw.pages_alloc = (slots.len() as u32).into();
        write_name(&mut raw.ramblock, block.as_str());
        let used = normal.len() + zero.len();
        for (slot, offset) in slots.iter_mut().zip(normal.iter().chain(zero)) {
            slot.set(*offset);
        }
        slots[used..].fill(0.into());
        &self.bytes
    }

    /// The packet that was made last.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The packet that ends a round, as QEMU 9.0 and later send it: no pages, no slots.
    pub fn sync(&mut self, packet_num: u64) -> &[u8] {
        let (_, slots) = self.raw(PacketFlags::SYNC, packet_num);
        slots.fill(0.into());
        &self.bytes
    }

    /// The buffer as a packet without pages, and its slots as they were.
    fn raw(&mut self, flags: PacketFlags, packet_num: u64) -> (&mut Raw, &mut [U64<BE>]) {
        let (head, slots) = self.bytes.split_at_mut(size_of::<Raw>());
        let raw = Raw::mut_from_bytes(head).expect("the buffer is as large as a packet");
        *raw = Raw {
            header: RawHeader::new(flags),
            pages_alloc: 0.into(),
            normal_pages: 0.into(),
            next_packet_size: 0.into(),
            packet_num: packet_num.into(),
            zero_pages: 0.into(),
            unused: [0; 28],
            ramblock: [0; NAME_BYTES],
        };
        (raw, <[U64<BE>]>::mut_from_bytes(slots).expect("the slots are whole words"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const K4: PageSize = PageSize::Kib4;

    fn block() -> BlockName {
        BlockName::new("pc.ram").unwrap()
    }

    /// A packet of two normal pages and one zero page, compression none.
    fn sample() -> Vec<u8> {
        let pages = [&[0x3000, 0x1000][..], &[0x2000][..]];
        RamPacketBuilder::new(K4).pages(Compression::None, 9, &block(), pages, 8192).to_vec()
    }

    fn with(at: usize, bytes: &[u8]) -> Vec<u8> {
        let mut packet = sample();
        packet[at..at + bytes.len()].copy_from_slice(bytes);
        packet
    }

    fn refusal(at: usize, bytes: &[u8]) -> PeerError {
        RamPacket::parse(&with(at, bytes), K4).expect_err("a bad value")
    }

    #[test]
    fn a_packet_of_4_kib_pages_is_1344_bytes_and_reads_back() {
        let bytes = sample();
        assert_eq!(bytes.len(), 1344);
        let packet = RamPacket::parse(&bytes, K4).unwrap();
        assert_eq!((packet.packet_num, packet.payload_bytes), (9, 8192));
        let pages = packet.pages.unwrap();
        assert_eq!(pages.block, "pc.ram");
        assert_eq!(
            pages.normal.iter().map(|offset| offset.get()).collect::<Vec<_>>(),
            [0x3000, 0x1000]
        );
        assert_eq!(pages.zero[0].get(), 0x2000);
    }

    #[test]
    fn the_packet_has_as_many_slots_as_the_page_size_says() {
        for (page_size, bytes) in [(K4, 1344), (PageSize::Kib16, 576), (PageSize::Kib64, 384)] {
            assert_eq!(RamPacketBuilder::new(page_size).sync(0).len(), bytes);
        }
    }

    #[test]
    fn counts_beyond_their_limits_are_refused() {
        let max = &u32::MAX.to_be_bytes();
        let page_count = 128;
        assert_eq!(
            refusal(12, &129u32.to_be_bytes()),
            PeerError::PagesAlloc { found: 129, page_count }
        );
        assert_eq!(refusal(12, max), PeerError::PagesAlloc { found: u32::MAX, page_count });
        assert_eq!(refusal(16, max), PeerError::NormalPages { found: u32::MAX, pages_alloc: 128 });
        assert_eq!(
            refusal(32, &127u32.to_be_bytes()),
            PeerError::ZeroPages { found: 127, left: 126 }
        );
        assert_eq!(refusal(32, max), PeerError::ZeroPages { found: u32::MAX, left: 126 });
    }

    #[test]
    fn a_payload_size_that_the_method_does_not_allow_is_refused() {
        for size in [0u32, 8191, 8193, u32::MAX] {
            assert_eq!(
                refusal(20, &size.to_be_bytes()),
                PeerError::PayloadSize { found: size, least: 8192, most: 8192 }
            );
        }
    }

    #[test]
    fn a_payload_with_zero_pages_alone_is_refused() {
        let mut packet = RamPacketBuilder::new(K4);
        let bytes = packet.pages(Compression::Zstd, 0, &block(), [&[], &[0]], 1);
        let refused = RamPacket::parse(bytes, K4).unwrap_err();
        assert_eq!(refused, PeerError::PayloadSize { found: 1, least: 0, most: 0 });
    }

    #[test]
    fn a_size_left_standing_in_a_packet_without_pages_is_ignored() {
        let mut bytes = RamPacketBuilder::new(K4).sync(5).to_vec();
        bytes[20..24].copy_from_slice(&u32::MAX.to_be_bytes());
        let packet = RamPacket::parse(&bytes, K4).unwrap();
        assert!(packet.is_sync() && packet.pages.is_none());
        assert_eq!(packet.payload_bytes, 0);
    }

    #[test]
    fn an_offset_inside_a_page_is_refused() {
        let refused = PeerError::OffsetMisaligned { offset: 0x3001, page_size: K4 };
        assert_eq!(refusal(327, &[1]), refused);
        let unused_slot = with(320 + 3 * 8 + 7, &[1]);
        assert!(RamPacket::parse(&unused_slot, K4).is_ok(), "unused slots say nothing");
    }

    #[test]
    fn a_block_name_that_is_empty_endless_or_not_utf8_is_refused() {
        assert_eq!(refusal(64, &[0]), PeerError::NameEmpty);
        assert_eq!(refusal(64, &[b'x'; 256]), PeerError::NameNotTerminated);
        assert_eq!(refusal(64, &[0xff, 0]), PeerError::NameNotUtf8);
    }

    #[test]
    fn a_packet_of_any_other_length_is_refused() {
        let mut bytes = sample();
        assert!(RamPacket::parse(&bytes, K4).is_ok());
        bytes.extend([0; 16]);
        for length in (0..bytes.len()).filter(|&length| length != 1344) {
            let parsed = RamPacket::parse(&bytes[..length], K4);
            assert_eq!(parsed.unwrap_err(), PeerError::Truncated, "{length}");
        }
    }
}
