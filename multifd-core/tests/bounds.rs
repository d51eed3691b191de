//! Packet parsing and the arithmetic of offsets, at every edge and combination of edges: what is taken is
//! what the format's text says, in numbers that cannot overflow.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use multifd_core::ram::{GuestPages, Ram, RamBlock};
use multifd_core::vm_memory::MmapRegion;
use multifd_core::wire::{BlockName, PacketHeader, RamPacket, RamPacketBuilder};
use multifd_core::{Compression, MAX_PAYLOAD, PageSize};

/// Values around `middle`, and the ends of the type.
fn edges(middle: u64, most: u64) -> Vec<u64> {
    let around = |at: u64| [at.wrapping_sub(1) & most, at & most, at.wrapping_add(1) & most];
    let mut edges: Vec<_> = [0, middle, most, most / 2 + 1].into_iter().flat_map(around).collect();
    edges.sort_unstable();
    edges.dedup();
    edges
}

fn edges_u32(middle: u64) -> Vec<u32> {
    edges(middle, u32::MAX.into()).into_iter().map(|edge| edge as u32).collect()
}

/// The fields of a packet that say how much there is.
#[derive(Clone, Copy, Debug)]
struct Counts {
    alloc: u32,
    normal: u32,
    zero: u32,
    payload: u32,
}

impl Counts {
    /// Whether a receiver takes them (section 3, and section 6 for the payload).
    fn are_allowed(self, compression: Compression, page_size: PageSize) -> bool {
        let [alloc, normal, zero, payload] =
            [self.alloc, self.normal, self.zero, self.payload].map(u128::from);
        if alloc > page_size.page_count() as u128 || normal + zero > alloc {
            return false;
        }
        let pages = normal * page_size.bytes() as u128;
        match compression {
            _ if normal + zero == 0 => true,
            _ if normal == 0 => payload == 0,
            Compression::None => payload == pages,
            Compression::Qpl | Compression::Uadk => {
                4 * normal < payload && payload <= 4 * normal + pages
            }
            _ => payload > 0 && payload <= MAX_PAYLOAD as u128,
        }
    }
}

#[test]
fn counts_and_sizes_are_taken_exactly_where_the_format_allows_them() {
    let name = BlockName::new("pc.ram").unwrap();
    let (mut taken, mut refused) = (0_u32, 0_u32);
    for page_size in PageSize::ALL {
        let slots = page_size.page_count() as u64;
        let mut builder = RamPacketBuilder::new(page_size);
        for compression in Compression::QEMU {
            let mut bytes = builder.pages(compression, 7, &name, [&[], &[]], 0).to_vec();
            for alloc in edges_u32(slots) {
                for normal in edges_u32(slots) {
                    let pages = u64::from(normal) * page_size.bytes() as u64;
                    let mut payloads = edges_u32(pages);
                    payloads.extend(edges_u32(4 * u64::from(normal)));
                    payloads.extend(edges_u32(4 * u64::from(normal) + pages));
                    payloads.extend(edges_u32(MAX_PAYLOAD as u64));
                    for zero in edges_u32(slots - u64::from(normal).min(slots)) {
                        for &payload in &payloads {
                            let counts = Counts { alloc, normal, zero, payload };
                            let fields = [(12, alloc), (16, normal), (20, payload), (32, zero)];
                            for (at, field) in fields {
                                bytes[at..at + 4].copy_from_slice(&field.to_be_bytes());
                            }
                            let parsed = RamPacket::parse(&bytes, page_size);
                            let allowed = counts.are_allowed(compression, page_size);
                            assert_eq!(
                                parsed.is_ok(),
                                allowed,
                                "{counts:?}, {compression}, {page_size}: {parsed:?}"
                            );
                            *(if allowed { &mut taken } else { &mut refused }) += 1;
                        }
                    }
                }
            }
        }
    }
    assert!(taken > 1000 && refused > 100_000, "{taken} taken, {refused} refused");
}

#[test]
fn a_page_is_found_exactly_where_all_of_it_is_in_its_block() {
    for page_size in PageSize::ALL {
        let page = page_size.bytes() as u64;
        for pages in 1..=5 {
            let bytes = pages * page;
            let memory = MmapRegion::<()>::new(bytes as usize).unwrap();
            let block = RamBlock::new(BlockName::new("pc.ram").unwrap(), memory);
            let ram = Ram::new(page_size, [block]).unwrap();
            let block = &ram.blocks()[0];
            let mut offsets = edges(bytes, u64::MAX);
            offsets.extend((0..64).flat_map(|bit| edges(1 << bit, u64::MAX)));
            offsets.extend((0..=pages + 1).map(|at| at * page));
            // The last multiples of the page's size.
            offsets.extend((1..=6).map(|back| 0_u64.wrapping_sub(back * page)));
            let mut found = 0;
            for offset in offsets {
                let inside = offset % page == 0
                    && u128::from(offset) + u128::from(page) <= u128::from(bytes);
                let at = [offset];
                let guest = GuestPages::new(block, page_size, &at);
                assert_eq!(guest.is_ok(), inside, "{offset:#x} of {bytes:#x}");
                if let Ok(guest) = guest {
                    assert_eq!(guest.slice(0).len() as u64, page);
                    found += 1;
                }
            }
            assert!(found >= pages);
        }
    }
}

#[test]
fn of_all_headers_with_up_to_three_bits_changed_only_those_with_known_flags_are_taken() {
    let header = |bits: u128| -> [u8; 12] {
        let [_, _, _, _, rest @ ..] = bits.to_be_bytes();
        rest
    };
    let valid = 0x1122_3344_u128 << 64 | 1 << 32;
    let mut taken = 0;
    for one in 0..96 {
        for two in one..96 {
            for three in two..96 {
                // A bit that is named twice is changed once.
                let changed = (1_u128 << one) | (1 << two) | (1 << three);
                let bits = valid ^ changed;
                let allowed = bits & !0x7f == valid;
                assert_eq!(PacketHeader::parse(&header(bits)).is_ok(), allowed, "{bits:#x}");
                taken += u32::from(allowed);
            }
        }
    }
    // Of seven flags: triples, in ascending order with repetitions.
    assert_eq!(taken, 84);
}
