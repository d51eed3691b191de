//! Payloads of pages that stand alone: n lengths, then n chunks (section 6 of the format).

use super::Pieces;
use crate::harness::in_pieces;

const LENGTH_BYTES: usize = size_of::<u32>();

/// The `count` pages in `payload`, of which `decode` gets each chunk that is shorter than a page in
/// pieces of these lengths.
pub(super) fn decode(
    payload: &[u8],
    count: usize,
    page_bytes: usize,
    lengths: &[usize],
    decode: fn(&mut Pieces<'_>) -> Result<Vec<u8>, String>,
) -> Result<Vec<u8>, String> {
    let (chunk_lengths, mut chunks) =
        payload.split_at_checked(count * LENGTH_BYTES).ok_or("no room for the lengths")?;
    let mut pages = Vec::with_capacity(count * page_bytes);
    for (index, length) in chunk_lengths.chunks_exact(LENGTH_BYTES).enumerate() {
        let length = length.iter().fold(0, |length, &byte| length << 8 | usize::from(byte));
        let (chunk, rest) = chunks
            .split_at_checked(length)
            .filter(|_| (1..=page_bytes).contains(&length))
            .ok_or_else(|| format!("chunk {index} has {length} bytes"))?;
        chunks = rest;
        if length == page_bytes {
            pages.extend_from_slice(chunk);
            continue;
        }
        let page = decode(&mut in_pieces(chunk, lengths));
        let page = page.map_err(|error| format!("chunk {index}: {error}"))?;
        if page.len() != page_bytes {
            return Err(format!("chunk {index} gives {} bytes", page.len()));
        }
        pages.extend(page);
    }
    if chunks.is_empty() { Ok(pages) } else { Err(format!("{} bytes left over", chunks.len())) }
}

/// The payload of a packet with `pages`. A page that `encode` does not make shorter goes as it is.
pub(super) fn encode(pages: &[u8], page_bytes: usize, encode: fn(&[u8]) -> Vec<u8>) -> Vec<u8> {
    let chunks = pages.chunks_exact(page_bytes).map(|page| {
        let chunk = encode(page);
        if chunk.len() < page.len() { chunk } else { page.to_vec() }
    });
    let chunks: Vec<_> = chunks.collect();
    let lengths = chunks.iter().flat_map(|chunk| (chunk.len() as u32).to_be_bytes());
    lengths.chain(chunks.iter().flatten().copied()).collect()
}
