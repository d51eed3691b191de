//! Another implementation of the format reads what the codec writes, and the other way round.

mod chunks;
mod qatzip;
mod qpl;
mod uadk;
mod zlib;
mod zstd;

use multifd_core::wire::{BlockName, RamPacketBuilder};
use multifd_core::{Compression, PageSize};

use crate::harness::{
    BLOCK, Content, Context, Packet, Random, STALE, Setup, Stop, Subject, Verdict, ensure,
    first_difference, in_pieces, mixed, offsets, page_of, parse, ram, read,
};

const K4: PageSize = PageSize::Kib4;

/// A stream that arrives in pieces.
type Pieces<'a> = dyn Iterator<Item = &'a [u8]> + 'a;

/// Another implementation of a codec's format.
enum Implementation {
    /// One stream runs through the channel.
    Stream {
        /// Decodes a whole stream.
        decode: fn(&mut Pieces<'_>) -> Result<Vec<u8>, String>,
        /// Encodes pages: a payload for every `CHUNK` bytes of them.
        encode: fn(&[u8]) -> Vec<Vec<u8>>,
        /// What the stream ends with, at the end of each packet, where that is known.
        flush: &'static [u8],
    },
    /// Each page stands alone: lengths, then chunks.
    Pages {
        /// Decodes a chunk that is shorter than a page.
        decode: fn(&mut Pieces<'_>) -> Result<Vec<u8>, String>,
        /// Encodes a page.
        encode: fn(&[u8]) -> Vec<u8>,
    },
}

/// Bytes of pages in a packet of the other encoder: 32 pages of 4 KiB.
const CHUNK: usize = 128 << 10;

/// The lengths of pieces that leave a stream whole.
const WHOLE: &[usize] = &[usize::MAX];

impl Implementation {
    fn of(subject: &Subject) -> Verdict<Self> {
        match subject.compression() {
            Compression::Zlib => Ok(zlib::MINIZ),
            Compression::Zstd => Ok(zstd::RUZSTD),
            Compression::Qpl => Ok(qpl::MINIZ),
            Compression::Uadk => Ok(uadk::MINIZ),
            Compression::Qatzip => Ok(qatzip::MINIZ),
            other => {
                Err(Stop::not_applicable(format!("no other implementation of {other} at hand")))
            }
        }
    }

    /// Whether the decoder restores the pages of the first `packets` packets of `sent`, whose
    /// payloads arrive in pieces of these lengths.
    fn reads(&self, sent: &Sent, packets: usize, lengths: &[usize]) -> Verdict {
        let payloads = &sent.payloads[..packets];
        let decoded = match self {
            Self::Stream { decode, .. } => {
                let stream = payloads.concat();
                decode(&mut in_pieces(&stream, lengths))
            }
            Self::Pages { decode, .. } => {
                let packets = payloads.iter().zip(&sent.pages);
                let pages = packets.map(|(payload, pages)| {
                    let count = pages.len() / sent.page_bytes;
                    chunks::decode(payload, count, sent.page_bytes, lengths, *decode)
                });
                pages.collect::<Result<Vec<_>, _>>().map(|pages| pages.concat())
            }
        };
        let decoded = decoded.map_err(|error| Stop::failed(format!("refused: {error}")))?;
        let expected = sent.pages[..packets].concat();
        match first_difference(&expected, &decoded) {
            None => Ok(()),
            Some(at) => Err(Stop::failed(format!(
                "decoded to {} bytes instead of {}, different from byte {at} on",
                decoded.len(),
                expected.len()
            ))),
        }
    }

    /// A payload for every `CHUNK` bytes of `pages`.
    fn encode(&self, pages: &[u8]) -> Vec<Vec<u8>> {
        match self {
            Self::Stream { encode, .. } => encode(pages),
            Self::Pages { encode, .. } => {
                let packets = pages.chunks(CHUNK);
                packets.map(|pages| chunks::encode(pages, K4.bytes(), *encode)).collect()
            }
        }
    }

    /// What the payload of every packet ends with, where that is known.
    fn flush(&self) -> &'static [u8] {
        match self {
            Self::Stream { flush, .. } => flush,
            Self::Pages { .. } => &[],
        }
    }
}

/// What one channel sent: the payloads of its packets, and the pages in each.
#[derive(Default)]
struct Sent {
    page_bytes: usize,
    payloads: Vec<Vec<u8>>,
    pages: Vec<Vec<u8>>,
}

impl Sent {
    /// Packets of several sizes, the first of them once more at the end.
    fn by(subject: &Subject, page_size: PageSize, level: Option<i32>) -> Verdict<Self> {
        let pages = page_size.page_count();
        let source = ram(page_size, &mixed(40, pages, page_size.bytes()))?;
        let mut sender = subject.sender(&source, Setup { level, ..Setup::default() })?;
        let mut all = offsets(page_size, 0..pages);
        Random::new(41).shuffle(&mut all);
        let (first, rest) = all.split_at(pages / 2);
        let mut sent = Self { page_bytes: page_size.bytes(), ..Self::default() };
        for packet in [first, &rest[..1], &rest[1..pages / 4], &rest[pages / 4..], first] {
            let packet = Packet::of(&sender.send(packet)?, page_size);
            let Some(parsed) = parse(&packet.header, page_size).and_then(|parsed| parsed.pages)
            else {
                return Err(Stop::failed("a packet of pages names none"));
            };
            let normal = parsed.normal.iter().map(|offset| page_of(&source, offset.get()));
            sent.pages.push(normal.flatten().collect());
            sent.payloads.push(packet.payload);
        }
        Ok(sent)
    }

