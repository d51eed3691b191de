//! Pages that are one repeated byte, without a device: what is left of a job's time is its caller's own.
//!
//! The stream depends on the byte alone, so it is made once, and recognised by comparing.

use std::sync::OnceLock;

use iaa_sim::completion::Completion;
use qpl_sys::{Job, Operation, Status};

use crate::buffers::crc;
use crate::ending;
use crate::job::Request;
use crate::software;

/// The size of pages that are known.
const PAGE_BYTES: usize = 4096;

struct Known {
    stream: Vec<u8>,
    crc: u32,
}

/// Runs a job to compress such a page, or to decompress what came of one. `None` for all others, whose output
/// is then untouched.
pub(crate) fn run(request: &Request, job: &mut Job) -> Option<Status> {
    let (read, written, crc) = request.on_buffers(|input, output| match request.operation {
        Operation::Compress => compress(input, output),
        Operation::Decompress => decompress(input, output),
    })?;
    let completion = Completion {
        status: 1,
        bytes_completed: read,
        output_bytes: written,
        crc,
        ..Completion::default()
    };
    Some(match request.operation {
        Operation::Compress => ending::compressed(request, &completion, job),
        Operation::Decompress => ending::decompressed(&completion, true, job),
    })
}

fn compress(input: &[u8], output: &mut [u8]) -> Option<(u32, u32, u32)> {
    let (&byte, rest) = input.split_first()?;
    // Two slices of the same bytes, one byte apart: the fastest comparison that there is.
    if input.len() != PAGE_BYTES || *rest != input[..rest.len()] {
        return None;
    }
    let Known { stream, crc } = known(byte);
    output.get_mut(..stream.len())?.copy_from_slice(stream);
    Some((input.len() as u32, stream.len() as u32, *crc))
}

fn decompress(input: &[u8], output: &mut [u8]) -> Option<(u32, u32, u32)> {
    let byte = byte_of_stream(input)?;
    let Known { stream, crc } = known(byte);
    if output.len() != PAGE_BYTES || stream != input {
        return None;
    }
    output.fill(byte);
    Some((input.len() as u32, PAGE_BYTES as u32, *crc))
}

/// The stream of a page of that byte.
fn known(byte: u8) -> &'static Known {
    static KNOWN: [OnceLock<Known>; 256] = [const { OnceLock::new() }; 256];
    KNOWN[usize::from(byte)].get_or_init(|| {
        let page = [byte; PAGE_BYTES];
        Known { stream: software::stream(&page), crc: crc(&page) }
    })
}

/// The literal that a final block with fixed codes begins with: RFC 1951, 3.2.6.
fn byte_of_stream(stream: &[u8]) -> Option<u8> {
    let head = u32::from_le_bytes([*stream.first()?, *stream.get(1)?, *stream.get(2)?, 0]);
    if head & 7 != 0b011 {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_byte_of_every_stream_is_recognised() {
        for byte in 0..=255 {
            let stream = &known(byte).stream;
            assert_eq!(byte_of_stream(stream), Some(byte));
            let mut page = [byte ^ 1; PAGE_BYTES];
            let done = decompress(stream, &mut page);
            assert_eq!(done, Some((stream.len() as u32, PAGE_BYTES as u32, crc(&page))));
            assert_eq!(page, [byte; PAGE_BYTES]);
        }
    }

    #[test]
    fn a_page_with_one_byte_that_differs_is_none() {
        assert!(compress(&[5; PAGE_BYTES], &mut [0; PAGE_BYTES]).is_some());
        for at in [0, 1, 2000, 4094, 4095] {
            let mut page = [5; PAGE_BYTES];
            page[at] = 6;
            assert_eq!(compress(&page, &mut [0; PAGE_BYTES]), None, "{at}");
        }
        assert_eq!(compress(&[5; 64], &mut [0; 64]), None);
    }

    #[test]
    fn other_streams_are_none_of_these() {
        for stream in [&[][..], &[3], &[3, 0], &[5, 0, 0], &[3, 0, 0]] {
            assert_eq!(decompress(stream, &mut [0; PAGE_BYTES]), None, "{stream:?}");
        }
    }
}
