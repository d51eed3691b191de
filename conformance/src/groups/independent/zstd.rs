//! zstd by `ruzstd`.

use std::io::{self, Read, Write};

use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};
use ruzstd::encoding::{CompressionLevel, FrameCompressor};

use super::{CHUNK, Implementation, Pieces};

pub(super) const RUZSTD: Implementation = Implementation::Stream {
    decode,
    encode,
    // The end of a block, which is what a flush makes, has no mark of its own: that a last block
    // can follow is what `decode` sees.
    flush: &[],
};

/// A raw block of no bytes that ends the frame, and room for a checksum, if the frame has one.
/// The decoder gives the last of a frame's content only at its end, which never comes on a channel.
const LAST_BLOCK: [u8; 7] = [1, 0, 0, 0, 0, 0, 0];

fn decode(pieces: &mut Pieces<'_>) -> Result<Vec<u8>, String> {
    let mut source = Source { pieces: pieces.chain([&LAST_BLOCK[..]]), piece: &[] };
    let mut decoder = FrameDecoder::new();
    decoder.init(&mut source).map_err(|error| error.to_string())?;
    decoder
        .decode_blocks(&mut source, BlockDecodingStrategy::All)
        .map_err(|error| error.to_string())?;
    let mut left = Vec::new();
    source.read_to_end(&mut left).map_err(|error| error.to_string())?;
    // The checksum's place is left over where there is none.
    if !matches!(left.len(), 0 | 4) {
        return Err(format!("the frame ends {} bytes before the stream", left.len()));
    }
    Ok(decoder.collect().unwrap_or_default())
}

/// A stream that gives one piece, or a part of it, in each read.
struct Source<'a, I> {
    pieces: I,
    piece: &'a [u8],
}

impl<'a, I: Iterator<Item = &'a [u8]>> Read for Source<'a, I> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.pieces.next() {
                Some(piece) => self.piece = piece,
                None => return Ok(0),
            }
        }
        self.piece.read(buffer)
    }
}

/// A frame in which each packet is one compressed block: the encoder fills blocks of 128 KiB and
/// writes each at once.
fn encode(pages: &[u8]) -> Vec<Vec<u8>> {
    assert!(pages.len() % CHUNK == 0 && CHUNK == 128 << 10, "whole blocks");
    let mut blocks = Blocks::default();
    let mut compressor = FrameCompressor::new(CompressionLevel::Fastest);
    compressor.set_source(pages);
    compressor.set_drain(&mut blocks);
    compressor.compress();
    // What comes behind the last full block ends the frame: a channel never does.
    blocks.0.truncate(pages.len() / CHUNK);
    blocks.0
}

/// What was written, write by write.
#[derive(Default)]
struct Blocks(Vec<Vec<u8>>);

impl Write for Blocks {
    fn write(&mut self, block: &[u8]) -> io::Result<usize> {
        self.0.push(block.to_vec());
        Ok(block.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