    fn packets(&self) -> usize {
        self.payloads.len()
    }
}

pub(crate) fn another_decoder_reads_the_stream_of_every_page_size(subject: &Subject) -> Verdict {
    let other = Implementation::of(subject)?;
    for page_size in PageSize::ALL {
        let sent = Sent::by(subject, page_size, None)?;
        other.reads(&sent, sent.packets(), WHOLE).context(|| format!("pages of {page_size}"))?;
    }
    Ok(())
}

pub(crate) fn another_decoder_reads_the_stream_of_every_level(subject: &Subject) -> Verdict {
    let other = Implementation::of(subject)?;
    for level in subject.levels() {
        let sent = Sent::by(subject, K4, level)?;
        other.reads(&sent, sent.packets(), WHOLE).context(|| format!("level {level:?}"))?;
    }
    Ok(())
}

pub(crate) fn another_decoder_reads_the_stream_one_byte_at_a_time(subject: &Subject) -> Verdict {
    read_in_pieces(subject, &[1])
}

pub(crate) fn another_decoder_reads_the_stream_in_odd_pieces(subject: &Subject) -> Verdict {
    read_in_pieces(subject, &[1, 2, 3, 5, 7, 11, 13, 97, 997, 9973])?;
    read_in_pieces(subject, &[4095, 4097, 1])
}

fn read_in_pieces(subject: &Subject, lengths: &[usize]) -> Verdict {
    let other = Implementation::of(subject)?;
    for level in subject.some_levels() {
        let sent = Sent::by(subject, K4, level)?;
        other.reads(&sent, sent.packets(), lengths).context(|| format!("level {level:?}"))?;
    }
    Ok(())
}

pub(crate) fn another_decoder_has_every_page_at_the_end_of_each_packet(
    subject: &Subject,
) -> Verdict {
    let other = Implementation::of(subject)?;
    for level in subject.some_levels() {
        let sent = Sent::by(subject, K4, level)?;
        for packets in 1..=sent.packets() {
            let place = || format!("level {level:?}, after {packets} packets");
            other.reads(&sent, packets, WHOLE).context(place)?;
            let flushed = sent.payloads[packets - 1].ends_with(other.flush());
            ensure!(flushed, "{}: the payload does not end with a flush", place());
        }
    }
    Ok(())
}

pub(crate) fn the_stream_of_another_encoder_comes_back(subject: &Subject) -> Verdict {
    let other = Implementation::of(subject)?;
    let name = BlockName::new(BLOCK).map_err(|error| Stop::failed(error.to_string()))?;
    let pages_in_chunk = CHUNK / K4.bytes();
    let mut memory = mixed(42, 4 * pages_in_chunk, K4.bytes());
    memory.extend(Content::Text.pages(43, pages_in_chunk, K4.bytes()));
    memory.extend(Content::Noise.pages(44, pages_in_chunk, K4.bytes()));
    let destination = ram(K4, &vec![STALE; memory.len()])?;
    let mut receiver = subject.receiver(&destination, Setup::default().channel)?;
    let mut builder = RamPacketBuilder::new(K4);
    for (number, payload) in other.encode(&memory).into_iter().enumerate() {
        let first = number * pages_in_chunk;
        let normal = offsets(K4, first..first + pages_in_chunk);
        let compression = subject.compression();
        let header =
            builder.pages(compression, number as u64, &name, [&normal, &[]], payload.len());
        receiver
            .receive(&[header, &payload].concat())
            .context(|| format!("packet {number} of the other encoder"))?;
    }
    let difference = first_difference(&memory, &read(&destination));
    ensure!(difference.is_none(), "the memory differs from byte {difference:?} on");
    Ok(())
}
