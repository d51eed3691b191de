//! Payloads of method zstd: what is taken is what an independent decoder makes of it.

use multifd_core::codec::PacketMethods;
use multifd_zstd::Zstd;
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

use crate::{parts, restored};

/// Runs the target on one input.
pub fn zstd(input: &[u8]) {
    let (choice, payloads) = parts(input);
    let pages = usize::from(choice % 8) + 1;
    let taken = restored(&PacketMethods::new(Zstd::new()), &payloads, pages);
    if taken.is_empty() {
        return;
    }
    // The decoder gives the last of a frame's content only at its end, which never comes on a channel:
    // an empty last block, and room for a checksum, if the frame has one.
    let compressed = [&payloads[..taken.len()].concat()[..], &[1, 0, 0, 0, 0, 0, 0]].concat();
    let (mut rest, mut decoder) = (&compressed[..], FrameDecoder::new());
    decoder.init(&mut rest).expect("the header of a frame that was taken");
    let decoded = decoder.decode_blocks(&mut rest, BlockDecodingStrategy::All);
    assert!(decoded.expect("blocks that were taken") && matches!(rest.len(), 0 | 4));
    assert!(decoder.collect().unwrap_or_default() == taken.concat());
}
