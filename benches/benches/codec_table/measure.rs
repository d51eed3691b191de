//! Passes over all pages, and how fast they were.

use std::fmt;
use std::hint::black_box;
use std::time::Duration;

use multifd_benches::{PACKET_PAGES, PAGE_BYTES, cpu_time};

use crate::engines::{Decoder, Encoder, Engines, Format};

/// What an encoder made of the pages: chunks, one behind the other, of those that got shorter.
pub(crate) struct Chunks {
    bytes: Vec<u8>,
    /// Of each page; as many as in a page where it did not get shorter, and nothing is in `bytes`.
    lengths: Vec<usize>,
}

impl Chunks {
    fn new(pages: usize, room: usize) -> Self {
        Self { bytes: vec![0; pages * PAGE_BYTES + room], lengths: vec![PAGE_BYTES; pages] }
    }

    fn encode(&mut self, encoder: &mut Encoder, pages: &[&[u8]]) {
        let mut at = 0;
        for (page, length) in pages.iter().zip(&mut self.lengths) {
            let written = (encoder.encode)(page, &mut self.bytes[at..at + encoder.room]);
            *length = written.unwrap_or(PAGE_BYTES).min(PAGE_BYTES);
            if *length < PAGE_BYTES {
                at += *length;
            }
        }
    }

    /// The pages' bytes over those sent for them.
    pub(crate) fn ratio(&self) -> f64 {
        let sent: usize = self.lengths.iter().sum();
        (self.lengths.len() * PAGE_BYTES) as f64 / sent as f64
    }

    /// Pages that did not get shorter.
    pub(crate) fn raw(&self) -> usize {
        self.lengths.iter().filter(|&&length| length == PAGE_BYTES).count()
    }

    /// Each chunk, with the index of its page.
    fn iter(&self) -> impl Iterator<Item = (usize, &[u8])> {
        let mut rest = &self.bytes[..];
        let shorter = self.lengths.iter().enumerate().filter(|&(_, &length)| length < PAGE_BYTES);
        shorter.map(move |(page, &length)| {
            let (chunk, behind) = rest.split_at(length);
            rest = behind;
            (page, chunk)
        })
    }
}

/// MB/s of several passes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Speed {
    pub(crate) median: f64,
    least: f64,
    most: f64,
}

impl Speed {
    fn new(pages: usize, times: &[Duration]) -> Self {
        let megabytes = (pages * PAGE_BYTES) as f64 / 1e6;
        let mut speeds: Vec<_> = times.iter().map(|time| megabytes / time.as_secs_f64()).collect();
        speeds.sort_by(f64::total_cmp);
        let (least, most) = (speeds[0], speeds[speeds.len() - 1]);
        Self { median: speeds[speeds.len() / 2], least, most }
    }
}

/// The median, and the spread behind it.
impl fmt::Display for Speed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let spread = format!("{:.0}–{:.0}", self.least, self.most);
        write!(f, "{:>6.0} {spread:>10}", self.median)
    }
}

/// One encoder, and every decoder of DEFLATE on its chunks, in their order, where it makes DEFLATE.
pub(crate) struct Measured {
    pub(crate) encode: Speed,
    pub(crate) chunks: Chunks,
    pub(crate) decode: Vec<Speed>,
}

/// Measures every encoder on `pages`, and every decoder of DEFLATE on what they make of them. All take turns
/// within a repetition; each one's first pass, in which its result is checked, does not count.
///
/// # Panics
/// Where a page that is restored is not the original.
pub(crate) fn measure(engines: &mut Engines, pages: &[&[u8]], repetitions: usize) -> Vec<Measured> {
    let chunks = encode_and_check(engines, pages);
    let Engines { encoders, decoders, .. } = engines;
    decoders.retain(|decoder| decoder.format == Format::Deflate);
    let mut encode_times = vec![Vec::new(); encoders.len()];
    let mut decode_times = vec![vec![Vec::new(); decoders.len()]; encoders.len()];
    // Not over those that were checked: libqpl does not make the same of a page each time.
    let room = encoders.iter().map(|encoder| encoder.room).max().unwrap_or_default();
    let mut again = Chunks::new(pages.len(), room);
    for _ in 0..repetitions {
        for (encoder, times) in encoders.iter_mut().zip(&mut encode_times) {
            times.push(cpu_time(|| again.encode(encoder, pages)));
        }
        for ((encoder, chunks), times) in encoders.iter().zip(&chunks).zip(&mut decode_times) {
            if encoder.format == Format::Deflate {
                let chunks: Vec<_> = chunks.iter().map(|(_, chunk)| chunk).collect();
                for (decoder, times) in decoders.iter_mut().zip(times) {
                    times.push(cpu_time(|| decode(decoder, &chunks)));
                }
            }
        }
    }
    let measured = chunks.into_iter().zip(encode_times).zip(decode_times);
    let measured = measured.map(|((chunks, encode), decode)| {
        let restored = pages.len() - chunks.raw();
        let decode = decode.iter().filter(|times| !times.is_empty());
        let decode = decode.map(|times| Speed::new(restored, times)).collect();
        Measured { encode: Speed::new(pages.len(), &encode), chunks, decode }
    });
    measured.collect()
}

/// What every encoder makes of `pages`, from which every decoder of its format has restored them.
fn encode_and_check(engines: &mut Engines, pages: &[&[u8]]) -> Vec<Chunks> {
    let Engines { encoders, decoders, .. } = engines;
    let chunks = encoders.iter_mut().map(|encoder| {
        let mut chunks = Chunks::new(pages.len(), encoder.room);
        chunks.encode(encoder, pages);
        for decoder in decoders.iter_mut().filter(|decoder| decoder.format == encoder.format) {
            check(decoder, encoder, &chunks, pages);
        }
        chunks
    });
    chunks.collect()
}

fn decode(decoder: &mut Decoder, chunks: &[&[u8]]) {
    for packet in chunks.chunks(PACKET_PAGES) {
        (decoder.decode)(packet, &mut |_, page| _ = black_box(page));
    }
}

fn check(decoder: &mut Decoder, encoder: &Encoder, chunks: &Chunks, pages: &[&[u8]]) {
    let (indices, chunks): (Vec<_>, Vec<_>) = chunks.iter().unzip();
    let mut restored = vec![false; chunks.len()];
    let packets = chunks.chunks(PACKET_PAGES).zip(indices.chunks(PACKET_PAGES));
    for ((packet, indices), restored) in packets.zip(restored.chunks_mut(PACKET_PAGES)) {
        (decoder.decode)(packet, &mut |chunk, page| {
            restored[chunk] = page == pages[indices[chunk]];
        });
    }
    let wrong = restored.iter().filter(|&&right| !right).count();
    assert!(wrong == 0, "{} does not restore {wrong} pages of {}", decoder.name, encoder.name);
}
