//! Content, and streams that no encoder here makes.

use flate2::{Compress, Compression, FlushCompress};
use multifd_conformance::ends::noise;

/// Lines that are alike.
pub fn text(count: usize) -> Vec<u8> {
    let lines = (0_u32..)
        .flat_map(|line| format!("line {line} of a log, {}\n", line * line % 97).into_bytes());
    lines.take(count).collect()
}

/// `bytes` as a stream with distances within the window.
pub fn deflate(bytes: &[u8], flush: FlushCompress) -> Vec<u8> {
    deflate_in(12, bytes, flush)
}

/// `bytes` as a stream with distances of up to 32 KiB.
pub fn deflate_wide(bytes: &[u8]) -> Vec<u8> {
    deflate_in(15, bytes, FlushCompress::Finish)
}

fn deflate_in(window_bits: u8, bytes: &[u8], flush: FlushCompress) -> Vec<u8> {
    let mut stream = Vec::with_capacity(2 * bytes.len() + 100);
    let mut deflate = Compress::new_with_window_bits(Compression::best(), false, window_bits);
    deflate.compress_vec(bytes, &mut stream, flush).unwrap();
    stream
}

/// A stream of `distance` stored bytes, of matches of that distance up to `total` bytes in all, and
/// of the end. The matches have 258 bytes, but for the first ones, so `total - distance` should not
/// be much less.
pub fn at_distance(distance: usize, total: usize) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.stored(&noise(distance));
    writer.fixed_header(true);
    let rest = total - distance;
    (0..rest % 258).for_each(|at| writer.literal(at as u8 & 0x7f));
    (0..rest / 258).for_each(|_| writer.longest_match(distance));
    writer.end_of_block();
    writer.finish()
}

/// Writes a stream bit by bit.
#[derive(Default)]
pub struct Writer {
    bits: Vec<bool>,
}

impl Writer {
    /// A number, its lowest bit first.
    fn number(&mut self, value: usize, bits: usize) {
        self.bits.extend((0..bits).map(|bit| value >> bit & 1 == 1));
    }

    /// A Huffman code, its highest bit first.
    fn code(&mut self, code: usize, bits: usize) {
        self.bits.extend((0..bits).rev().map(|bit| code >> bit & 1 == 1));
    }

    /// A stored block, not the last.
    pub fn stored(&mut self, bytes: &[u8]) {
        self.number(0, 3);
        self.bits.resize(self.bits.len().next_multiple_of(8), false);
        self.number(bytes.len(), 16);
        self.number(!bytes.len(), 16);
        bytes.iter().for_each(|&byte| self.number(byte.into(), 8));
    }

    pub fn fixed_header(&mut self, last: bool) {
        self.number(last.into(), 1);
        self.number(1, 2);
    }

    /// A byte below 144.
    pub fn literal(&mut self, byte: u8) {
        self.code(0x30 + usize::from(byte), 8);
    }

    /// A match of 258 bytes.
    pub fn longest_match(&mut self, distance: usize) {
        self.code(0b1100_0000 + 285 - 280, 8);
        let start = |symbol: usize| match symbol {
            0..4 => symbol + 1,
            _ => ((2 + symbol % 2) << (symbol / 2 - 1)) + 1,
        };
        let symbol = (0..30).rev().find(|&symbol| start(symbol) <= distance).unwrap();
        self.code(symbol, 5);
        self.number(distance - start(symbol), (symbol / 2).saturating_sub(1));
    }

    pub fn end_of_block(&mut self) {
        self.code(0, 7);
    }

    pub fn finish(self) -> Vec<u8> {
        let bytes = self.bits.chunks(8);
        bytes
            .map(|bits| bits.iter().rev().fold(0, |byte, &bit| byte << 1 | u8::from(bit)))
            .collect()
    }
}
