//! Payloads of method zlib: what is taken is what an independent decoder makes of it.

use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress, inflate_flags};
use multifd_core::codec::PacketMethods;
use multifd_zlib::Zlib;

use crate::{parts, restored};

/// Runs the target on one input.
pub fn zlib(input: &[u8]) {
    let (choice, payloads) = parts(input);
    let pages = usize::from(choice % 8) + 1;
    let taken = restored(&PacketMethods::new(Zlib::new()), &payloads, pages);
    let compressed = payloads[..taken.len()].concat();
    let expected = taken.concat();
    // One byte more than there may be.
    let mut out = vec![0; expected.len() + 1];
    let flags = inflate_flags::TINFL_FLAG_PARSE_ZLIB_HEADER
        | inflate_flags::TINFL_FLAG_HAS_MORE_INPUT
        | inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
    let (status, read, written) =
        decompress(&mut DecompressorOxide::new(), &compressed, &mut out, 0, flags);
    assert_eq!(written, expected.len());
    assert!(out[..written] == expected[..]);
    // Of a block that begins behind the last page and is not all there, miniz_oxide refuses what zlib does later.
    assert!(read == compressed.len() || status == TINFLStatus::Failed, "{read}, {status:?}");
}
