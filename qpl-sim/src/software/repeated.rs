//! Pages that are one repeated byte: one fixed block with a literal, and matches at distance 1.
//!
//! The stream depends on the byte and the page's length alone, so for pages of 4 KiB it is made
//! once, and recognised by comparing.

use std::sync::OnceLock;

use super::crc;

/// The size of pages whose streams are kept.
const KEPT_BYTES: usize = 4096;

/// The longest match.
const LONGEST: usize = 258;

/// The byte that `page` consists of, if it is one alone.
pub(super) fn byte_of_page(page: &[u8]) -> Option<u8> {
    let (&byte, rest) = page.split_first()?;
    // Two slices of the same bytes, one byte apart: the fastest comparison that there is.
    (*rest == page[..rest.len()]).then_some(byte)
}

/// The byte that a stream of this module repeats, as far as its first bits say. What follows them
/// must be compared.
pub(super) fn byte_of_stream(stream: &[u8]) -> Option<u8> {
    let head = u32::from_le_bytes([*stream.first()?, *stream.get(1)?, *stream.get(2)?, 0]);
    if head & 7 != FIXED_AND_FINAL {
        return None;
    }
    // A code's first bit is its highest.
    let code = (head >> 3).reverse_bits() >> (32 - 9);
    match code {
        0x060..=0x17f => Some((code / 2 - 0x30) as u8),
        0x190..=0x1ff => Some((code - 0x190) as u8 + 144),
        _ => None,
    }
}

/// Hands `then` the stream of a page of `bytes` bytes `byte`, and the page's CRC-32.
pub(super) fn with_stream<T>(byte: u8, bytes: usize, then: impl FnOnce(&[u8], u32) -> T) -> T {
    static KEPT: [OnceLock<(Vec<u8>, u32)>; 256] = [const { OnceLock::new() }; 256];
    let make = || (stream(byte, bytes), crc(&vec![byte; bytes]));
    if bytes == KEPT_BYTES {
        let (stream, crc) = KEPT[usize::from(byte)].get_or_init(make);
        then(stream, *crc)
    } else {
        let (stream, crc) = make();
        then(&stream, crc)
    }
}

/// The header of the stream's only block, final and with fixed codes.
const FIXED_AND_FINAL: u32 = 0b011;

fn stream(byte: u8, bytes: usize) -> Vec<u8> {
    let mut bits = BitWriter::default();
    bits.push(FIXED_AND_FINAL, 3);
    bits.literal(byte);
    let mut left = bytes - 1;
    while left > 0 {
        // A match has 3 bytes at least.
        match left.min(LONGEST) {
            1 | 2 => {
                bits.literal(byte);
                left -= 1;
            }
            length => {
                bits.match_at_distance_1(length);
                left -= length;
            }
        }
    }
    bits.code(0, 7);
    bits.bytes
}

/// Writes fixed codes (RFC 1951, 3.2.6).
#[derive(Default)]
struct BitWriter {
    bytes: Vec<u8>,
    /// Bits in the last byte; 8 where there is none.
    used: u32,
}

impl BitWriter {
    /// Bits from the lowest.
    fn push(&mut self, bits: u32, count: u32) {
        for at in 0..count {
            if self.bytes.is_empty() || self.used == 8 {
                self.bytes.push(0);
                self.used = 0;
            }
            if let Some(last) = self.bytes.last_mut() {
                *last |= ((bits >> at & 1) << self.used) as u8;
            }
            self.used += 1;
        }
    }

    /// A code, from its highest bit.
    fn code(&mut self, code: u32, count: u32) {
        self.push(code.reverse_bits() >> (32 - count), count);
    }

    fn literal(&mut self, byte: u8) {
        match u32::from(byte) {
            low @ 0..144 => self.code(0x30 + low, 8),
            high => self.code(0x190 + high - 144, 9),
        }
    }

    fn match_at_distance_1(&mut self, length: usize) {
        /// The first length of each symbol from 257 on, and its number of extra bits.
        const LENGTHS: [(usize, u32); 29] = [
            (3, 0),
            (4, 0),
            (5, 0),
            (6, 0),
            (7, 0),
            (8, 0),
            (9, 0),
            (10, 0),
            (11, 1),
            (13, 1),
            (15, 1),
            (17, 1),
            (19, 2),
            (23, 2),
            (27, 2),
            (31, 2),
            (35, 3),
            (43, 3),
            (51, 3),
            (59, 3),
            (67, 4),
            (83, 4),
            (99, 4),
            (115, 4),
            (131, 5),
            (163, 5),
            (195, 5),
            (227, 5),
            (258, 0),
        ];
        let symbol = LENGTHS.partition_point(|&(first, _)| first <= length) - 1;
        let (first, extra) = LENGTHS[symbol];
        match symbol as u32 + 1 {
            low @ 1..24 => self.code(low, 7),
            high => self.code(0xc0 + high - 24, 8),
        }
        self.push((length - first) as u32, extra);
        self.code(0, 5);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_byte_of_every_stream_is_recognised() {
        for byte in 0..=255 {
            for bytes in [1, 2, 4096, 65536] {
                assert_eq!(byte_of_stream(&stream(byte, bytes)), Some(byte));
            }
        }
    }

    #[test]
    fn a_page_with_one_byte_that_differs_is_none() {
        assert_eq!(byte_of_page(&[5; 4096]), Some(5));
        for at in [0, 1, 2000, 4094, 4095] {
            let mut page = [5; 4096];
            page[at] = 6;
            assert_eq!(byte_of_page(&page), None, "{at}");
        }
        assert_eq!(byte_of_page(&[]), None);
    }

    #[test]
    fn other_streams_are_none_of_these() {
        for stream in [&[][..], &[3], &[3, 0], &[5, 0, 0], &[3, 0, 0]] {
            assert_eq!(byte_of_stream(stream), None, "{stream:?}");
        }
    }
}
