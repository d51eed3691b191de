//! Payloads of method qpl, by what is built in: what is taken is what an independent decoder makes of it.

#![no_main]

use libfuzzer_sys::fuzz_target;
use miniz_oxide::inflate::decompress_to_vec_with_limit;
use multifd::qpl::{Options, Path, Qpl};
use multifd_fuzz::restored;

const PAGE: usize = 4096;

fuzz_target!(|input: &[u8]| {
    let Some((&choice, payload)) = input.split_first() else { return };
    let pages = usize::from(choice % 8) + 1;
    let codec = Qpl::new(Options::new(Path::Portable));
    let taken = restored(&codec, &[payload], pages);
    let Some(taken) = taken.first() else { return };
    let (lengths, mut chunks) = payload.split_at(4 * pages);
    for (length, page) in lengths.chunks(4).zip(taken.chunks(PAGE)) {
        let length = u32::from_be_bytes(length.try_into().expect("4 bytes")) as usize;
        let (chunk, rest) = chunks.split_at(length);
        chunks = rest;
        if length == PAGE {
            assert!(chunk == page);
        } else {
            // libdeflate takes the two codes that never occur (RFC 1951, section 3.2.6: 286 and 287) for
            // the longest length, where others refuse the stream.
            if let Ok(inflated) = decompress_to_vec_with_limit(chunk, PAGE) {
                assert!(inflated == page);
            }
        }
    }
    assert!(chunks.is_empty());
});
