//! Payloads of method qatzip: what is taken is what an independent decoder makes of it.

use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress, inflate_flags};
use multifd_core::codec::PacketMethods;
use multifd_qatzip::Qatzip;

use crate::restored;

const PAGE: usize = 4096;

/// Runs the target on one input.
pub fn qatzip(input: &[u8]) {
    let Some((&choice, payload)) = input.split_first() else { return };
    let pages = usize::from(choice % 8) + 1;
    let taken = restored(&PacketMethods::new(Qatzip::new()), &[payload], pages);
    let expected = expected(payload, pages * PAGE);
    assert_eq!(!taken.is_empty(), expected.is_some(), "taken, and is to be taken");
    assert!(taken.first() == expected.as_ref());
}

/// The pages of a payload as an independent decoder has them; none where it has to be refused.
fn expected(mut payload: &[u8], bytes: usize) -> Option<Vec<u8>> {
    let mut restored = Vec::new();
    while restored.len() < bytes {
        let member = member(&mut payload, bytes - restored.len())?;
        restored.extend(member);
    }
    payload.is_empty().then_some(restored)
}

/// What the member at the start of `payload` inflates to: a byte or more, `most` at most.
fn member(payload: &mut &[u8], most: usize) -> Option<Vec<u8>> {
    let header = take::<10>(payload)?;
    if header[..3] != [0x1f, 0x8b, 8] || ![0, 2, 4].contains(&header[8]) {
        return None;
    }
    let sizes = match header[3] {
        0 => None,
        4 if take(payload)? == *b"\x0c\0QZ\x08\0" => {
            Some([take(payload)?, take(payload)?].map(|size| u32::from_le_bytes(size) as usize))
        }
        _ => return None,
    };
    let mut inflated = vec![0; most];
    let flags = inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
    let (status, read, written) =
        decompress(&mut DecompressorOxide::new(), payload, &mut inflated, 0, flags);
    if status != TINFLStatus::Done
        || written == 0
        || sizes.is_some_and(|sizes| sizes != [written, read])
    {
        return None;
    }
    *payload = &payload[read..];
    inflated.truncate(written);
    let crc = u32::from_le_bytes(take(payload)?);
    let size = u32::from_le_bytes(take(payload)?);
    (crc == crc32(&inflated) && size as usize == written).then_some(inflated)
}

fn take<const N: usize>(payload: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = payload.split_first_chunk()?;
    *payload = rest;
    Some(*taken)
}

/// The CRC-32 of RFC 1952, section 8.
fn crc32(bytes: &[u8]) -> u32 {
    const POLYNOMIAL: u32 = 0xedb8_8320;
    let step = |crc: u32, _| if crc & 1 == 1 { crc >> 1 ^ POLYNOMIAL } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, &byte| (0..8).fold(crc ^ u32::from(byte), step))
}
