//! QATzip's members by `miniz_oxide`.

use miniz_oxide::deflate::compress_to_vec;
use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress};

use super::{CHUNK, Implementation, Pieces};

/// The members of one packet follow on those of the one before: together they are one run.
pub(super) const MINIZ: Implementation = Implementation::Stream { decode, encode, flush: &[] };

/// Magic, method, flags (an extra field), time, XFL and system; then the extra field up to its sizes.
const HEADER: [u8; 16] = *b"\x1f\x8b\x08\x04\0\0\0\0\0\xff\x0c\0QZ\x08\0";

/// A header without an extra field, as `gzip` writes it.
const PLAIN: [u8; 10] = *b"\x1f\x8b\x08\0\0\0\0\0\x04\x03";

fn decode(pieces: &mut Pieces<'_>) -> Result<Vec<u8>, String> {
    let run = pieces.collect::<Vec<_>>().concat();
    let mut rest = &run[..];
    let mut decoded = Vec::new();
    while !rest.is_empty() {
        let member =
            member(&mut rest).ok_or_else(|| format!("malformed after {}", decoded.len()))?;
        decoded.extend(member);
    }
    Ok(decoded)
}

/// What the member at the start of `run` inflates to; it is taken off.
fn member(run: &mut &[u8]) -> Option<Vec<u8>> {
    *run = run.strip_prefix(&HEADER)?;
    let (source, bytes) = (take(run)? as usize, take(run)? as usize);
    let (deflate, rest) = run.split_at_checked(bytes)?;
    *run = rest;
    let mut inflated = vec![0; source];
    let flags = TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
    let done = decompress(&mut DecompressorOxide::new(), deflate, &mut inflated, 0, flags);
    let is_true = done == (TINFLStatus::Done, bytes, source)
        && take(run)? == crc32(&inflated)
        && take(run)? as usize == source;
    is_true.then_some(inflated)
}

fn take(run: &mut &[u8]) -> Option<u32> {
    let (word, rest) = run.split_first_chunk()?;
    *run = rest;
    Some(u32::from_le_bytes(*word))
}

/// By turns as the accelerator, its software and others do: members of 64 KiB, one with QATzip's extra
/// field, and a plain one.
fn encode(pages: &[u8]) -> Vec<Vec<u8>> {
    let payload = |(number, pages): (usize, &[u8])| match number % 3 {
        0 => pages.chunks(64 << 10).flat_map(sized).collect(),
        1 => sized(pages),
        _ => finished(pages, PLAIN.to_vec(), &deflate(pages)),
    };
    pages.chunks(CHUNK).enumerate().map(payload).collect()
}

fn sized(bytes: &[u8]) -> Vec<u8> {
    let deflate = deflate(bytes);
    let mut member = HEADER.to_vec();
    member.extend((bytes.len() as u32).to_le_bytes());
    member.extend((deflate.len() as u32).to_le_bytes());
    finished(bytes, member, &deflate)
}

fn deflate(bytes: &[u8]) -> Vec<u8> {
    const LEVEL: u8 = 6;
    compress_to_vec(bytes, LEVEL)
}

fn finished(bytes: &[u8], mut member: Vec<u8>, deflate: &[u8]) -> Vec<u8> {
    member.extend(deflate);
    member.extend(crc32(bytes).to_le_bytes());
    member.extend((bytes.len() as u32).to_le_bytes());
    member
}

/// The CRC-32 of RFC 1952, section 8.
fn crc32(bytes: &[u8]) -> u32 {
    const POLYNOMIAL: u32 = 0xedb8_8320;
    let step = |crc: u32, _| if crc & 1 == 1 { crc >> 1 ^ POLYNOMIAL } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, &byte| (0..8).fold(crc ^ u32::from(byte), step))
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_crc_32_is_that_of_the_rfc() {
        assert_eq!(super::crc32(b"123456789"), 0xcbf4_3926);
    }
}
