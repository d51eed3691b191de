//! Members by zlib, in every form, right or wrong.

use std::io::Write;

use flate2::write::DeflateEncoder;
use flate2::{Compression, Crc};
use multifd_conformance::ends::noise;

/// A gzip member, by its parts.
#[derive(Clone)]
pub(crate) struct Member {
    pub(crate) header: [u8; 10],
    /// Empty in a plain one.
    pub(crate) extra: Vec<u8>,
    pub(crate) deflate: Vec<u8>,
    pub(crate) trailer: [u8; 8],
}

impl Member {
    /// With QATzip's extra field.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        let mut crc = Crc::new();
        crc.update(bytes);
        let mut trailer = [0; 8];
        trailer[..4].copy_from_slice(&crc.sum().to_le_bytes());
        trailer[4..].copy_from_slice(&(bytes.len() as u32).to_le_bytes());
        let header = *b"\x1f\x8b\x08\x04\0\0\0\0\0\xff";
        let extra = [&b"\x0c\0QZ\x08\0"[..], &(bytes.len() as u32).to_le_bytes(), &[0; 4]].concat();
        Self { header, extra, deflate: Vec::new(), trailer }.with_deflate(&deflate(bytes))
    }

    /// With another DEFLATE stream, of which the extra field has the size.
    pub(crate) fn with_deflate(mut self, deflate: &[u8]) -> Self {
        self.deflate = deflate.to_vec();
        if let Some(size) = self.extra.get_mut(10..) {
            size.copy_from_slice(&(deflate.len() as u32).to_le_bytes());
        }
        self
    }

    /// With these sizes in the extra field.
    pub(crate) fn with_sizes(mut self, source: usize, deflate: usize) -> Self {
        self.extra[6..10].copy_from_slice(&(source as u32).to_le_bytes());
        self.extra[10..].copy_from_slice(&(deflate as u32).to_le_bytes());
        self
    }

    /// Without an extra field.
    pub(crate) fn plain(&self) -> Self {
        let mut plain = self.clone();
        plain.header[3] = 0;
        plain.extra.clear();
        plain
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        [&self.header, &self.extra[..], &self.deflate, &self.trailer].concat()
    }
}

pub(crate) fn deflate(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::new(9));
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A stored block of `bytes` that is the last.
pub(crate) fn stored(bytes: &[u8]) -> Vec<u8> {
    let length = bytes.len() as u16;
    [&[1], &length.to_le_bytes()[..], &(!length).to_le_bytes(), bytes].concat()
}

/// A packet's pages of every kind: text, zeros, noise, pointers.
pub(crate) fn packet() -> Vec<u8> {
    const KIND: usize = 128 << 10;
    let mut pages = b"Lorem ipsum dolor sit amet, 0123456789. ".repeat(KIND / 40 + 1);
    pages.truncate(KIND);
    pages.resize(2 * KIND, 0);
    pages.extend(noise(KIND));
    for (number, byte) in noise(KIND / 8).into_iter().enumerate() {
        pages.extend((0x7f00_dead_0000_u64 + u64::from(byte) * 64 + number as u64).to_le_bytes());
    }
    pages
}
