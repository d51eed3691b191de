#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![warn(clippy::exhaustive_enums, clippy::exhaustive_structs)]

use std::sync::Arc;

use flate2::{Compress, Decompress, FlushCompress, FlushDecompress, Status};
use multifd_core::codec::{PacketCodec, PacketMethods, PageWriter};
use multifd_core::{
    Availability, ChannelConfig, Compression, Error, Levels, MethodDescriptor, Payload,
    Registration,
};

multifd_core::inventory::submit! {
    Registration(|| Arc::new(PacketMethods::new(Zlib::new())))
}

/// Method zlib: one zlib stream (RFC 1950) with a window of 32 KiB runs through the channel and
/// never ends. Each packet ends at a sync flush.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default)]
pub struct Zlib;

impl Zlib {
    /// The codec. It has no options beyond a channel's level.
    pub const fn new() -> Self {
        Self
    }
}

const DESCRIPTOR: MethodDescriptor =
    MethodDescriptor::new("zlib", "one zlib stream a channel, by zlib-rs", Compression::Zlib)
        .with_levels(Levels::new(0, 9, 1));

impl PacketCodec for Zlib {
    type Encoder = Compress;
    type Decoder = Decompress;

    fn descriptor(&self) -> MethodDescriptor {
        DESCRIPTOR
    }

    fn probe(&self) -> Availability {
        Availability::Available("zlib-rs (through flate2), built in".to_owned())
    }

    fn encoder(&self, config: &ChannelConfig) -> Result<Compress, Error> {
        let level = DESCRIPTOR.level(Some(config.level))?;
        Ok(Compress::new(flate2::Compression::new(level.unsigned_abs()), true))
    }

    fn decoder(&self, _: &ChannelConfig) -> Result<Decompress, Error> {
        Ok(Decompress::new(true))
    }

    fn encode(
        &self,
        deflate: &mut Compress,
        pages: &[u8],
        payload: &mut Payload,
    ) -> Result<(), Error> {
        let (read, written) = (deflate.total_in(), deflate.total_out());
        let space = payload.spare();
        deflate
            .compress(pages, space, FlushCompress::Sync)
            .map_err(|error| Error::backend(format!("zlib fails: {error}")))?;
        let read = (deflate.total_in() - read) as usize;
        let written = (deflate.total_out() - written) as usize;
        // Only with space left over is the flush known to be complete.
        if read < pages.len() || written == space.len() {
            return Err(Error::backend("zlib makes more of the pages than a packet can carry"));
        }
        payload.advance(written);
        Ok(())
    }

    fn decode(
        &self,
        inflate: &mut Decompress,
        payload: &[u8],
        pages: &mut PageWriter<'_>,
    ) -> Result<(), Error> {
        // The inflater would swallow a few bytes more without a word: the start of a block.
        if !payload.ends_with(&SYNC_FLUSH) {
            return Err(Error::payload("it does not end at a sync flush"));
        }
        let mut input = payload;
        let written = step(inflate, &mut input, pages.spare())?;
        pages.advance(written);
        expect_end(inflate, input)
    }
}

/// The end of the empty block that a sync flush writes.
const SYNC_FLUSH: [u8; 4] = [0, 0, 0xff, 0xff];

/// Takes in what follows the last byte of the packet's pages: the flush, and no more.
fn expect_end(inflate: &mut Decompress, mut input: &[u8]) -> Result<(), Error> {
    if step(inflate, &mut input, &mut [0])? > 0 || !input.is_empty() {
        return Err(Error::payload("it goes on after the packet's pages"));
    }
    Ok(())
}

/// Inflates until `input` is used up, or `output` is full. Returns the bytes written.
fn step(inflate: &mut Decompress, input: &mut &[u8], output: &mut [u8]) -> Result<usize, Error> {
    let (read, written) = (inflate.total_in(), inflate.total_out());
    let status = inflate
        .decompress(input, output, FlushDecompress::None)
        .map_err(|error| Error::payload(format!("zlib cannot read it: {error}")))?;
    if status == Status::StreamEnd {
        return Err(Error::payload("the zlib stream ends in it, which must go on"));
    }
    *input = &input[(inflate.total_in() - read) as usize..];
    Ok((inflate.total_out() - written) as usize)
}
